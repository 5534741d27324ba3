"""Tables and cells of values last seen, against a dictionary of when each value was."""

import math
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.arena import NEVER
from features.block import _move_table
from features.tiles import TILE_CAPACITY, TILE_COUNT, TILE_HEADER_WORDS
from features.values import (
    CELL_AGE_MAX,
    CELL_SHIFT_MIN,
    CELL_SWEEP_SHIFT,
    CELLS,
    TABLE_WORDS_MAX,
    TABLE_WORDS_MIN,
    UNIT_SHIFT,
    _mark,
    cell_shift,
    distinct_since,
    is_full,
    last_seen_ms,
    see_value,
    shift_for,
    sweep,
    table_at,
    table_capacity,
    table_entries,
    table_word,
    words_for,
)
from features.words import number_words
from tests.oracle.events import signed, text_hash

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000
NOW = 1_735_689_600_000
PREDICATES = 1
# Two tables stand beside each other; what happens to one must not touch the other.
TABLES, OTHER, TABLE = 2, 0, 1
PART_WORDS = TILE_HEADER_WORDS + TABLES + TABLES * TABLE_WORDS_MAX
# As many values as a table has room for: a seventh of it is left free.
TABLE_VALUES_MAX = TABLE_WORDS_MAX * 7 // 8
# Cells of 2^17 ms, the narrowest: ages up to 2^15 of them are told apart, whatever is 2^16 apart looks the same.
CELL_MS = 1 << CELL_SHIFT_MIN
TTL_MS = 45 * DAY

Seen = tuple[int, int]  # time in ms, word


@dataclass
class Values:
    """The tables of one entity, twice on a heap, so that one can be moved to where the other is."""

    ttl_ms: int = TTL_MS
    newest_ms: int = NEVER
    part: int = 0
    heap: np.ndarray = field(default_factory=lambda: np.full(2 * PART_WORDS, -77, np.int64))

    def __post_init__(self) -> None:
        self.heap[self.part + TILE_COUNT] = self.heap[self.part + TILE_CAPACITY] = 0
        for table in range(TABLES):
            self._clear(table, TABLE_WORDS_MIN, 0)

    def _clear(self, table: int, words: int, shift: int) -> None:
        self.heap[self.part + TILE_HEADER_WORDS + table] = table_word(words, 0, shift)
        at = table_at(self.heap, self.part, table, PREDICATES, TABLES)
        self.heap[at : at + words] = 0

    def with_cells(self) -> "Values":
        """The same with cells from the beginning on."""
        self._clear(TABLE, TABLE_WORDS_MAX, shift_for(self.ttl_ms))
        return self

    def see(self, *events: Seen, table: int = TABLE) -> "Values":
        """Each event in turn, as features.block inserts one for which a full ring drops another."""
        for time_ms, word in events:
            before_ms, self.newest_ms = self.newest_ms, max(self.newest_ms, time_ms)
            if is_full(self.heap, self.part, table):
                self.move()
            sweep(self.heap, self.part, PREDICATES, TABLES, before_ms, self.newest_ms)
            args = (signed(word), time_ms, self.newest_ms, PREDICATES, TABLES)
            see_value(self.heap, self.part, table, *args)
        return self

    def move(self) -> None:
        old, self.part = self.part, PART_WORDS - self.part
        self.heap[self.part + TILE_COUNT] = self.heap[self.part + TILE_CAPACITY] = 0
        entries = np.zeros(TABLE_WORDS_MAX, np.int64)
        for table in range(TABLES):
            _move_table(self.heap, old, self.part, table, self.newest_ms, self.ttl_ms, PREDICATES, TABLES, entries)

    @property
    def oldest_ms(self) -> int:
        return self.newest_ms - self.ttl_ms

    def distinct(self, edge_ms: int, table: int = TABLE) -> float:
        args = (table, edge_ms, self.newest_ms, self.oldest_ms, PREDICATES, TABLES)
        return distinct_since(self.heap, self.part, *args)

    def last(self, word: int, table: int = TABLE) -> int:
        args = (table, signed(word), self.newest_ms, self.oldest_ms, PREDICATES, TABLES)
        return last_seen_ms(self.heap, self.part, *args)

    def shift(self) -> int:
        return cell_shift(self.heap, self.part, TABLE)

    def cells(self) -> list[int]:
        at = table_at(self.heap, self.part, TABLE, PREDICATES, TABLES)
        return self.heap[at : at + TABLE_WORDS_MAX].tolist()


def words_of(numbers) -> list[int]:
    """Words of texts."""
    return [text_hash("merchant", str(number)) for number in numbers]


def last_times(events: list[Seen]) -> dict[int, int]:
    """When each word was last."""
    times: dict[int, int] = {}
    for time_ms, word in events:
        times[word] = max(times.get(word, NEVER), time_ms)
    return times


# --- tables ----------------------------------------------------------------------------------------------------

TTLS_MS = st.sampled_from([11 * SECOND, HOUR, 8 * DAY, TTL_MS, 400 * DAY])


@st.composite
def _streams(draw: st.DrawFn) -> tuple[int, list[Seen]]:
    ttl_ms = draw(TTLS_MS)
    ago_ms = st.one_of(st.integers(0, 3 * ttl_ms), st.integers(0, 5 * SECOND), st.integers(ttl_ms - 3_000, ttl_ms))
    words = st.integers(0, 30).map(lambda number: words_of([number])[0])
    return ttl_ms, draw(st.lists(st.tuples(ago_ms.map(lambda ago: NOW - ago), words), min_size=1, max_size=80))


@given(_streams(), st.lists(st.floats(0, 1.2), max_size=5))
def test_a_table_is_a_dictionary_of_units(stream, shares: list[float]) -> None:
    """Exact in units of 1,024 ms: an edge leaves out whatever lies in its own unit."""
    ttl_ms, events = stream
    values, times = Values(ttl_ms).see(*events), last_times(events)
    newest_ms = max(times.values())
    assert values.newest_ms == newest_ms
    assert values.shift() == 0
    oldest = newest_ms - ttl_ms >> UNIT_SHIFT
    for edge_ms in (newest_ms, newest_ms - ttl_ms, *(newest_ms - int(share * ttl_ms) for share in shares)):
        edge = max(edge_ms >> UNIT_SHIFT, oldest)
        assert values.distinct(edge_ms) == sum(time_ms >> UNIT_SHIFT > edge for time_ms in times.values())
    for word, time_ms in times.items():
        expected = (time_ms >> UNIT_SHIFT) + 1 << UNIT_SHIFT if time_ms >> UNIT_SHIFT > oldest else NEVER
        assert values.last(word) == expected
    assert values.last(words_of([999])[0]) == NEVER


@given(_streams(), st.randoms(use_true_random=False))
def test_what_a_table_says_does_not_depend_on_the_order(stream, random) -> None:
    ttl_ms, events = stream
    shuffled = random.sample(events, len(events))
    one, other = Values(ttl_ms).see(*events), Values(ttl_ms).see(*shuffled)
    for ago_ms in (0, ttl_ms // 3, ttl_ms // 2, ttl_ms):
        assert one.distinct(one.newest_ms - ago_ms) == other.distinct(one.newest_ms - ago_ms)
    assert [one.last(word) for _, word in events] == [other.last(word) for _, word in events]


@pytest.mark.parametrize("count", [1, 13, 14, 15, 100, 559, TABLE_VALUES_MAX])
def test_a_table_grows_with_its_values_and_keeps_a_part_free(count: int) -> None:
    values = Values().see(*((NOW + k, word) for k, word in enumerate(words_of(range(count)))))
    assert values.shift() == 0
    assert table_entries(values.heap, values.part, TABLE) == values.distinct(NOW - DAY) == count
    words = table_capacity(values.heap, values.part, TABLE)
    assert count <= words * 7 // 8
    assert words <= max(TABLE_WORDS_MIN, 2 * count)


def test_room_is_made_for_one_value_more() -> None:
    for entries in range(TABLE_VALUES_MAX):
        words = words_for(entries)
        assert (entries + 1) * 8 <= words * 7
        assert TABLE_WORDS_MIN <= words <= TABLE_WORDS_MAX
    assert words_for(TABLE_VALUES_MAX) == words_for(10**6) == TABLE_WORDS_MAX


def test_values_past_the_ttl_are_left_behind_and_the_table_shrinks() -> None:
    """A full table of which only the newest ten are still within the TTL when the next value comes."""
    old, new = words_of(range(TABLE_VALUES_MAX - 10)), words_of(range(1_000, 1_010))
    values = Values(HOUR).see(*((NOW, word) for word in old), *((NOW + 2 * HOUR, word) for word in new))
    assert is_full(values.heap, values.part, TABLE)
    values.see((NOW + 2 * HOUR, new[0]))
    assert values.shift() == 0
    assert table_capacity(values.heap, values.part, TABLE) == TABLE_WORDS_MIN
    assert values.distinct(NOW) == 10


def test_an_edge_before_1970_finds_no_more_than_there_is() -> None:
    """An empty entry has the time 0, which is after any such edge."""
    values = Values().see(*((HOUR + k, word) for k, word in enumerate(words_of(range(3)))))
    assert values.oldest_ms < 0
    assert values.distinct(-DAY) == 3
    assert values.last(words_of([3])[0]) == NEVER


def test_a_word_that_gives_nothing_but_zeros_counts_too() -> None:
    """0 is never a value's word, but it is what an empty entry looks like."""
    values = Values().see((NOW, 1), (NOW, 2**64 - 1), (NOW, 1 << 63))
    assert values.distinct(NOW - DAY) == 3


# --- from a table to cells -------------------------------------------------------------------------------------


@pytest.mark.parametrize("ttl_ms", [11 * SECOND, HOUR, TTL_MS, 50 * DAY, 97 * DAY, 400 * DAY, 4_000 * DAY])
def test_the_unit_of_cells_is_the_narrowest_that_the_ttl_fits_into(ttl_ms: int) -> None:
    shift = shift_for(ttl_ms)
    assert ttl_ms >> shift < CELL_AGE_MAX
    assert shift == CELL_SHIFT_MIN or ttl_ms >> (shift - 1) >= CELL_AGE_MAX


def test_a_full_table_becomes_cells_that_know_the_same_values() -> None:
    rng = np.random.default_rng(3)
    words = words_of(range(TABLE_VALUES_MAX))
    events = [
        (NOW - int(ago_ms), word) for ago_ms, word in zip(rng.integers(0, TTL_MS, len(words)), words, strict=True)
    ]
    values = Values().see(*sorted(events))
    counts = [values.distinct(NOW - ago_ms) for ago_ms in range(0, TTL_MS, DAY)]
    lasts = [values.last(word) for word in words]
    values.see((events[-1][0], words[-1]))
    assert values.shift() == shift_for(TTL_MS)
    cells = [values.distinct(NOW - ago_ms) for ago_ms in range(0, TTL_MS, DAY)]
    assert cells == pytest.approx(counts, rel=0.05, abs=10)
    # A cell has the newest of its values' times, rounded up to its unit.
    for before_ms, after_ms in zip(lasts, (values.last(word) for word in words), strict=True):
        assert after_ms >= before_ms
    later = sum(values.last(word) - before_ms > CELL_MS for word, before_ms in zip(words, lasts, strict=True))
    assert later < 0.15 * len(words)


def test_a_table_beside_it_stays_as_it_is_when_another_becomes_cells() -> None:
    values = Values()
    values.see(*((NOW, word) for word in words_of(range(30))), table=OTHER)
    values.see(*((NOW, word) for word in words_of(range(100, 101 + TABLE_VALUES_MAX))))
    assert values.shift() > 0
    assert values.distinct(NOW - DAY, OTHER) == 30
    assert [values.last(word, OTHER) > NOW for word in words_of(range(40))] == [True] * 30 + [False] * 10


# --- cells -----------------------------------------------------------------------------------------------------


def _cell_of(word: int) -> int:
    return int(_mark(signed(word))) * CELLS >> 31


def _unit_of(time_ms: int, shift: int) -> int:
    """The unit of a time as a cell has it: one that would be stored as 0, which means empty, is the one before."""
    unit = time_ms >> shift
    return unit - (unit % 2**16 == 0)


def _about(events: list[Seen], values: Values, edge_ms: int) -> float:
    """What linear counting makes of the cells after an edge, each by the newest unit of its values."""
    shift, units = shift_for(values.ttl_ms), {}
    for time_ms, word in events:
        cell = _cell_of(word)
        units[cell] = max(units.get(cell, NEVER), _unit_of(time_ms, shift))
    edge = edge_ms >> shift
    share = 1 - (edge_ms - (edge << shift)) / (1 << shift)
    after = sum(unit > edge for unit in units.values())
    within = sum(unit == edge for unit in units.values())
    return -CELLS * math.log(1 - min(after + within * share, CELLS - 0.5) / CELLS)


# At the newest times that are the worst: where units are 0 modulo 2^16 or one past it, and at the ends of a sweep.
ROUND = (NOW >> CELL_SHIFT_MIN + 16) + 1 << CELL_SHIFT_MIN + 16
NEWEST_MS = st.one_of(
    st.integers(NOW, NOW + 100 * DAY),
    st.integers(-3, 3).map(lambda unit: ROUND + unit * CELL_MS + 17),
    st.tuples(st.integers(-8, 8), st.integers(-2, 2)).map(lambda at: ROUND + (at[0] << 30) + at[1] * CELL_MS),
)


@st.composite
def _cell_streams(draw: st.DrawFn) -> tuple[int, list[Seen], int]:
    """A TTL, events up to the newest time, and that: ages from now to far more than cells tell apart."""
    ttl_ms = draw(st.sampled_from([HOUR, 30 * DAY, 38 * DAY, TTL_MS, 49 * DAY, (CELL_AGE_MAX << CELL_SHIFT_MIN) - 1]))
    newest_ms = draw(NEWEST_MS)
    units = st.one_of(
        st.integers(0, 3),
        st.integers(0, CELL_AGE_MAX),
        st.integers(0, 5 * CELL_AGE_MAX),
        st.integers(-3, 3).map(lambda k: 2**16 + k),
        st.integers(-3, 3).map(lambda k: CELL_AGE_MAX + k),
    )
    ago_ms = st.builds(lambda unit, more: max(0, unit * CELL_MS - more), units, st.integers(0, CELL_MS))
    words = st.integers(0, 12).map(lambda number: words_of([number])[0])
    events = draw(st.lists(st.tuples(ago_ms.map(lambda ago: newest_ms - ago), words), max_size=25))
    return ttl_ms, [*events, (newest_ms, words_of([13])[0])], newest_ms


@given(_cell_streams(), st.randoms(use_true_random=False), st.lists(st.floats(0, 1), max_size=4))
def test_cells_know_the_newest_unit_of_each_whatever_the_order_and_the_rests(stream, random, shares) -> None:
    """Cells that went through every time in between, and such that met the newest event first."""
    ttl_ms, events, newest_ms = stream
    for order in (sorted(events), events[::-1], random.sample(events, len(events))):
        values = Values(ttl_ms).with_cells().see(*order)
        for edge_ms in (newest_ms - ttl_ms, newest_ms, *(newest_ms - int(share * ttl_ms) for share in shares)):
            assert values.distinct(edge_ms) == pytest.approx(_about(events, values, edge_ms), abs=1e-9)
        for _, word in events:
            newest = max(_unit_of(t, CELL_SHIFT_MIN) for t, w in events if _cell_of(w) == _cell_of(word))
            if newest << CELL_SHIFT_MIN > values.oldest_ms:
                assert values.last(word) == (newest + 1) << CELL_SHIFT_MIN


@given(_cell_streams(), st.randoms(use_true_random=False))
def test_cells_are_the_same_bits_for_any_order(stream, random) -> None:
    ttl_ms, events, _ = stream
    first = Values(ttl_ms).with_cells().see(*sorted(events)).cells()
    for order in (events, events[::-1], random.sample(events, len(events))):
        assert Values(ttl_ms).with_cells().see(*order).cells() == first


@pytest.mark.parametrize("step_ms", [HOUR, 3 * DAY, 30 * DAY, 44 * DAY, 100 * DAY, 101 * DAY, 5_000 * DAY])
def test_a_value_seen_long_ago_is_never_taken_for_a_new_one(step_ms: int) -> None:
    """One value once, then another again and again, for as long as it takes times to come round."""
    values, (old, new) = Values().with_cells(), words_of(range(2))
    values.see((NOW, old))
    for step in range(1, max(3, min(4_000, (400 * DAY) // step_ms))):
        now_ms = NOW + step * step_ms
        values.see((now_ms, new))
        expected = 2.0 if now_ms - NOW < TTL_MS - CELL_MS else 1.0
        if abs(now_ms - NOW - TTL_MS) > CELL_MS:
            assert values.distinct(now_ms - TTL_MS) == pytest.approx(expected, abs=0.01), step
            assert (values.last(old) > now_ms - TTL_MS) == (expected == 2), step


def test_a_value_is_not_young_again_after_a_long_rest() -> None:
    """
    |old .. 62 days of others .. |new          37 days of nothing          |newest
    |<------------------ 2^16 units and 100 more, which look like 100 ---->|
    """
    first_unit = NOW >> CELL_SHIFT_MIN + CELL_SWEEP_SHIFT << CELL_SWEEP_SHIFT
    old, new, newest = words_of(range(3))
    units = [(1, old), (5 * 2**13 - 1, new), (2**16 + 101, newest)]
    values = Values().with_cells().see(*((first_unit + unit << CELL_SHIFT_MIN, word) for unit, word in units))
    assert values.last(old) == NEVER
    assert values.last(new) > values.oldest_ms
    assert values.distinct(values.newest_ms - 20 * DAY) == pytest.approx(1, abs=0.01)
    assert values.distinct(values.newest_ms - 40 * DAY) == pytest.approx(2, abs=0.01)


@pytest.mark.parametrize("count", [650, 1_000, 2_000, 4_000, 8_000])
def test_cells_count_about_as_many_as_there_were(count: int) -> None:
    """Linear counting: by 2 % at 2,000 values and 4 % at 8,000, one standard deviation."""
    rng = np.random.default_rng(count)
    times_ms = np.sort(NOW + rng.integers(0, 30 * DAY, count))
    events = list(zip(times_ms.tolist(), rng.integers(1, 2**63, count).tolist(), strict=True))
    values = Values().see(*events)
    assert values.shift() > 0
    for days in (30, 20, 10, 3):
        edge_ms = values.newest_ms - days * DAY
        truth = int(np.count_nonzero(times_ms > edge_ms))
        assert values.distinct(edge_ms) == pytest.approx(truth, rel=0.1 if truth > 4_000 else 0.05, abs=10), days


@pytest.mark.parametrize("step", [0.01, 0.125, 1.0, 10.0])
def test_cells_count_numbers_as_they_count_texts(step: float) -> None:
    """The words of neighbouring numbers differ in few bits, which must spread over all cells."""
    for count in (1_000, 2_000):
        words = number_words(step * np.arange(1, count + 1)).tolist()
        values = Values().with_cells().see(*((NOW, word) for word in words))
        assert values.distinct(NOW - DAY) == pytest.approx(count, rel=0.05)


def test_cells_that_are_all_taken_still_give_a_number() -> None:
    values = Values().with_cells().see(*((NOW, word) for word in words_of(range(40_000))))
    assert values.distinct(NOW - DAY) == pytest.approx(CELLS * math.log(2 * CELLS))
