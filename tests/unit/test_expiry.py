"""What is forgotten leaves the database sooner or later, what is not never does, and nobody can tell when it went."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import FatalError
from engine.state import expiry
from engine.state.cache import checksum
from engine.state.expiry import Expiry
from engine.state.header import decode_header
from engine.state.keys import ENTITY_KIND_FIRST, HEADER, entity_keys
from engine.state.local import LocalState
from engine.state.store import Store
from features.arena import NEVER
from features.clock import FIRST_MS, FORGOTTEN_MS, NEWEST_MS, forgotten
from tests.build import batch_of, small_config
from tests.memory_store import MemoryStore
from tests.oracle.events import OFFSET_BITS, Event, text_hash

DAY = 86_400_000
NOW = 1_735_689_600_000
CONFIG = small_config(ring_events_max=4)
SPEC = CONFIG.feature_spec()
TTL_MS = CONFIG.ttl_ms
CARD, MERCHANT = range(2)


def _event(number: int, time_ms: int, card: str | None, merchant: str | None = None, partition: int = 0) -> Event:
    texts = {"card": card, "merchant": merchant, "city": "x"}
    return Event(time_ms, (partition << OFFSET_BITS) + number, 100 + number, texts)


def _state(store: MemoryStore | Store | None) -> LocalState:
    return LocalState(CONFIG, SPEC, "f", store)


def _take(state: LocalState, *events: Event):
    return state.features(batch_of(list(events), SPEC))


def _flush(state: LocalState) -> None:
    state.begin_flush({0: 0})
    state.finish_flush()


def _key(kind: int, text: str) -> bytes:
    return entity_keys(np.array([kind]), np.array([text_hash(("card", "merchant")[kind], text)], np.uint64))[0]


def _entity_rows(store: MemoryStore) -> set[bytes]:
    return {key for key in store.rows if key[0] >= ENTITY_KIND_FIRST}


def _counted(store: MemoryStore) -> dict[str, int]:
    """How many entities of each kind there are in the database."""
    kinds = [key[0] - ENTITY_KIND_FIRST for key in _entity_rows(store)]
    return {"card": kinds.count(CARD), "merchant": kinds.count(MERCHANT)}


# --- the clock -------------------------------------------------------------------------------------------------


def _forgotten_by_hand(events: list[tuple[int, int]], ttl_ms: int) -> list[int]:
    """Up to when entities are forgotten at each event (time, partition), by looking at all events before."""
    found, result = NEVER, []
    for number in range(1, len(events) + 1):
        before = events[:number]
        clock_ms = min(max(t for t, p in before if p == partition) for partition in {p for _, p in before})
        if clock_ms - ttl_ms >= min(t for t, _ in before):
            found = max(found, clock_ms - ttl_ms)
        result.append(found)
    return result


@given(
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 3)), min_size=1, max_size=60),
    st.integers(1, 200),
    st.lists(st.integers(1, 59), max_size=4),
)
def test_the_clock_is_that_of_the_partition_that_lags_most(events, ttl_ms: int, cuts: list[int]) -> None:
    """However events are cut into batches."""
    newest_ms, times, result = np.full(4, NEVER, np.int64), np.full(3, NEVER, np.int64), []
    for start, end in itertools.pairwise(sorted({0, *cuts, len(events)})):
        part = np.array(events[start:end], np.int64).reshape(-1, 2)
        result += forgotten(part[:, 0].copy(), part[:, 1].copy(), newest_ms, times, ttl_ms).tolist()
    assert result[: len(events)] == _forgotten_by_hand(events, ttl_ms)
    all_ms = [time_ms for time_ms, _ in events]
    assert times[[FIRST_MS, FORGOTTEN_MS, NEWEST_MS]].tolist() == [min(all_ms), result[-1], max(all_ms)]


def test_one_partition_that_runs_ahead_forgets_nothing() -> None:
    """
    partition 0:  a . . . .                                    and goes on there
    partition 1:             b                    a year later
    """
    store = MemoryStore()
    state = _state(store)
    _take(state, _event(0, NOW, "a"), _event(0, NOW + 365 * DAY, "b", partition=1))
    _flush(state)
    _take(state, _event(1, NOW + 5 * DAY, None, "m"))
    _flush(state)
    assert state.header.forgotten_ms == NEVER
    assert _key(CARD, "a") in store.rows
    _take(state, _event(2, NOW + TTL_MS, None, "m"))
    _flush(state)
    assert state.header.forgotten_ms == NOW
    assert _key(CARD, "a") not in store.rows
    assert _key(CARD, "b") in store.rows


def test_the_clock_goes_on_after_a_restart() -> None:
    store = MemoryStore()
    state = _state(store)
    _take(state, _event(0, NOW, "a"), _event(1, NOW + TTL_MS, "b"))
    state.accept(batch_of([_event(1, NOW + TTL_MS, "b")], SPEC))
    _flush(state)
    header = decode_header(store.rows[HEADER])
    assert (header.first_ms, header.newest_ms, header.forgotten_ms) == (NOW, NOW + TTL_MS, NOW)
    state = _state(store)
    # A partition that was never heard of before is not part of what is forgotten already.
    _take(state, _event(0, NOW + 3 * DAY, "c", partition=7))
    _flush(state)
    assert state.header.forgotten_ms == NOW
    _take(state, _event(1, NOW + TTL_MS + 9 * DAY, "c", partition=7), _event(2, NOW + TTL_MS + DAY, "c"))
    _flush(state)
    assert state.header.forgotten_ms == NOW + DAY


# --- deletion --------------------------------------------------------------------------------------------------


def test_an_entity_is_forgotten_a_ttl_after_its_newest_event_and_not_before() -> None:
    store = MemoryStore()
    state = _state(store)
    _take(state, _event(0, NOW - DAY, "first"), _event(1, NOW, "a"))
    _flush(state)
    _take(state, _event(2, NOW + TTL_MS - 1, "b"))
    _flush(state)
    assert _key(CARD, "a") in store.rows
    assert _key(CARD, "first") not in store.rows
    _take(state, _event(3, NOW + TTL_MS, "b"))
    _flush(state)
    assert _key(CARD, "a") not in store.rows
    assert state.entities() == _counted(store) == {"card": 1, "merchant": 0}


@pytest.mark.parametrize("rows", [1, 3, 7, 1_000])
def test_all_that_is_forgotten_is_gone_after_a_walk_through_the_database(
    monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr(expiry, "ROWS_PER_FLUSH", rows)
    store = MemoryStore()
    state = _state(store)
    old = [_event(n, NOW + n, f"old{n}", f"old{n}") for n in range(20)]
    new = [_event(20 + n, NOW + 2 * TTL_MS + n, f"new{n}", f"new{n}") for n in range(20)]
    _take(state, *old)
    _flush(state)
    _take(state, *new)
    fewest = 40
    for _ in range(82 // rows + 2):
        _flush(state)
        left = _entity_rows(store)
        # Never more at once than were looked at.
        assert fewest - len(left) <= rows or fewest == 40
        fewest = len(left)
        assert state.entities() == _counted(store)
    assert left == {_key(kind, f"new{n}") for kind in (CARD, MERCHANT) for n in range(20)}


def test_rows_are_walked_through_from_where_the_last_flush_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry, "ROWS_PER_FLUSH", 4)
    store = MemoryStore()
    _take(state := _state(store), *(_event(n, NOW, f"c{n}") for n in range(10)))
    _flush(state)
    keys = sorted(_entity_rows(store))
    walk = Expiry(store)
    assert [walk.expired(NOW) for _ in range(4)] == [keys[:4], keys[4:8], keys[8:], keys[:4]]
    # Other rows come and go in between.
    walk = Expiry(store)
    assert walk.expired(NOW) == keys[:4]
    del store.rows[keys[4]]
    assert walk.expired(NOW) == keys[5:9]
    assert Expiry(store).expired(NOW - 1) == []
    assert Expiry(store).expired(NEVER) == []


def test_a_damaged_row_is_left_to_be_found() -> None:
    store = MemoryStore()
    _take(state := _state(store), _event(0, NOW, "a"), _event(1, NOW, "b"))
    _flush(state)
    store.rows[_key(CARD, "a")] = store.rows[_key(CARD, "a")][:-1] + b"?"
    assert Expiry(store).expired(NOW) == [_key(CARD, "b")]
    with pytest.raises(FatalError, match="is damaged"):
        _take(_state(store), _event(2, NOW, "a"))


@pytest.mark.parametrize("blob", [b"", b"\x02", checksum(b"")], ids=["empty", "short", "checksum of nothing"])
def test_a_row_that_is_hardly_there_is_left_too(blob: bytes) -> None:
    """A row of nothing but a right checksum has no time; whatever is made of that, no other row may suffer."""
    store = MemoryStore()
    _take(state := _state(store), _event(0, NOW, "a"), _event(1, NOW, "b"))
    _flush(state)
    store.rows[_key(CARD, "a")] = blob
    assert _key(CARD, "b") in Expiry(store).expired(NOW)


# --- deletion beside changes -----------------------------------------------------------------------------------


COMES_BACK = ["before the flush that deletes it", "during it", "after it"]


def _state_to_which_one_comes_back(store: MemoryStore, when: str) -> LocalState:
    """Five cards are forgotten when a merchant's event comes; c2, which is still in memory, comes back."""
    state = _state(store)
    _take(state, *(_event(n, NOW, f"c{n}") for n in range(5)))
    _flush(state)
    later = [_event(10 + n, NOW + 2 * TTL_MS, *texts) for n, texts in enumerate([(None, "m"), ("c2", None)])]
    for moment, event in zip(("", when), later, strict=True):
        if moment == COMES_BACK[1]:
            state.begin_flush({0: 0})
        if moment == COMES_BACK[2]:
            _flush(state)
        _take(state, event)
        # As metrics do, at any time: what is counted here must not be what counts later.
        state.entities()
    if when == COMES_BACK[1]:
        state.finish_flush()
        assert _key(CARD, "c2") not in store.rows
    _flush(state)
    return state


@pytest.mark.parametrize("when", COMES_BACK)
def test_an_entity_that_comes_back_is_there_again(when: str) -> None:
    """Where one flush would both write and delete it, it stays."""
    store = MemoryStore()
    _state_to_which_one_comes_back(store, when)
    assert _entity_rows(store) == {_key(CARD, "c2"), _key(MERCHANT, "m")}


@pytest.mark.parametrize("when", COMES_BACK)
def test_an_entity_that_comes_back_counts_again(when: str) -> None:
    store = MemoryStore()
    assert _state_to_which_one_comes_back(store, when).entities() == _counted(store)


# Few entities and little time within a TTL of few days, so that they come, go, and come back.
STEPS = st.lists(
    st.tuples(
        st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(0, 9), st.integers(0, 1)), max_size=4),
        st.sampled_from(["go on", "begin", "write one", "finish", "restart", "crash"]),
        st.integers(0, 20),
    ),
    max_size=30,
)


@given(STEPS, st.sampled_from([1, 3, 4_096]))
def test_rows_are_deleted_only_where_forgotten_and_nobody_can_tell(steps, rows: int) -> None:
    """Values beside those of a state without a database, from which nothing is ever deleted."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(expiry, "ROWS_PER_FLUSH", rows)
        store, everything = MemoryStore(), _state(None)
        state = _state(store)
        now_ms, number, last_ms = NOW, 0, {}
        for drawn, then, days in steps:
            now_ms += days * DAY
            events = []
            for ago, card, merchant, partition in drawn:
                events.append(_event(number, now_ms - ago * DAY, f"c{card}", f"m{merchant}", partition))
                number += 1
            if events:
                # Memory of what was accepted, of which the clock of each partition is part.
                found, expected = state.features(state.accept(batch_of(events, SPEC))), _take(everything, *events)
                assert found.values.tobytes() == expected.values.tobytes()
                assert found.exact_windows.tobytes() == expected.exact_windows.tobytes()
                assert found.exact_all.tobytes() == expected.exact_all.tobytes()
            for event in events:
                for kind, name in enumerate(("card", "merchant")):
                    key = _key(kind, event.texts[name])
                    last_ms[key] = max(last_ms.get(key, NEVER), event.time_ms)
            if then in ("begin", "finish", "restart", "crash"):
                state.finish_flush()
                before = dict(store.rows)
                state.begin_flush({0: number})
                # A crash now, or after a few rows, would find what was there before.
                assert (then != "crash" or state.continue_flush(2)) or store.rows == before
            if then == "write one":
                state.continue_flush(1)
            if then in ("finish", "restart", "crash"):
                state.finish_flush()
                header = decode_header(store.rows[HEADER])
                gone = {key for key in before if key not in store.rows and key[0] >= ENTITY_KIND_FIRST}
                assert all(last_ms[key] <= header.forgotten_ms for key in gone)
                assert {key for key, time_ms in last_ms.items() if time_ms > header.forgotten_ms} <= store.rows.keys()
                assert header.entities == _counted(store)
            if then == "restart":
                state = _state(store)


def test_a_flush_that_is_not_finished_deletes_nothing(tmp_path: Path) -> None:
    with Store(tmp_path, 1 << 20) as store:
        state = _state(store)
        _take(state, *(_event(n, NOW, f"c{n}") for n in range(100)))
        _flush(state)
        rows = dict(store.scan(b""))
        _take(state, *(_event(100 + n, NOW + 2 * TTL_MS, f"d{n}") for n in range(100)))
        state.begin_flush({0: 200})
        assert not state.continue_flush(10)
        assert dict(store.scan(b"")) == rows
    with Store(tmp_path, 1 << 20) as store:
        assert dict(store.scan(b"")) == rows
        state = _state(store)
        assert state.entities() == {"card": 100, "merchant": 0}
        _take(state, *(_event(100 + n, NOW + 2 * TTL_MS, f"d{n}") for n in range(100)))
        _flush(state)
        keys = [key for key, _ in store.scan(b"") if key[0] >= ENTITY_KIND_FIRST]
        assert keys == sorted(_key(CARD, f"d{n}") for n in range(100))
        assert state.entities() == {"card": 100, "merchant": 0}
