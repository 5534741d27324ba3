"""A ring by itself on a heap, against lists: words and tags, running totals, extremes, where windows begin."""

from itertools import accumulate

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from features.arena import CAPACITY, HEAD, LENGTH, LINE_WORDS, SLOT_WORDS, aligned_words
from features.extremes import KEPT, UNKNOWN, kept_words
from features.ring import (
    HIGH,
    LOW,
    ROW_WORDS,
    TIME_MS,
    Seen,
    amount_of,
    bits_at,
    copy_ring,
    drop_oldest,
    extremes_at,
    find_word,
    open_block,
    put,
    put_word,
    ring_words,
    row_at,
    squares_until,
    tag_of,
    total_until,
    word_of,
)
from features.windows import OUTSIDE, find_edges

CAPACITIES = st.sampled_from([2, 4, 8, 32, 64, 256])
# Alike in upper bytes or tag: those of 1 << 16, 1 << 32 and 1 << 48 are that of 1.
WORDS = st.sampled_from([0, 1, -1, 1 << 16, 1 << 32, (1 << 32) + 1, 1 << 48, -(1 << 63), (1 << 63) - 1, 5, -5])


def test_small_numbers_have_tags_of_their_own() -> None:
    """Whose lower bits are all zero."""
    words = np.arange(1.0, 1_000.0).view(np.int64).tolist()
    assert len({int(tag_of(word)) for word in words}) > 900


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
    # A column follows a header, at which a search looks where there are few places.
    at = LINE_WORDS
    heap = np.full(at + capacity + 1, data.draw(st.sampled_from([0, -1])), np.int64)
    words = [several[k] for k in rng.integers(0, len(several), capacity)]
    for place, word in enumerate(words):
        put_word(heap, at, capacity, place, word)
    head, last = data.draw(st.integers(0, capacity - 1)), data.draw(st.integers(-1, capacity - 1))
    for key in {*several, 9}:
        places = [place for place in range(last + 1) if words[(head + place) % capacity] == key]
        assert find_word(heap, at, capacity, head, last, key) == max(places, default=-1)


class Ring:
    """One entity with one column, into which events go in order of time."""

    def __init__(self, capacity: int) -> None:
        self.slots = np.zeros((1, SLOT_WORDS), np.int64)
        self.heap = aligned_words(ring_words(capacity, 1, 0))
        self.heap[:] = -77
        self.events: list[tuple[int, int]] = []
        open_block(self.slots, 0, self.heap, 0, 1, 0, 0)
        self.slots[0, CAPACITY] = capacity
        self.heap[bits_at(0, capacity, 1, 0) :] = 0
        seen = Seen(capacity)
        self._seen = seen.keys, seen.stamps, seen.stamp

    def append(self, time_ms: int, amount: int) -> None:
        self.insert(len(self.events), time_ms, amount)

    def insert(self, place: int, time_ms: int, amount: int) -> None:
        if len(self.events) == self.slots[0, CAPACITY]:
            drop_oldest(self.slots, 0, self.heap, 1, 0)
            self.events.pop(0)
            place -= 1
        previous = np.full(1, -1, np.int64)
        words = np.zeros(1, np.int64)
        put(self.slots, 0, self.heap, place, time_ms, amount, words, 0, 1, 0, 0b111, previous, *self._seen)
        self.events.insert(place, (time_ms, amount))

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


def _kept(ring: Ring, number: int) -> tuple[list[int], list[int]]:
    """What is kept of the amounts of marks, newest first, and what could be."""
    amounts: list[int] = []
    for _, amount in reversed(ring.events):
        if not amounts or (amount > amounts[-1] if number == HIGH else amount < amounts[-1]):
            amounts.append(amount)
    heap, _, capacity, _ = ring.at
    at = int(extremes_at(0, capacity, 1, number))
    return heap[at : at + int(kept_words(capacity))].tolist(), amounts


@given(
    st.sampled_from([32, 64, 128]),
    st.lists(st.tuples(st.integers(0, 9), st.sampled_from([0, 1, 2, 3, 5, 8, 13, 21]), st.integers(1, 40)), max_size=9),
)
def test_extremes_that_are_kept_are_those_of_the_newest_marks(capacity: int, runs: list[tuple[int, int, int]]) -> None:
    """Amounts go up and down in runs, some of whose events are late; what is not known is never taken for known."""
    ring, time_ms = Ring(capacity), 0
    for late, amount, count in runs:
        for step in range(count):
            time_ms += 10
            ring.append(time_ms, amount + (step if amount % 2 else -step))
        if late == 0:
            place = len(ring.events) // 2
            ring.insert(place, ring.events[place][0], amount)
        for number in (HIGH, LOW):
            kept, amounts = _kept(ring, number)
            assert all(held in (UNKNOWN, amount) for held, amount in zip(kept, amounts, strict=False))
            assert not kept or kept[0] == amounts[0]
            if late == 0:
                assert kept[: len(amounts)] == amounts[: len(kept)]


@given(st.sampled_from([32, 64]), st.booleans())
def test_a_ring_that_grows_keeps_everything(capacity: int, falling: bool) -> None:
    """Also what is kept of extremes; where nothing was kept before, nothing is known."""
    ring = Ring(capacity)
    for number in range(capacity):
        ring.append(number, -number if falling else number)
    before, number, to = [_kept(ring, number)[0] for number in (HIGH, LOW)], len(ring.events), len(ring.heap)
    heap = aligned_words(to + int(ring_words(2 * capacity, 1, 0)))
    heap[:] = -77
    heap[:to] = ring.heap
    copy_ring(ring.slots, 0, heap, to, 2 * capacity, 1, 0)
    places = range(number)
    times_ms = [int(heap[row_at(to, 2 * capacity, 0, place) + TIME_MS]) for place in places]
    amounts = [int(amount_of(heap, to, 2 * capacity, 0, place)) for place in places]
    assert list(zip(times_ms, amounts, strict=True)) == ring.events
    for of, kept in zip((HIGH, LOW), before, strict=True):
        at = int(extremes_at(to, 2 * capacity, 1, of))
        assert heap[at : at + KEPT].tolist() == (kept or [UNKNOWN] * KEPT)
