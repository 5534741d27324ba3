"""One suite over all aggregates: whatever is flagged exact equals the oracle.

Every form of every aggregate is tried alone, with only the columns and predicates that it needs stored, and all of them
together, on timelines made by hand and on random streams.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from engine.config import Config, parse_config
from engine.state.keys import HEADER
from engine.state.local import FeatureMatrix, LocalState
from features.spec import PREDICATES_MAX
from tests.build import batch_of, every_aggregate, full_config
from tests.features.timelines import START_MS, TIMELINES, event
from tests.memory_store import MemoryStore
from tests.oracle.compare import Comparison, Tally
from tests.oracle.events import Event
from tests.property import streams

AGGREGATES = every_aggregate()
RING_EVENTS_MAX = 16


def scored(config: Config, events: Sequence[Event]) -> FeatureMatrix:
    """The features of all events, as one batch into an empty state."""
    return LocalState(config, config.feature_spec(), "f", None).features(batch_of(list(events), config.feature_spec()))


def compared(config: Config, events: Sequence[Event], step: int = 1) -> Tally:
    """Every step-th row against the oracle."""
    tally = Tally()
    comparison = Comparison(config).counting(tally)
    matrix = scored(config, events)
    for row in range(0, len(events), step):
        comparison.check(matrix, row, events[row], list(events[:row]))
        comparison.check_promise(matrix, row, events[row], list(events[:row]))
    return tally


@cache
def random_events(seed: int, count: int, scale: int = 1) -> tuple[Event, ...]:
    draw = random.Random(seed)
    items = [streams.item_of(draw.randbytes(streams.ITEM_BYTES - 1) + b"\0", scale) for _ in range(count)]
    return tuple(streams.numbered(items))


def in_order(events: Sequence[Event]) -> list[Event]:
    return sorted(events, key=lambda one: one.time_ms)


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_alone(aggregate: str) -> None:
    config = full_config(aggregates=[aggregate], ring_events_max=RING_EVENTS_MAX)
    for name, events in TIMELINES.items():
        tally = compared(config, events)
        assert tally.exact == tally.compared, name
    tally = compared(config, random_events(1, 80))
    tally.add(compared(config, in_order(random_events(2, 80))))
    assert tally.overflowed_exact > 0


@pytest.mark.parametrize("name", TIMELINES)
def test_all_together(name: str) -> None:
    tally = compared(full_config(ring_events_max=RING_EVENTS_MAX), TIMELINES[name])
    assert tally.exact == tally.compared > len(TIMELINES[name]) * len(AGGREGATES)


@pytest.mark.parametrize("scale", [1, 30, 1_000])
@pytest.mark.parametrize("ring_events_max", [4, 64])
def test_random_streams(ring_events_max: int, scale: int) -> None:
    """Out of order and then the same in order, as more events are kept than rings hold."""
    config = full_config(("10s", "1m", "1h", "1d"), ring_events_max)
    for events in (random_events(3, 300, scale), in_order(random_events(4, 300, scale))):
        tally = compared(config, events, step=3)
        assert tally.exact > tally.compared / 10
        assert tally.overflowed_exact > 0


@pytest.mark.parametrize("ring_events_max", [64, 128, 256])
def test_a_hot_key_in_a_ring_of_many_words(ring_events_max: int) -> None:
    """Three times as many events as the ring holds, nearly in order, so that it fills, wraps and shifts."""
    draw = random.Random(ring_events_max)
    events = []
    for number in range(3 * ring_events_max):
        item = streams.item_of(draw.randbytes(streams.ITEM_BYTES - 1) + b"\0")
        late_s = draw.choice([0, 0, 0, 0, 3, 40, 10_000])
        moment = event(number * 0.9 - late_s if draw.random() < 0.8 else (number // 7) * 6.3, 0)
        texts = dict(item.event.texts) | {"card": "a"}
        events.append(replace(item.event, time_ms=moment.time_ms, sequence=number, texts=texts))
    tally = compared(full_config(("10s", "1m", "4m"), ring_events_max), events, step=5)
    assert tally.exact > tally.compared / 2
    assert tally.overflowed_exact > 1_000


def test_amounts_as_large_as_they_may_be() -> None:
    """Sums of squares beyond 64 bits, running totals beyond 2^63, and spreads of one minor unit at the upper end."""
    draw = random.Random(5)
    extremes = [10**13, -(10**13), 10**13 - 1, 10**13 - 2, 1 - 10**13, 0, 1]
    for choices in (extremes, extremes[:1], extremes[2:4], extremes[1:2]):
        events = [event(0.1 * number, draw.choice(choices), number) for number in range(150)]
        kinds = [aggregate for aggregate in AGGREGATES if ".amount" in aggregate]
        compared(full_config(aggregates=kinds, ring_events_max=64), events)


def test_millions_of_events_make_no_running_total_wrong() -> None:
    """Running totals wrap around modulo 2^64 without harm: 10^13 a million times over is more than that holds."""
    config = full_config(
        ("1s", "10s"), 64, ["sum.amount", "mean.amount", "std.amount", "max.amount", "min.amount.small"]
    )
    spec = config.feature_spec()
    state = LocalState(config, spec, "f", None)
    events = [event(0.2 * number, 10**13 - number % 5, number, merchant=None) for number in range(64)]
    batch = batch_of(events, spec)
    comparison = Comparison(config)
    rounds = 30_000
    for number in range(rounds):
        batch.times_ms[:] = [START_MS + 200 * (64 * number + place) for place in range(64)]
        matrix = state.features(batch, compute=number == rounds - 1)
    first = 64 * (rounds - 2)
    last = [replace(events[place % 64], time_ms=START_MS + 200 * (first + place)) for place in range(128)]
    for row in (0, 30, 63):
        comparison.check(matrix, row, last[64 + row], last[: 64 + row])
    assert comparison.tally.exact > 30


def test_as_many_predicates_as_there_may_be() -> None:
    """Each has a bit of its own, up to the last."""
    names = [f"below_{number}" for number in range(PREDICATES_MAX)]
    tests = {name: _below(10 * number) for number, name in enumerate(names)}
    written = "\n".join(f'{name} = "amount < {number / 10}"' for number, name in enumerate(names))
    aggregates = [f"{kind}.{name}" for name in names for kind in ("count", "sum.amount", "since_last", "last.merchant")]
    text = f"""[mapping]
currency = {{ default = "EUR" }}
[predicates]
{written}
[entities.card]
windows = ["10s", "1m"]
aggregates = {aggregates}
[state]
cache_bytes_max = {64 << 20}
dirty_bytes_max = {8 << 20}
ring_events_max = 64
"""
    config = parse_config(text, Path(), environment={})
    spec = config.feature_spec()
    draw = random.Random(6)
    events = [event(0.5 * number, draw.randrange(-5, 330), number) for number in range(120)]
    matrix = LocalState(config, spec, "f", None).features(batch_of(events, spec, predicates=tests))
    comparison = Comparison(config, tests)
    for row in range(0, len(events), 7):
        comparison.check(matrix, row, events[row], events[:row])
    assert comparison.tally.overflowed_exact > 0


def _below(amount_minor: int) -> Callable[[Event], bool]:
    return lambda one: one.amount_minor < amount_minor


def test_windows_of_a_millisecond_and_of_years() -> None:
    config = full_config(("1ms", "2ms", "300ms", "400d", "3650d"), 16)
    events = [replace(one, time_ms=one.time_ms - START_MS + START_MS // 2) for one in random_events(8, 100, 1_000_000)]
    events += [replace(one, time_ms=START_MS + number // 3) for number, one in enumerate(random_events(9, 100))]
    assert compared(config, events, step=3).overflowed_exact > 0


@pytest.mark.parametrize(("first_s", "count"), [(0, 1), (0.001, 2)])
def test_an_entity_is_forgotten_when_it_can_matter_no_more(first_s: float, count: int) -> None:
    """With a TTL of 40 s: 30 s for the longest window, and 10 s as which an event may come late.

        0 s                            30 s      40 s
        a                               .         b       b moves the clock on: a, 40 s old, is forgotten
        )-------------------------------c                 c comes as late as it may: a at 0 s is out of its window
         a ------------------------------                 a millisecond later it is in
    """  # fmt: skip
    config = full_config(["30s"], 16, ["count"], merchant_windows=["30s"], horizon_past="10s")
    other = {"card": "b", "merchant": "m2"}
    events = [event(0, 100, 0, **other), event(first_s, 100, 1), event(40, 100, 2, **other), event(30, 100, 3)]
    compared(config, events)
    matrix = scored(config, events)
    assert matrix.values[3, config.feature_spec().names.index("card.count.30s")] == count
    assert matrix.exact_windows[3].tolist() == [1, 1]


def test_an_entity_that_is_absent_has_no_values_and_nothing_wrong() -> None:
    config = full_config()
    matrix = scored(config, [event(0, 1, card=None)])
    spec = config.feature_spec()
    own = [name.startswith("card.") for name in spec.names]
    assert np.isnan(matrix.values[0, own]).all()
    assert matrix.missing[0]
    assert matrix.exact_windows[0].tolist() == [len(entity.windows) for entity in spec.entities]
    assert matrix.exact_all[0].all()


@pytest.mark.parametrize("values", [30, 600, 3_000])
def test_many_values_survive_restarts_and_any_order_of_partitions(values: int) -> None:
    """Whether an entity remembers values one by one or, when they are too many, by cells: not one bit differs."""
    config = full_config(("10s", "10m", "1d"), 16, ["count", "distinct.merchant", "is_new.merchant", "distinct.city"])
    draw = random.Random(values)
    merchants = [draw.randrange(values) for _ in range(2_000)]
    events = [
        replace(event(number - draw.choice([0, 0, 0, 300]), 100, merchant=f"m{merchant}"), sequence=number)
        for number, merchant in enumerate(merchants)
    ]
    store, whole = MemoryStore(), MemoryStore()
    spec = config.feature_spec()
    once = LocalState(config, spec, "f", whole)
    wanted = once.features(batch_of(events, spec))
    for first in range(0, len(events), 250):
        state = LocalState(config, spec, "f", store)
        found = state.features(batch_of(events[first : first + 250], spec))
        assert found.values.tobytes() == wanted.values[first : first + 250].tobytes()
        assert found.exact_windows.tobytes() == wanted.exact_windows[first : first + 250].tobytes()
        flush(state)
    flush(once)
    other = MemoryStore()
    state = LocalState(config, spec, "f", other)
    state.features(batch_of(events[::2] + events[1::2], spec))
    flush(state)
    assert entities(store) == entities(whole) == entities(other)


def flush(state: LocalState) -> None:
    state.begin_flush({})
    state.finish_flush()


def entities(store: MemoryStore) -> dict[bytes, bytes]:
    return {key: value for key, value in store.rows.items() if key != HEADER}
