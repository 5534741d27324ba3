"""Traffic as what travels: JSON in Tidegate's own schema."""

from collections.abc import Iterator

import numpy as np

from engine.events import Records
from loadtest.columns import CHANNELS, COUNTRIES, ENTRY_MODES, Int32, Int64, Traffic, event_ids
from loadtest.poison import spoil
from loadtest.population import CATEGORIES

_EVENT = (
    '{"event_id":"%s","event_time":%d,"amount":%d.%02d,"currency":"EUR","card":"%d","merchant":"m-%06d",'
    '"device":"d-%010x","ip":"%s","category":"%s","country":"%s","channel":"%s","entry_mode":"%s"}'
)


def render(traffic: Traffic) -> list[bytes]:
    """One JSON object per record, about 260 bytes; poison is broken in its own way, a tombstone is empty."""
    values = render_valid(traffic)
    for row in np.flatnonzero(traffic.poison_kinds >= 0).tolist():
        rng = np.random.default_rng((traffic.run, int(traffic.numbers[row])))
        values[row] = spoil(int(traffic.poison_kinds[row]), rng, values[row])[0] or b""
    return values


def render_valid(traffic: Traffic) -> list[bytes]:
    """Every record as the valid event it is, or would have been."""
    major, minor = np.divmod(traffic.amounts_minor, 100)
    rows = zip(
        event_ids(traffic),
        traffic.times_ms.tolist(),
        major.tolist(),
        minor.tolist(),
        traffic.card_numbers.tolist(),
        traffic.merchants.tolist(),
        traffic.devices.tolist(),
        dotted(traffic.ips),
        [CATEGORIES[i] for i in traffic.categories.tolist()],
        [COUNTRIES[i] for i in traffic.countries.tolist()],
        [CHANNELS[i] for i in traffic.channels.tolist()],
        [ENTRY_MODES[i] for i in traffic.entry_modes.tolist()],
        strict=True,
    )
    return [(_EVENT % row).encode() for row in rows]


def records(traffic: Traffic, record_times_ms: Int64, batch_events: int = 2_048) -> Iterator[Records]:
    """The stream as the engine would have read it, from one partition."""
    for first in range(0, len(traffic), batch_events):
        rows = slice(first, min(first + batch_events, len(traffic)))
        values: list[bytes | None] = [*render(traffic.take(rows))]
        offsets = np.arange(rows.start, rows.stop, dtype=np.int64)
        yield Records("transactions", values, np.zeros_like(offsets), offsets, record_times_ms[rows])


def dotted(ips: Int32) -> list[str]:
    """24-bit numbers as addresses in 10.0.0.0/8.

    >>> dotted(np.array([258], np.int32))
    ['10.0.1.2']
    """
    octets = (ips >> 16, ips >> 8 & 255, ips & 255)
    return [f"10.{x}.{y}.{z}" for x, y, z in zip(*(octet.tolist() for octet in octets), strict=True)]
