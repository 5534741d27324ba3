"""Dedupe: the kernel and its segments on disk against a plain list.

    horizon 10    a(0)   b(5)   a(10)        c(11)   a(11)
    newest        0      5      5            11      11
                                duplicate            new: 0 < 11 - 10

Only accepted events move the clock, so a duplicate, whatever its time, makes nothing be forgotten.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import engine.state.dedupe
from engine.events import Batch
from engine.state.dedupe import PartitionDedupe, write_changes
from engine.state.keys import DEDUPE, partition_prefix, segment_key
from engine.state.store import Store
from features.arena import NEVER
from features.dedupe import FIRST, NEXT, _home, accept, rebuild
from tests.memory_store import MemoryStore
from tests.oracle.dedupe import Remembered

PLACES = 8
TABLE_MASK = 2 * PLACES - 1


def _keys_at(home: int, count: int) -> list[int]:
    """Keys whose search begins at the same entry of the small table."""
    found: list[int] = []
    key = 1
    while len(found) < count:
        if _home(np.uint64(key), TABLE_MASK) == home:
            found.append(key)
        key += 1
    return found


# Chains that run into each other and over the table's end: deleting from them must move the right ones back.
CROWDED = [key for home in (0, 1, 2, TABLE_MASK - 1, TABLE_MASK) for key in _keys_at(home, 4)]


class Kernel:
    """The arrays of one partition, small enough for every entry to collide with another."""

    def __init__(self, entries_max: int, horizon_ms: int, late_after_ms: int) -> None:
        self.hashes = np.zeros(PLACES, np.uint64)
        self.clocks_ms = np.zeros(PLACES, np.int64)
        self.table = np.zeros(2 * PLACES, np.int32)
        self.counters = np.array([0, 0, NEVER], np.int64)
        self._rules = (entries_max, horizon_ms, late_after_ms)

    def accept(self, ids: list[int], times_ms: list[int]) -> tuple[list[bool], list[bool]]:
        accepted, late = np.zeros(len(ids), np.bool_), np.zeros(len(ids), np.bool_)
        accept(
            np.arange(len(ids)), np.array(ids, np.uint64), np.array(times_ms, np.int64),
            self.hashes, self.clocks_ms, self.table, self.counters, *self._rules, accepted, late,
        )  # fmt: skip
        return accepted.tolist(), late.tolist()

    def live(self) -> list[int]:
        """The ids that are remembered, by the FIFO."""
        entries = range(int(self.counters[FIRST]), int(self.counters[NEXT]))
        return [int(self.hashes[entry % PLACES]) for entry in entries]

    def found(self) -> list[int]:
        """The ids that are remembered, by the lookup table."""
        return [int(self.hashes[place - 1]) for place in self.table.tolist() if place]


@given(
    st.lists(st.tuples(st.sampled_from(CROWDED), st.integers(0, 60)), max_size=80),
    st.integers(1, PLACES),
    st.integers(0, 30),
    st.integers(0, 30),
)
def test_the_kernel_remembers_what_a_list_would(drawn, entries_max, horizon_ms, late_after_ms) -> None:
    kernel = Kernel(entries_max, horizon_ms, late_after_ms)
    oracle = Remembered(entries_max, horizon_ms, late_after_ms)
    for event_id, time_ms in drawn:
        (accepted,), (late,) = kernel.accept([event_id], [time_ms])
        assert (accepted, late) == oracle.accept(event_id, time_ms)
        assert kernel.live() == [known for known, _ in oracle.entries]
        assert sorted(kernel.found()) == sorted(kernel.live())


@given(st.lists(st.sampled_from(CROWDED), unique=True, max_size=PLACES), st.integers(0, 1000))
def test_a_rebuilt_table_finds_every_entry(ids, first) -> None:
    kernel = Kernel(PLACES, 0, 0)
    kernel.counters[FIRST], kernel.counters[NEXT] = first, first + len(ids)
    for at, event_id in enumerate(ids):
        kernel.hashes[(first + at) % PLACES] = event_id
    rebuild(kernel.hashes, kernel.table, kernel.counters)
    assert sorted(kernel.found()) == sorted(ids)
    assert kernel.accept(ids, [0] * len(ids))[0] == [False] * len(ids)


# --- the horizon -----------------------------------------------------------------------------------------------


def test_an_id_is_forgotten_by_the_partitions_clock_and_only_past_the_horizon() -> None:
    kernel = Kernel(PLACES, horizon_ms=10, late_after_ms=1000)
    assert kernel.accept([1, 2], [100, 110])[0] == [True, True]
    assert kernel.accept([1], [110])[0] == [False]  # exactly as old as the horizon
    assert kernel.accept([1], [9999])[0] == [False]  # a duplicate does not move the clock
    assert kernel.accept([3], [111])[0] == [True]
    assert kernel.accept([1, 2], [111, 111])[0] == [True, False]


def test_a_late_event_is_remembered_from_when_it_came() -> None:
    kernel = Kernel(PLACES, horizon_ms=10, late_after_ms=1000)
    assert kernel.accept([1, 2], [100, 50])[0] == [True, True]
    assert kernel.accept([2], [50])[0] == [False]
    assert kernel.live() == [1, 2]


def test_an_id_that_returns_after_it_was_forgotten_is_new_and_then_known() -> None:
    kernel = Kernel(entries_max=1, horizon_ms=1000, late_after_ms=1000)
    a_b_a = [7, 8, 7]
    assert kernel.accept(a_b_a, [0, 0, 0])[0] == [True, True, True]
    assert kernel.accept([7, 8], [0, 0])[0] == [False, True]


def test_within_one_batch_the_second_of_two_is_the_duplicate() -> None:
    kernel = Kernel(PLACES, 1000, 1000)
    assert kernel.accept([7, 8, 7, 7], [5, 6, 4, 9])[0] == [True, True, False, False]
    assert kernel.counters.tolist() == [0, 2, 6]


# --- late ------------------------------------------------------------------------------------------------------


def test_late_is_more_than_late_after_behind_the_newest_accepted() -> None:
    kernel = Kernel(PLACES, 1000, late_after_ms=10)
    accepted, late = kernel.accept([1, 2, 3, 1, 4], [100, 90, 89, 50, 101])
    assert accepted == [True, True, True, False, True]
    assert late == [False, False, True, False, False]  # a duplicate is not even late


def test_the_first_event_of_a_partition_is_never_late() -> None:
    assert Kernel(PLACES, 1000, 0).accept([1], [0]) == ([True], [False])


# --- growth, segments, reload ----------------------------------------------------------------------------------


def _batch(ids: list[int], times_ms: list[int], partitions: list[int]) -> Batch:
    count = len(ids)
    return Batch(
        topic="in",
        event_ids=[str(event_id) for event_id in ids],
        event_id_hashes=np.array(ids, np.uint64),
        times_ms=np.array(times_ms, np.int64),
        amounts_minor=np.zeros(count, np.int64),
        currency="EUR",
        keys={},
        words=np.zeros((count, 0), np.uint64),
        flags=np.zeros(count, np.int64),
        partition_keys=[None] * count,
        partitions=np.array(partitions, np.int64),
        offsets=np.arange(count),
        record_times_ms=np.full(count, -1, np.int64),
    )


class Partitions:
    """Several partitions of one topic under the same rules."""

    def __init__(self, entries_max: int, horizon_ms: int, late_after_ms: int = 20) -> None:
        self._entries_max = entries_max
        self._rules = (horizon_ms, late_after_ms)
        self.open: dict[int, PartitionDedupe] = {}

    def accept(self, ids: list[int], times_ms: list[int], partitions: list[int]) -> list[tuple[bool, bool]]:
        batch = _batch(ids, times_ms, partitions)
        accepted, late = np.zeros(len(batch), np.bool_), np.zeros(len(batch), np.bool_)
        for partition in set(partitions):
            dedupe = self.open.setdefault(partition, PartitionDedupe(self._entries_max))
            dedupe.accept(np.flatnonzero(batch.partitions == partition), batch, *self._rules, accepted, late)
        return list(zip(accepted.tolist(), late.tolist(), strict=True))

    def flush(self, store: Store | MemoryStore) -> None:
        file = store.begin_flush()
        write_changes(self.open, file)
        file.finish()

    def reloaded(self, store: Store | MemoryStore) -> "Partitions":
        """What a new process would have."""
        again = Partitions(self._entries_max, *self._rules)
        for partition, dedupe in self.open.items():
            again.open[partition] = PartitionDedupe(self._entries_max, dedupe.counters.tolist())
            again.open[partition].load(partition, store)
        return again


@pytest.fixture
def small_segments() -> Iterator[int]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.state.dedupe, "SEGMENT_ENTRIES", 4)
        yield 4


BATCHES = st.lists(
    st.tuples(
        st.lists(st.tuples(st.sampled_from(CROWDED), st.integers(0, 100), st.integers(0, 2)), max_size=12),
        st.sampled_from(["go on", "flush", "restart"]),
    ),
    max_size=12,
)


@given(BATCHES, st.integers(1, 20), st.integers(0, 60))
def test_partitions_equal_their_lists_through_growth_flush_and_restart(drawn, entries_max, horizon_ms) -> None:
    store = MemoryStore()
    partitions = Partitions(entries_max, horizon_ms)
    oracles = {partition: Remembered(entries_max, horizon_ms, 20) for partition in range(3)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.state.dedupe, "SEGMENT_ENTRIES", 4)
        for events, then in drawn:
            ids, times_ms, at = ([list(column) for column in zip(*events, strict=True)]) if events else ([], [], [])
            expected = [oracles[p].accept(i, t) for i, t, p in zip(ids, times_ms, at, strict=True)]
            assert partitions.accept(ids, times_ms, at) == expected
            if then != "go on":
                partitions.flush(store)
            if then == "restart":
                partitions = partitions.reloaded(store)


@given(BATCHES, st.integers(1, 20), st.integers(0, 60))
def test_disk_holds_the_live_segments_and_no_others(drawn, entries_max, horizon_ms) -> None:
    store = MemoryStore()
    partitions = Partitions(entries_max, horizon_ms)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.state.dedupe, "SEGMENT_ENTRIES", 4)
        for events, then in drawn:
            for event_id, time_ms, partition in events:
                partitions.accept([event_id], [time_ms], [partition])
            if then == "flush":
                partitions.flush(store)
        partitions.flush(store)
    kept = set(store.rows)
    for partition, dedupe in partitions.open.items():
        first, following = int(dedupe.counters[FIRST]), int(dedupe.counters[NEXT])
        live = {segment_key(partition, segment) for segment in range(first // 4, -(-following // 4))}
        written = {key for key in kept if key.startswith(partition_prefix(partition))}
        assert written - live == set()
        # A segment whose entries were all forgotten again before a flush need not be there.
        assert {segment_key(partition, entry // 4) for entry in range(first, following)} <= written


def test_partitions_know_nothing_of_each_other() -> None:
    partitions = Partitions(entries_max=100, horizon_ms=1000)
    both = partitions.accept([1, 1, 1], [500, 0, 500], [0, 1, 0])
    assert both == [(True, False), (True, False), (False, False)]


def test_a_flush_writes_only_what_has_changed(small_segments: int) -> None:
    store = MemoryStore()
    partitions = Partitions(entries_max=100, horizon_ms=1000)
    partitions.accept(list(range(1, 8)), [0] * 7, [0] * 7)
    partitions.flush(store)
    assert sorted(store.rows) == [segment_key(0, 0), segment_key(0, 1)]
    store.rows.clear()
    partitions.flush(store)
    assert store.rows == {}
    partitions.accept([8, 9], [0, 0], [0, 0])
    partitions.flush(store)
    assert sorted(store.rows) == [segment_key(0, 1), segment_key(0, 2)]


def test_thousands_of_events_grow_the_arrays_through_a_real_database(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    entries_max, horizon_ms, late_after_ms = 8_000, 60_000, 300
    partitions = Partitions(entries_max, horizon_ms, late_after_ms)
    # The same rules by a dictionary: the oracle's list would take a minute.
    known: dict[tuple[int, int], int] = {}
    newest, live = {0: None, 1: None}, {0: [], 1: []}
    clock = 0
    with Store(tmp_path, 1 << 20) as store:
        for batch in range(15):
            count = 3_000
            ids = rng.integers(1, 40_000, count, dtype=np.uint64)
            times = clock + rng.integers(0, 6_000, count)
            at = rng.integers(0, 2, count)
            clock += 5_000
            found = partitions.accept(ids.tolist(), times.tolist(), at.tolist())
            expected = []
            for event_id, time_ms, partition in zip(ids.tolist(), times.tolist(), at.tolist(), strict=True):
                queue = live[partition]
                while queue and queue[0][1] < newest[partition] - horizon_ms:
                    del known[partition, queue.pop(0)[0]]
                if (partition, event_id) in known:
                    expected.append((False, False))
                    continue
                last = newest[partition]
                expected.append((True, last is not None and time_ms < last - late_after_ms))
                newest[partition] = time_ms if last is None else max(last, time_ms)
                if len(queue) == entries_max:
                    del known[partition, queue.pop(0)[0]]
                queue.append((event_id, newest[partition]))
                known[partition, event_id] = newest[partition]
            assert found == expected
            assert {len(dedupe.hashes) for dedupe in partitions.open.values()} <= {4_096, 8_192}
            partitions.flush(store)
            if batch % 2:
                partitions = partitions.reloaded(store)
        assert any(not accepted for accepted, _ in found)
        assert len(list(store.scan(DEDUPE))) >= 2
        assert {len(queue) for queue in live.values()} == {entries_max}
