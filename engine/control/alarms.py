"""Readings become alarms, which neither one look raises nor one look ends.

over       . x . x x x x . x . . . . . .
alarm              |-------------------|        raise_after 2, clear_after 6

An alarm that is raised is a fact with a time, from which everything else follows: what is shown, and whether another
model is asked for.
"""

from collections.abc import Iterable

import msgspec

from engine.control.drift import Reading
from engine.telemetry import Histogram


class Alarm(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One signal: how many looks in a row asked for an alarm, or did not; since when it is raised, 0 where it is not.

    `value`, `limit` and `events` are those of the last reading.
    """

    over: int = 0
    under: int = 0
    raised_at_ms: int = 0
    value: float = 0.0
    limit: float = 0.0
    events: int = 0


class Asked(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """When a model was last asked for another."""

    model: str
    at_ms: int


# So many scores of a model's first decisions say what is usual of it.
BASELINE_EVENTS = 20_000


class Alarms(msgspec.Struct, frozen=True, array_like=True):
    """Of one application: up to when was looked, and the alarms of the model that decided last.

    `baseline`: its first scores.
    """

    looked_at_ms: int = 0
    model: str = ""
    alarms: dict[str, Alarm] = {}
    asked: list[Asked] = []
    baseline: Histogram | None = None

    @property
    def raised(self) -> dict[str, Alarm]:
        """Those that are."""
        return {name: alarm for name, alarm in self.alarms.items() if alarm.raised_at_ms}


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Alarms)


def encode_alarms(alarms: Alarms) -> bytes:
    """As the table holds it."""
    return _encoder.encode(alarms)


def decode_alarms(value: bytes | None) -> Alarms:
    """As the table holds it; none where it holds nothing."""
    return Alarms() if value is None else _decoder.decode(value)


def next_alarm(alarm: Alarm, reading: Reading, at_ms: int, raise_after: int, clear_after: int) -> Alarm:
    """After one more look."""
    over = alarm.over + 1 if reading.over else 0
    under = 0 if reading.over else alarm.under + 1
    raised_at_ms = alarm.raised_at_ms
    if not raised_at_ms and over >= raise_after:
        raised_at_ms = at_ms
    elif raised_at_ms and under >= clear_after:
        raised_at_ms = 0
    return Alarm(over, under, raised_at_ms, reading.value, reading.limit, reading.events)


def after_look(
    alarms: Alarms,
    model: str,
    readings: Iterable[Reading],
    at_ms: int,
    raise_after: int,
    clear_after: int,
    scores: Histogram | None = None,
) -> Alarms:
    """After a look at what ends at `at_ms`. A signal without a reading stays as it was; another model begins anew."""
    known, baseline = (dict(alarms.alarms), alarms.baseline) if model == alarms.model else ({}, None)
    for reading in readings:
        known[reading.name] = next_alarm(known.get(reading.name, Alarm()), reading, at_ms, raise_after, clear_after)
    return Alarms(at_ms, model, known, alarms.asked, with_scores(baseline, scores))


def usual_scores(alarms: Alarms, model: str) -> Histogram | None:
    """How this model scored at first; None before there are enough of them."""
    baseline = alarms.baseline if alarms.model == model else None
    return None if baseline is None or sum(baseline.counts) < BASELINE_EVENTS else baseline


def with_scores(baseline: Histogram | None, scores: Histogram | None) -> Histogram | None:
    """The first scores and these, as long as there are too few."""
    if scores is None or (baseline is not None and sum(baseline.counts) >= BASELINE_EVENTS):
        return baseline
    if baseline is None or baseline.edges != scores.edges:
        return scores
    return Histogram(baseline.edges, [a + b for a, b in zip(baseline.counts, scores.counts, strict=True)])
