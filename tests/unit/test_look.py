"""A look at one entity: its ring, its tiles and its features at a moment, and nothing changed by it."""

import gc
import math
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.state.local import LocalState
from engine.state.look import Look, RingEvent
from tests.build import MINOR_PER_MAJOR, PREDICATES, batch_of, full_config, small_config
from tests.memory_store import MemoryStore
from tests.oracle.compare import RELATIVE_ERROR_MAX
from tests.oracle.events import Event, text_hash, word
from tests.oracle.ring import exact_windows
from tests.oracle.windows import order_in_state, reading_at

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000
NOW = 1_735_689_600_000
RING_EVENTS_MAX = 8
CONFIG = full_config(ring_events_max=RING_EVENTS_MAX)
SPEC = CONFIG.feature_spec()
ENTITIES = {entity.name: entity for entity in SPEC.entities}


def _state(store: MemoryStore | None = None, config=CONFIG) -> LocalState:
    return LocalState(config, config.feature_spec(), "f", store)


def _event(time_ms: int, card: str = "c", merchant: str | None = "m", amount: int = 150, kind: int = 0) -> Event:
    texts = {"card": card, "merchant": merchant, "city": f"t{kind % 3}", "entry_mode": ("ecom", "chip", None)[kind % 3]}
    location = (48.1 + kind, 11.5 - kind) if kind % 2 else None
    return Event(time_ms, kind, amount, texts, {"distance_km": (None, 0.0, 500.0)[kind // 3 % 3]}, location)


def _take(state: LocalState, *events: Event) -> LocalState:
    for start in range(0, len(events), 7):
        state.features(batch_of(list(events[start : start + 7]), SPEC))
    return state


def _look(state: LocalState, entity: str = "card", key: str = "c", at_ms: int | None = None) -> Look:
    found = state.look(entity, text_hash(entity, key), at_ms)
    assert found is not None
    return found


def _at_random(seed: int, count: int, over_ms: int = HOUR) -> list[Event]:
    rng = np.random.default_rng(seed)
    times_ms = NOW + rng.integers(0, over_ms, count)
    draws = zip(times_ms.tolist(), rng.integers(-50, 400, count).tolist(), rng.integers(0, 18, count).tolist(),
                rng.integers(0, 3, count).tolist(), strict=True)  # fmt: skip
    return [_event(time_ms, "c", f"m{merchant}", amount, kind) for time_ms, amount, kind, merchant in draws]


# --- the ring --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 5, RING_EVENTS_MAX, 30])
def test_the_ring_is_the_newest_events_in_their_order(count: int) -> None:
    events = _at_random(1, count)
    found = _look(_take(_state(), *events))
    entity = ENTITIES["card"]
    newest = sorted(events, key=order_in_state(entity, PREDICATES))[-RING_EVENTS_MAX:]
    assert found.ring == [
        RingEvent(
            event.time_ms,
            event.amount_minor,
            tuple(word(event, column, PREDICATES) for column in entity.columns),
            tuple(name for name in entity.predicates if PREDICATES[name](event)),
        )
        for event in newest
    ]
    assert found.first_ms == min(event.time_ms for event in events)
    assert found.newest_ms == found.at_ms == max(event.time_ms for event in events)


def test_what_was_dropped_is_in_tiles() -> None:
    events = _at_random(2, 200, over_ms=3 * HOUR)
    found = _look(_take(_state(), *events))
    dropped = sorted(events, key=order_in_state(ENTITIES["card"], PREDICATES))[:-RING_EVENTS_MAX]
    assert found.dropped_ms == dropped[-1].time_ms
    assert sum(tile.events for tile in found.tiles) == len(dropped)
    assert [tile.start_ms for tile in found.tiles] == sorted({tile.start_ms for tile in found.tiles})
    for tile in found.tiles:
        inside = [event for event in dropped if tile.start_ms <= event.time_ms < tile.end_ms]
        times_ms, amounts = [event.time_ms for event in inside], [event.amount_minor for event in inside]
        assert (tile.first_ms, tile.last_ms) == (min(times_ms), max(times_ms))
        assert tile[4:] == (len(inside), sum(amounts), min(amounts), max(amounts))


def test_an_entity_that_dropped_nothing_has_no_tiles() -> None:
    found = _look(_take(_state(), *_at_random(3, RING_EVENTS_MAX)))
    assert (found.dropped_ms, found.tiles, found.inexact) == (None, [], [])


# --- values ----------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32), st.integers(1, 20), st.sampled_from([5 * SECOND, 5 * MINUTE, 2 * HOUR]),
       st.one_of(st.none(), st.floats(-0.2, 2.0)), st.sampled_from(["card", "merchant"]))  # fmt: skip
def test_values_are_those_of_a_reading_at_that_time(seed, count, over_ms, when, name) -> None:
    """Whatever is not named inexact is what all events up to then give; of what comes after, nothing is seen."""
    events = _at_random(seed, count, over_ms)
    key = {"card": "c", "merchant": events[-1].texts["merchant"]}[name]
    same = [event for event in events if event.texts[name] == key]
    at_ms = None if when is None else NOW + int(when * over_ms)
    found = _look(_take(_state(), *events), name, key, at_ms)
    newest_ms = max(event.time_ms for event in same)
    assert found.at_ms == (newest_ms if at_ms is None else at_ms)
    expected = reading_at(found.at_ms, same, ENTITIES[name], MINOR_PER_MAJOR, PREDICATES)
    assert found.values.keys() == expected.keys()
    for feature, value in found.values.items():
        _, kind, *rest = feature.split(".")
        window = next((part for part in rest if part in ENTITIES[name].windows), "all")
        if f"{name}.{window}" not in found.inexact:
            assert value == pytest.approx(expected[feature], rel=RELATIVE_ERROR_MAX.get(kind, 0), abs=0, nan_ok=True)


@given(st.integers(0, 2**32), st.integers(1, 30), st.floats(0, 1.5))
def test_windows_that_reach_what_was_dropped_are_named(seed: int, count: int, when: float) -> None:
    events = _at_random(seed, count)
    at_ms = NOW + int(when * HOUR)
    entity = ENTITIES["card"]
    found = _look(_take(_state(), *events), at_ms=at_ms)
    exact = exact_windows(at_ms, events, entity, RING_EVENTS_MAX, PREDICATES)
    assert [name for name in found.inexact if name != "card.all"] == [f"card.{w}" for w in entity.windows[exact:]]
    assert found.inexact == sorted(set(found.inexact), key=[*(f"card.{w}" for w in entity.windows), "card.all"].index)


def test_before_its_first_event_an_entity_has_nothing() -> None:
    found = _look(_take(_state(), *_at_random(4, 5)), at_ms=NOW - 1)
    for name, value in found.values.items():
        zero = name.split(".")[1] in ("count", "rate", "sum", "distinct")
        assert value == 0 if zero else math.isnan(value), name


# --- who is there ----------------------------------------------------------------------------------------------


def test_an_entity_of_which_nothing_is_known_is_none() -> None:
    state = _take(_state(), _event(NOW))
    assert state.look("card", text_hash("card", "other")) is None
    assert state.look("merchant", text_hash("card", "c")) is None
    assert _state().look("card", text_hash("card", "c")) is None


def test_an_entity_that_is_forgotten_is_none() -> None:
    config = small_config()
    spec = config.feature_spec()
    state = LocalState(config, spec, "f", None)
    for time_ms, card in [(NOW, "c"), (NOW + config.ttl_ms - 1, "d")]:
        state.features(batch_of([_event(time_ms, card)], spec))
    assert state.look("card", text_hash("card", "c")) is not None
    state.features(batch_of([_event(NOW + config.ttl_ms, "d")], spec))
    assert state.look("card", text_hash("card", "c")) is None
    assert state.look("card", text_hash("card", "d")) is not None


def test_an_entity_in_the_database_looks_as_it_did_in_memory() -> None:
    store = MemoryStore()
    state = _take(_state(store), *_at_random(5, 60))
    state.begin_flush({0: 60})
    state.finish_flush()
    for entity, key in (("card", "c"), ("merchant", "m1")):
        one, other = _look(state, entity, key), _look(_state(store), entity, key)
        assert (one.ring, one.tiles, one.inexact) == (other.ring, other.tiles, other.inexact)
        assert (one.first_ms, one.newest_ms, one.dropped_ms) == (other.first_ms, other.newest_ms, other.dropped_ms)
        assert one.values == pytest.approx(other.values, rel=0, abs=0, nan_ok=True)


# --- nothing changes -------------------------------------------------------------------------------------------


def test_looking_changes_nothing_that_is_kept() -> None:
    state, untouched = (_take(_state(), *_at_random(6, 60)) for _ in range(2))
    for at_ms in (None, NOW - DAY, NOW + HOUR // 2, NOW + 900 * DAY):
        _look(state, at_ms=at_ms)
    slots = np.arange(untouched._cache.used)
    assert state._cache.pack(slots) == untouched._cache.pack(slots)
    assert state._cache.dirty_count == untouched._cache.dirty_count
    assert state.dirty_bytes() == untouched.dirty_bytes()
    later = batch_of(_at_random(7, 20), SPEC)
    assert state.features(later).values.tobytes() == untouched.features(later).values.tobytes()


def _looked_for_in_vain(store: MemoryStore) -> LocalState:
    state = _take(_state(store), _event(NOW))
    for key in range(5):
        assert state.look("card", text_hash("card", f"other{key}")) is None
    return state


def test_one_that_was_looked_for_in_vain_comes_like_any_other() -> None:
    state = _looked_for_in_vain(MemoryStore())
    values = state.features(batch_of([_event(NOW + 1, "other0")], SPEC)).values
    assert (
        values.tobytes()
        == _take(_state(), _event(NOW)).features(batch_of([_event(NOW + 1, "other0")], SPEC)).values.tobytes()
    )
    assert len(_look(state, key="other0").ring) == 1


def test_looking_for_who_is_not_there_counts_nobody() -> None:
    state = _looked_for_in_vain(MemoryStore())
    assert state.entities() == {"card": 1, "merchant": 1}
    _take(state, _event(NOW + 1, "other0"))
    assert state.entities() == {"card": 2, "merchant": 1}


def test_a_state_is_freed_as_soon_as_nobody_holds_it() -> None:
    """Its arrays are too large to wait for the collector of cycles, which does not know their size."""
    gc.disable()
    try:
        state = weakref.ref(_take(_state(MemoryStore()), _event(NOW)))
        assert state() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("aggregate", "exact"), [("last.amount", False), ("last.merchant", False), ("since_last", True)]
)
def test_what_was_never_seen_may_have_had_the_time_of_the_newest_event(aggregate: str, exact: bool) -> None:
    """Of two events of one time the newest is decided by what is stored of them; how long ago they were is the same."""
    config = full_config(("1s",), RING_EVENTS_MAX, [aggregate])
    for later_ms, surely in ((0, exact), (1, True)):
        state = _state(None, config)
        state.begin_cold(NOW)
        state.features(batch_of([_event(NOW + later_ms)], config.feature_spec()))
        matrix = state.features(batch_of([_event(NOW + MINUTE)], config.feature_spec()))
        assert bool(matrix.exact_all[0, 0]) is surely
