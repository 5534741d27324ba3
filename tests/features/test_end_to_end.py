"""From JSON to features: the decoder's words, predicates and numbers mean what the oracle says they mean."""

import json
import random
from decimal import Decimal

import numpy as np
import pytest

from engine.decode import Decoder
from engine.events import Records
from engine.state.local import LocalState
from tests.build import batch_of, full_config
from tests.features.timelines import TIMELINES
from tests.oracle.compare import Comparison, Tally
from tests.oracle.events import Event
from tests.property import streams

STREAMS = 20
EVENTS = 60


def written(event: Event, draw: random.Random) -> bytes:
    """What a producer sends; a field that is absent is left out, null or empty."""
    fields = {
        "event_id": event.event_id or str(event.sequence),
        "event_time": event.time_ms,
        "amount": str(Decimal(event.amount_minor).scaleb(-2)),
        **event.texts,
        **event.numbers,
        **dict(zip(("lat", "lon"), event.location or (None, None), strict=True)),
    }
    for name in [name for name, value in fields.items() if value is None]:
        fields[name] = draw.choice([None, "", ...])
    if fields["distance_km"] == 250.25:
        fields["distance_km"] = draw.choice([250.25, "250.25", "2.5025e2"])
    return json.dumps({name: value for name, value in fields.items() if value is not ...}).encode()


def check(events: list[Event], draw: random.Random) -> Tally:
    config = full_config(ring_events_max=16)
    spec = config.feature_spec()
    records = Records(
        "in",
        [written(event, draw) for event in events],
        np.array([event.partition for event in events], np.int64),
        np.array([event.offset for event in events], np.int64),
        np.full(len(events), -1, np.int64),
    )
    decoded, refused = Decoder(config, spec, None).decode(records)
    assert not refused
    expected = batch_of(events, spec)
    np.testing.assert_array_equal(decoded.words, expected.words)
    np.testing.assert_array_equal(decoded.flags, expected.flags)
    np.testing.assert_array_equal(decoded.amounts_minor, expected.amounts_minor)
    tally = Tally()
    comparison = Comparison(config).counting(tally)
    matrix = LocalState(config, spec, "f", None).features(decoded)
    for row in range(0, len(events), 5):
        comparison.check(matrix, row, events[row], events[:row])
    return tally


@pytest.mark.parametrize("seed", range(STREAMS))
def test_random_streams(seed: int) -> None:
    draw = random.Random(seed)
    items = [streams.item_of(draw.randbytes(streams.ITEM_BYTES - 1) + b"\0") for _ in range(EVENTS)]
    assert check(streams.numbered(items), draw).exact > 0


@pytest.mark.parametrize("name", TIMELINES)
def test_timelines(name: str) -> None:
    tally = check(list(TIMELINES[name]), random.Random(0))
    assert tally.exact == tally.compared
