"""Tiles against a dictionary of the same events: what they hold depends on the events and the newest time alone.

newest - ttl                                                                    newest
    |  level 3      |   level 2   |   level 2   |  1   |  1   |  1   | 0 | 0 | 0 | 0 |
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.arena import NEVER
from features.tiles import (
    ACCUMULATOR_WORDS,
    ACCUMULATORS,
    COUNT,
    LADDER,
    LEAST,
    LEVEL_MASK,
    LEVEL_MAX,
    MOST,
    NEXT_CHANGE_MS,
    PART_MAX,
    SQUARES_HIGH,
    SQUARES_LOW,
    START,
    SUM,
    TILE_CAPACITY,
    TILE_COUNT,
    TILES_STEP,
    WIDTH_SHIFT,
    add_event,
    end_of,
    first_of,
    fold,
    last_of,
    part_count,
    quarter_sum,
    start_of,
    tile_at,
    tile_of,
    tile_words,
    tiles_max,
)
from features.windows import _after

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000
NOW = 1_735_689_600_000
PARTS, QUARTERS = 32, 4
PREDICATES, TABLES = 2, 1
AMOUNT_MAX = 10**13
# Where the tile header begins on the heap.
PART = 5


class Dropped(NamedTuple):
    """An event that a ring dropped; bit i of `flags` says whether predicate i holds."""

    time_ms: int
    amount: int
    flags: int = 0


class Sums(NamedTuple):
    """One accumulator of a tile; least and most are 0 of nothing."""

    count: int
    total: int
    squares: int
    least: int
    most: int


class Tile(NamedTuple):
    """A tile in Python's own numbers."""

    start_ms: int
    end_ms: int
    first_ms: int
    last_ms: int
    parts: tuple[int, ...]
    quarters: tuple[int, ...]
    sums: tuple[Sums, ...]


# --- the slow model --------------------------------------------------------------------------------------------


def _change_ms(time_ms: int, level: int, ttl_ms: int) -> int | None:
    """When the tile of this level becomes part of a wider one; None for never."""
    width_ms = 1 << (WIDTH_SHIFT + level)
    if level == LEVEL_MAX or (LADDER + 2) * width_ms > ttl_ms:
        return None
    return (time_ms // (2 * width_ms) + 1) * 2 * width_ms + LADDER * width_ms


def _level_of(time_ms: int, newest_ms: int, ttl_ms: int) -> int:
    level = 0
    while (change_ms := _change_ms(time_ms, level, ttl_ms)) is not None and change_ms <= newest_ms:
        level += 1
    return level


def _sums_of(events: list[Dropped]) -> Sums:
    amounts = [event.amount for event in events]
    squares = sum(amount * amount for amount in amounts)
    return Sums(len(amounts), sum(amounts), squares, min(amounts, default=0), max(amounts, default=0))


def expected_tiles(events: list[Dropped], newest_ms: int, ttl_ms: int) -> list[Tile]:
    """The tiles of these events, made at once."""
    groups: dict[tuple[int, int], list[Dropped]] = {}
    for event in events:
        shift = WIDTH_SHIFT + _level_of(event.time_ms, newest_ms, ttl_ms)
        groups.setdefault((event.time_ms >> shift << shift, shift), []).append(event)
    tiles = []
    for (start_ms, shift), inside in sorted(groups.items()):
        end_ms = start_ms + (1 << shift)
        if end_ms <= newest_ms - ttl_ms:
            continue
        counts = [sum((x.time_ms - start_ms) * PARTS >> shift == part for x in inside) for part in range(PARTS)]
        quarters = [
            sum(x.amount for x in inside if (x.time_ms - start_ms) * QUARTERS >> shift == quarter)
            for quarter in range(QUARTERS)
        ]
        times_ms = [event.time_ms for event in inside]
        holding = [[x for x in inside if x.flags >> predicate & 1] for predicate in range(PREDICATES)]
        tiles.append(
            Tile(
                start_ms, end_ms, min(times_ms), max(times_ms),
                tuple(min(count, PART_MAX) for count in counts), tuple(quarters),
                tuple(_sums_of(events) for events in (inside, *holding)),
            )
        )  # fmt: skip
    return tiles


# --- the kernels under test ------------------------------------------------------------------------------------


@dataclass
class Tiles:
    """A tile part by itself on a heap."""

    ttl_ms: int
    newest_ms: int = NEVER
    room: int = 2_000
    heap: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        words = tile_at(PART, self.room, PREDICATES, TABLES) + tile_words(PREDICATES)
        self.heap = np.full(words, -77, np.int64)  # what was there before must not matter
        self.heap[PART + TILE_COUNT], self.heap[PART + TILE_CAPACITY] = 0, self.room
        self.heap[PART + NEXT_CHANGE_MS] = -NEVER

    def __len__(self) -> int:
        return int(self.heap[PART + TILE_COUNT])

    def add(self, events: list[Dropped]) -> "Tiles":
        """Each event as the newest time stands with it."""
        for event in events:
            self.go_on(event.time_ms)
            add_event(self.heap, PART, self.newest_ms, self.ttl_ms, *event, PREDICATES, TABLES)
        return self

    def go_on(self, newest_ms: int) -> "Tiles":
        self.newest_ms = max(self.newest_ms, newest_ms)
        fold(self.heap, PART, self.newest_ms, self.ttl_ms, PREDICATES, TABLES)
        return self

    def at(self, index: int) -> int:
        return int(tile_at(PART, index, PREDICATES, TABLES))

    def level(self, index: int) -> int:
        return int(self.heap[self.at(index) + START]) & LEVEL_MASK

    def words(self) -> bytes:
        """Everything that is kept, as it is."""
        return self.heap[PART + TILE_COUNT : self.at(len(self))].tobytes()

    def read(self) -> list[Tile]:
        found = []
        for tile in map(self.at, range(len(self))):
            times = (int(edge(self.heap, tile)) for edge in (start_of, end_of, first_of, last_of))
            parts = tuple(int(part_count(self.heap, tile, part)) for part in range(PARTS))
            quarters = tuple(int(quarter_sum(self.heap, tile, quarter)) for quarter in range(QUARTERS))
            found.append(Tile(*times, parts, quarters, tuple(self._sums(tile, k) for k in range(1 + PREDICATES))))
        return found

    def _sums(self, tile: int, accumulator: int) -> Sums:
        at = tile + ACCUMULATORS + ACCUMULATOR_WORDS * accumulator
        word = [int(self.heap[at + k]) for k in range(ACCUMULATOR_WORDS)]
        return Sums(word[COUNT], word[SUM], (word[SQUARES_HIGH] << 64) + word[SQUARES_LOW] % 2**64,
                    word[LEAST], word[MOST])  # fmt: skip


# --- order and steps -------------------------------------------------------------------------------------------

# Some are such that of two neighbours one would be past the TTL, and the other not, by the time they become one.
TTLS_MS = [
    11 * SECOND,
    (LADDER + 1) * 1024 - 1,
    LADDER << 20,
    (LADDER + 2) << 14,
    MINUTE,
    HOUR,
    8 * DAY,
    97 * DAY,
    3_000 * DAY,
]


@st.composite
def _streams(draw: st.DrawFn) -> tuple[list[Dropped], int, int]:
    """Dropped events in some order, how far time goes on after them, and a TTL."""
    ttl_ms = draw(st.sampled_from(TTLS_MS))
    # As old as can be, crowded close behind the newest time, and at the edges of tiles.
    ago_ms = st.one_of(
        st.integers(0, 2 * ttl_ms),
        st.integers(0, 20 * SECOND),
        st.integers(0, ttl_ms >> WIDTH_SHIFT).map(lambda tile: (tile << WIDTH_SHIFT) + NOW % 1024),
    )
    amounts = st.one_of(st.integers(-500, 500), st.sampled_from([AMOUNT_MAX, -AMOUNT_MAX, 0]))
    events = draw(st.lists(st.builds(lambda ago, *rest: Dropped(NOW - ago, *rest), ago_ms, amounts,
                                     st.integers(0, 3)), max_size=60))  # fmt: skip
    return events, NOW + draw(st.one_of(st.just(0), st.integers(0, ttl_ms), st.integers(0, 3 * ttl_ms))), ttl_ms


@given(_streams(), st.data())
def test_tiles_are_those_of_the_model_for_any_order_and_any_steps(stream, data: st.DataObject) -> None:
    events, newest_ms, ttl_ms = stream
    expected = expected_tiles(events, newest_ms, ttl_ms)
    drawn = Tiles(ttl_ms).add(events).go_on(newest_ms)
    assert drawn.read() == expected
    # All at the end; the oldest first, as they come where nothing is late; the newest first; with rests in between.
    others = [
        Tiles(ttl_ms).go_on(newest_ms).add(events),
        Tiles(ttl_ms).add(sorted(events)).go_on(newest_ms),
        Tiles(ttl_ms).add(sorted(events, reverse=True)).go_on(newest_ms),
        Tiles(ttl_ms),
    ]
    for event in data.draw(st.permutations(events)):
        others[-1].add([event]).go_on(data.draw(st.integers(event.time_ms, newest_ms)))
    others[-1].go_on(newest_ms)
    for other in others:
        assert other.words() == drawn.words()


@given(_streams())
def test_the_next_change_is_when_the_first_tile_widens_or_ends(stream) -> None:
    events, newest_ms, ttl_ms = stream
    tiles = Tiles(ttl_ms).add(events).go_on(newest_ms)
    changes = [tile.end_ms + ttl_ms for tile in tiles.read()]
    levels = [_change_ms(tile.start_ms, tiles.level(index), ttl_ms) for index, tile in enumerate(tiles.read())]
    changes += [change_ms for change_ms in levels if change_ms is not None]
    next_ms = min(changes, default=-NEVER)
    assert tiles.heap[PART + NEXT_CHANGE_MS] == next_ms > newest_ms
    if changes:
        before = tiles.read()
        assert tiles.go_on(next_ms - 1).read() == before
        assert tiles.go_on(next_ms).read() != before


@given(_streams())
def test_nothing_is_lost_before_its_time_and_nothing_kept_long_after(stream) -> None:
    """Tiles end as a whole: at most the widest one's width after the last of their events was past the TTL."""
    events, newest_ms, ttl_ms = stream
    tiles = Tiles(ttl_ms).add(events).go_on(newest_ms).read()
    inside = [event for event in events if event.time_ms > newest_ms - ttl_ms]
    widest_ms = max((tile.end_ms - tile.start_ms for tile in tiles), default=0)
    at_most = [event for event in events if event.time_ms > newest_ms - ttl_ms - widest_ms]
    for accumulator in range(1 + PREDICATES):
        least, most = (
            sum(accumulator == 0 or x.flags >> (accumulator - 1) & 1 for x in of) for of in (inside, at_most)
        )
        assert least <= sum(tile.sums[accumulator].count for tile in tiles) <= most


@pytest.mark.parametrize("ttl_ms", TTLS_MS)
def test_sums_are_exact_whatever_was_folded(ttl_ms: int) -> None:
    rng = np.random.default_rng(7)
    ago_ms = (ttl_ms * rng.random(3_000) ** 4).astype(np.int64)
    events = [
        Dropped(NOW - int(ago), int(amount), int(flags))
        for ago, amount, flags in zip(
            ago_ms, rng.integers(-AMOUNT_MAX, AMOUNT_MAX + 1, 3_000), rng.integers(0, 4, 3_000), strict=True
        )
    ]
    tiles = Tiles(ttl_ms).add(events)
    assert len(tiles) < tiles_max(ttl_ms)
    found = tiles.read()
    for accumulator in range(1 + PREDICATES):
        holding = [x for x in events if accumulator == 0 or x.flags >> (accumulator - 1) & 1]
        expected, sums = _sums_of(holding), [tile.sums[accumulator] for tile in found]
        assert sum(s.count for s in sums) == expected.count
        assert sum(s.total for s in sums) == expected.total
        assert sum(s.squares for s in sums) == expected.squares
        assert min(s.least for s in sums if s.count) == expected.least
        assert max(s.most for s in sums if s.count) == expected.most


def test_the_largest_amounts_have_exact_squares() -> None:
    """Their sum of squares takes more than 64 bits from the first on."""
    tiles = Tiles(8 * DAY).add([Dropped(NOW - k * SECOND, AMOUNT_MAX * (-1) ** k) for k in range(500)])
    merged = tiles.go_on(NOW + 3 * DAY).read()
    assert sum(tile.sums[0].squares for tile in merged) == 500 * AMOUNT_MAX**2
    assert sum(tile.sums[0].total for tile in merged) == 0
    assert len(merged) < 4


def test_accumulators_of_predicates_hold_what_holds() -> None:
    tile_events = [Dropped(NOW, 5, 0b01), Dropped(NOW, -7, 0b11), Dropped(NOW, 9, 0b00)]
    (tile,) = Tiles(HOUR).add(tile_events).read()
    assert tile.sums == (Sums(3, 7, 155, -7, 9), Sums(2, -2, 74, -7, 5), Sums(1, -7, 49, -7, -7))


# --- the end ---------------------------------------------------------------------------------------------------


def test_a_tile_ends_when_all_of_it_is_past_the_ttl() -> None:
    ttl_ms = HOUR
    tiles = Tiles(ttl_ms).add([Dropped(NOW, 1)]).go_on(NOW + ttl_ms)
    (tile,) = tiles.read()
    assert tiles.go_on(tile.end_ms + ttl_ms - 1).read() == [tile]
    assert tiles.go_on(tile.end_ms + ttl_ms).read() == []
    assert tiles.heap[PART + NEXT_CHANGE_MS] == -NEVER


def test_an_event_whose_tile_has_ended_is_not_added() -> None:
    ttl_ms = HOUR
    tiles = Tiles(ttl_ms).add([Dropped(NOW, 1)])
    before = tiles.words()
    assert tiles.add([Dropped(NOW - 2 * ttl_ms, 1)]).words() == before
    assert len(tiles.add([Dropped(NOW - ttl_ms + 1, 1)])) == 2


@pytest.mark.parametrize("ttl_ms", TTLS_MS)
def test_no_entity_has_more_tiles_than_there_is_room_for(ttl_ms: int) -> None:
    """One event in every tile that there can be, at moments at which tiles are about to widen and just have."""
    for newest_ms in (NOW, NOW - 1, *(NOW >> shift << shift for shift in (12, 18, 24, 30))):
        times_ms, time_ms = [], newest_ms
        while True:
            shift = WIDTH_SHIFT + _level_of(time_ms, newest_ms, ttl_ms)
            start_ms = time_ms >> shift << shift
            if start_ms + (1 << shift) <= newest_ms - ttl_ms:
                break
            times_ms.append(time_ms)
            time_ms = start_ms - 1
        tiles = Tiles(ttl_ms).add([Dropped(time_ms, 1) for time_ms in times_ms])
        assert len(tiles) == len(times_ms)
        # Room grows in steps, and one tile more is added before the oldest one goes.
        assert len(tiles) + 1 + TILES_STEP <= tiles_max(ttl_ms)


def test_tiles_are_narrow_for_their_age() -> None:
    ttl_ms = 97 * DAY
    tiles = Tiles(ttl_ms).add([Dropped(NOW - ago_ms, 1) for ago_ms in range(0, ttl_ms, 20 * MINUTE)])
    levels = [tiles.level(index) for index in range(len(tiles))]
    assert levels == sorted(levels, reverse=True)
    for level, tile in zip(levels, tiles.read(), strict=True):
        width_ms, age_ms = tile.end_ms - tile.start_ms, NOW - tile.end_ms
        assert age_ms >= LADDER // 2 * width_ms or level == 0
        assert age_ms <= (LADDER + 1) * width_ms or level == levels[0]


def test_a_tile_is_found_by_any_time_in_it_and_by_no_other() -> None:
    tiles = Tiles(8 * DAY).add([Dropped(NOW - ago_ms, 1) for ago_ms in (0, MINUTE, HOUR, 5 * HOUR, 3 * DAY)])
    found = tiles.read()
    assert len(found) == 5
    for index, tile in enumerate(found):
        for time_ms in (tile.start_ms, tile.end_ms - 1):
            assert tile_of(tiles.heap, PART, time_ms, PREDICATES, TABLES) == index
        assert tile_of(tiles.heap, PART, tile.start_ms - 1, PREDICATES, TABLES) == -1 - index
    assert tile_of(tiles.heap, PART, found[-1].end_ms, PREDICATES, TABLES) == -1 - len(found)


# --- parts -----------------------------------------------------------------------------------------------------


def test_parts_stop_at_their_largest_count_and_the_tile_does_not() -> None:
    """Whether a part was full before it became half of a wider one or after makes no difference."""
    tiles = Tiles(HOUR).add([Dropped(NOW, 1)] * 300 + [Dropped(NOW + 64, 1)] * 254 + [Dropped(NOW + 200, 1)])
    (tile,) = tiles.read()
    assert tile.parts == (255, 0, 254, 0, 0, 0, 1, *[0] * 25)
    assert tile.sums[0].count == 555
    (wider,) = tiles.go_on(NOW + 2 * MINUTE).read()
    assert wider.end_ms - wider.start_ms > tile.end_ms - tile.start_ms
    assert sum(wider.parts) == 255
    assert wider.sums[0].count == 555


def _shares(events: list[Dropped], edges_ms: list[int], newest_ms: int = NOW) -> list[float]:
    """Of the only tile of these events, the share after each edge."""
    tiles = Tiles(8 * DAY).add(events).go_on(newest_ms)
    assert len(tiles) == 1
    return [_after(tiles.heap, tiles.at(0), edge_ms)[0] for edge_ms in edges_ms]


# A tile of 2^15 ms, as one is that is some six minutes old; each part is 1,024 ms wide.
WIDE_MS, PART_MS = 1 << 15, 1 << 10
START_MS = NOW - 6 * MINUTE >> 15 << 15


def test_the_tile_of_these_tests_is_as_wide_as_they_say() -> None:
    (tile,) = Tiles(8 * DAY).add([Dropped(START_MS, 1)]).go_on(NOW).read()
    assert (tile.start_ms, tile.end_ms) == (START_MS, START_MS + WIDE_MS)


@given(st.lists(st.integers(0, WIDE_MS - 1), min_size=1, max_size=40))
def test_shares_are_exact_between_thinly_filled_parts(offsets: list[int]) -> None:
    edges_ms = [START_MS + part * PART_MS - 1 for part in range(PARTS + 1)]
    shares = _shares([Dropped(START_MS + offset, 1) for offset in offsets], edges_ms)
    after = [sum(START_MS + offset > edge_ms for offset in offsets) / len(offsets) for edge_ms in edges_ms]
    assert shares == pytest.approx(after, abs=1e-12)


@given(
    st.lists(st.tuples(st.integers(0, WIDE_MS - 1), st.sampled_from([1, 1, 3, 254, 255, 256, 1_000])), min_size=1,
             max_size=6),
    st.lists(st.integers(-100, WIDE_MS + 100), min_size=1, max_size=30),
)  # fmt: skip
def test_shares_never_grow_towards_the_newest(heaps, edges) -> None:
    events = [Dropped(START_MS + offset, 1) for offset, times in heaps for _ in range(times)]
    first_ms, last_ms = min(events).time_ms, max(events).time_ms
    edges_ms = [START_MS + edge for edge in sorted([*edges, first_ms - START_MS - 1, last_ms - START_MS])]
    shares = _shares(events, edges_ms)
    assert shares == sorted(shares, reverse=True)
    for edge_ms, share in zip(edges_ms, shares, strict=True):
        assert 0 <= share <= 1
        assert share == 1 or edge_ms >= first_ms
        assert share == 0 or edge_ms < last_ms


def test_full_parts_share_what_their_counts_leave_out() -> None:
    """Five times as many as a part counts, evenly in all of them, are shared out evenly."""
    events = [Dropped(START_MS + k * WIDE_MS // 40_800, 1) for k in range(40_800)]
    edges_ms = [START_MS + k * WIDE_MS // 100 for k in range(100)]
    assert _shares(events, edges_ms) == pytest.approx([1 - k / 100 for k in range(100)], abs=1e-3)


def test_a_few_events_beside_full_parts_count_as_few() -> None:
    """1,000 in the first, 1,000 in the third, 5 in the last:  |####|    |####|    ...    |.|"""
    crowd = [Dropped(START_MS + part * PART_MS + k, 1) for part in (0, 2) for k in range(1_000)]
    few = [Dropped(START_MS + 31 * PART_MS + k, 1) for k in range(5)]
    edges_ms = [START_MS + part * PART_MS - 1 for part in (1, 2, 3, 31)]
    assert _shares(crowd + few, edges_ms) == pytest.approx([1_005 / 2_005] * 2 + [5 / 2_005] * 2, abs=1e-12)


def test_events_of_one_moment_are_before_or_after_an_edge_together() -> None:
    events = [Dropped(START_MS + 5_000, 1)] * 700
    assert _shares(events, [START_MS, START_MS + 4_999, START_MS + 5_000, START_MS + WIDE_MS]) == [1, 1, 0, 0]


@given(st.lists(st.tuples(st.integers(0, WIDE_MS - 1), st.integers(-(10**6), 10**6)), min_size=1, max_size=40))
def test_sums_are_exact_between_quarters(events) -> None:
    tiles = Tiles(8 * DAY).add([Dropped(START_MS + offset, amount) for offset, amount in events]).go_on(NOW)
    for quarter in range(QUARTERS + 1):
        edge_ms = quarter * WIDE_MS // QUARTERS - 1
        after = sum(amount for offset, amount in events if offset > edge_ms)
        assert _after(tiles.heap, tiles.at(0), START_MS + edge_ms)[1] == pytest.approx(after, abs=1e-6)


def test_within_a_quarter_a_sum_goes_by_its_events() -> None:
    """One event of 1.00 in the first part, three of 1.00 in the fifth, and 90.00 in the second quarter."""
    places = [(0, 1, 100), (4, 3, 100), (10, 1, 9_000)]
    events = [Dropped(START_MS + part * PART_MS + k, amount) for part, times, amount in places for k in range(times)]
    tiles = Tiles(8 * DAY).add(events).go_on(NOW)
    sums = [_after(tiles.heap, tiles.at(0), START_MS + part * PART_MS - 1)[1] for part in (2, 4, 6, 8, 12)]
    assert sums == pytest.approx([9_300, 9_300, 9_000, 9_000, 0])
