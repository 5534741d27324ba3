"""A ring by itself on a heap, against lists: words in halves, running totals, and where windows begin."""

from itertools import accumulate

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from features.arena import CAPACITY, HEAD, LENGTH, SLOT_WORDS, aligned_words
from features.ring import (
    LINE_WORDS,
    ROW_WORDS,
    TIME_MS,
    Seen,
    amount_of,
    column_at,
    drop_oldest,
    find_word,
    open_block,
    put,
    put_word,
    ring_words,
    row_at,
    squares_until,
    total_until,
    word_of,
)
from features.windows import OUTSIDE, find_edges

CAPACITIES = st.sampled_from([2, 4, 8, 32, 64, 256])
# Alike in one half or the other.
WORDS = st.sampled_from([0, 1, -1, 1 << 32, (1 << 32) + 1, -(1 << 63), (1 << 63) - 1, 5, -5])


@given(CAPACITIES, st.data())
def test_a_column_holds_what_was_put_into_it(capacity: int, data: st.DataObject) -> None:
    heap = np.full(capacity + 2, -77, np.int64)
    words = [0] * capacity
    for place in range(capacity):
        put_word(heap, 1, capacity, place, 0)
    for place, word in data.draw(st.lists(st.tuples(st.integers(0, capacity - 1), WORDS), max_size=30)):
        words[place] = word
        put_word(heap, 1, capacity, place, word)
    assert [word_of(heap, 1, capacity, place) for place in range(capacity)] == words
    assert heap[0] == heap[-1] == -77


@given(CAPACITIES, st.data())
def test_the_newest_place_of_a_word_is_found(capacity: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 30)))
    several = data.draw(st.lists(WORDS, min_size=1, max_size=9))
    heap = np.zeros(capacity + 1, np.int64)
    words = [several[k] for k in rng.integers(0, len(several), capacity)]
    for place, word in enumerate(words):
        put_word(heap, 1, capacity, place, word)
    head, last = data.draw(st.integers(0, capacity - 1)), data.draw(st.integers(-1, capacity - 1))
    for key in {*several, 9}:
        places = [place for place in range(last + 1) if words[(head + place) % capacity] == key]
        assert find_word(heap, 1, capacity, head, last, key) == max(places, default=-1)


class Ring:
    """One entity with one column, into which events go in order of time."""

    def __init__(self, capacity: int) -> None:
        self.slots = np.zeros((1, SLOT_WORDS), np.int64)
        self.heap = aligned_words(ring_words(capacity, 1, 0))
        self.heap[:] = -77
        self.events: list[tuple[int, int]] = []
        open_block(self.slots, 0, self.heap, 0, 1, 0, 0)
        self.slots[0, CAPACITY] = capacity
        bits = column_at(0, capacity, 1)
        self.heap[bits:] = 0
        seen = Seen(capacity)
        self._seen = seen.keys, seen.stamps, seen.stamp

    def append(self, time_ms: int, amount: int) -> None:
        if len(self.events) == self.slots[0, CAPACITY]:
            drop_oldest(self.slots, 0, self.heap, 1, 0)
            self.events.pop(0)
        previous = np.full(1, -1, np.int64)
        words = np.zeros(1, np.int64)
        put(self.slots, 0, self.heap, len(self.events), time_ms, amount, words, 0, 1, 0, 0b111, previous, *self._seen)
        self.events.append((time_ms, amount))

    @property
    def at(self) -> tuple[np.ndarray, int, int, int]:
        return self.heap, 0, int(self.slots[0, CAPACITY]), int(self.slots[0, HEAD])


@st.composite
def _rings(draw: st.DrawFn) -> Ring:
    ring, time_ms = Ring(draw(st.sampled_from([2, 4, 8, 32]))), 0
    for gap_ms, amount in draw(
        st.lists(st.tuples(st.sampled_from([0, 1, 1, 5, 60]), st.integers(-(10**13), 10**13)), max_size=80)
    ):
        time_ms += gap_ms
        ring.append(time_ms, amount)
    return ring


@given(_rings())
def test_running_totals_are_those_of_the_events(ring: Ring) -> None:
    places = range(len(ring.events))
    amounts = [amount for _, amount in ring.events]
    assert int(ring.slots[0, LENGTH]) == len(amounts)
    assert [int(amount_of(*ring.at, place)) for place in places] == amounts
    base, squares = int(total_until(*ring.at, -1)), int(squares_until(*ring.at, -1))
    for place, total in enumerate(accumulate(amounts)):
        assert (int(total_until(*ring.at, place)) - base - total) % 2**64 == 0
    for place, total in enumerate(accumulate(amount * amount for amount in amounts)):
        assert (int(squares_until(*ring.at, place)) - squares - total) % 2**64 == 0


@given(_rings(), st.integers(0, 100), st.lists(st.integers(0, 400), min_size=1, max_size=6), st.data())
def test_windows_begin_where_they_should_whatever_is_remembered(
    ring: Ring, ago_ms: int, windows_ms: list[int], data: st.DataObject
) -> None:
    """Also for an event that is late, and for what was remembered of another entity, or of nothing at all."""
    windows = len(windows_ms)
    time_ms = max((time_ms for time_ms, _ in ring.events), default=0) - ago_ms
    last = sum(then_ms <= time_ms for then_ms, _ in ring.events) - 1
    edges = np.array(data.draw(st.lists(st.integers(0, 65_535), min_size=windows, max_size=windows)), np.uint16)
    ints = np.zeros((1, windows), np.int64)
    for _ in range(2):
        find_edges(*ring.at, last, time_ms, np.array(sorted(windows_ms)), windows, edges, ints)
        expected = [sum(x <= time_ms - w for x, _ in ring.events[: last + 1]) - 1 for w in sorted(windows_ms)]
        assert ints[OUTSIDE].tolist() == expected


@given(CAPACITIES, st.integers(0, 5), st.integers(0, 5))
def test_blocks_take_whole_lines_and_rows_never_straddle_one(capacity: int, columns: int, predicates: int) -> None:
    assert ring_words(capacity, columns, predicates) % LINE_WORDS == 0
    for line in range(0, capacity, LINE_WORDS // ROW_WORDS):
        assert row_at(0, capacity, 0, line) % LINE_WORDS == TIME_MS == 0
    assert aligned_words(100).ctypes.data % 64 == 0
