"""What is left of the events that a ring dropped: sums by time tile.

Tiles are aligned to the epoch. One of level l is 2^(10+l) ms wide; two neighbours become one of the next level as soon
as the entity's newest event is `LADDER` of their widths past the end of both, so that a tile is between 1/16 and 1/8
as wide as it is old:

    |      level 3      | level 2 | level 2 |  1 |  1 |  1 | 0| 0| 0|      ring: . .. .   .  .. .|
                                                                                              newest

Of its events a tile keeps count, sum, sum of squares (128 bits), smallest and largest, all together and for each
predicate, the times of the first and the last, how many fell into each of 32 parts of it (up to 255), and the sum of
each quarter. A window's edge that cuts a tile takes the share of its events on this side of the edge, by parts within
its populated span, and the sum by quarters; measured errors are in docs/windows.md. What tiles hold depends on
the dropped events and the newest time alone.

They follow the ring in its block, together with the tables of values (features.values):

    header          count and capacity of tiles, when the next fold is due; then one word for each table
    tiles           `tile_words` each, oldest first
    tables
"""

import numpy as np
from numpy.typing import NDArray

from features.arena import NEVER
from features.bits import high_square
from features.jit import inlined, kernel

Int64 = NDArray[np.int64]

LADDER = 16
WIDTH_SHIFT = 10  # of the narrowest tile: 1,024 ms
LEVEL_MAX = 22
PARTS_SHIFT, QUARTERS_SHIFT = 5, 2  # 32 parts, four quarters
PARTS_WORDS, QUARTERS_WORDS = 4, 3  # of the last quarter's sum nothing is stored

TILE_COUNT, TILE_CAPACITY, NEXT_CHANGE_MS, TILE_HEADER_WORDS = range(4)
START, SPAN, PARTS, QUARTERS = 0, 1, 2, 6
ACCUMULATORS = 9
COUNT, SUM, SQUARES_LOW, SQUARES_HIGH, LEAST, MOST, ACCUMULATOR_WORDS = range(7)
LEVEL_MASK = (1 << WIDTH_SHIFT) - 1
TILES_STEP = 4
PART_MAX = 255
LOW_32 = 0xFFFFFFFF


def tiles_max(ttl_ms: int) -> int:
    """More tiles than an entity can ever have."""
    return (LEVEL_MAX + 1) * (LADDER // 2 + 2) + 3 * LADDER + (ttl_ms >> (WIDTH_SHIFT + LEVEL_MAX)) + 2 * TILES_STEP


@inlined
def tile_words(predicates: int) -> int:
    """Words of one tile."""
    return ACCUMULATORS + ACCUMULATOR_WORDS * (1 + predicates)


@inlined
def tile_at(part: int, index: int, predicates: int, tables: int) -> int:
    """Where a tile begins; `part` is where the tile header does."""
    return part + TILE_HEADER_WORDS + tables + index * tile_words(predicates)


@inlined
def start_of(heap: Int64, tile: int) -> int:
    """When a tile begins, ms."""
    return heap[tile + START] & ~LEVEL_MASK


@inlined
def end_of(heap: Int64, tile: int) -> int:
    """When the next tile begins, ms."""
    return start_of(heap, tile) + (1 << (WIDTH_SHIFT + (heap[tile + START] & LEVEL_MASK)))


@inlined
def first_of(heap: Int64, tile: int) -> int:
    """When the first event of a tile was, ms."""
    return start_of(heap, tile) + (heap[tile + SPAN] >> 32 & LOW_32)


@inlined
def last_of(heap: Int64, tile: int) -> int:
    """When the last event of a tile was, ms."""
    return start_of(heap, tile) + (heap[tile + SPAN] & LOW_32)


@inlined
def _change_ms(time_ms: int, level: int, ttl_ms: int) -> int:
    """The newest time at which the tile of `time_ms` becomes part of one of the next level.

    Never for tiles so wide that one of two neighbours could be past the TTL by then: what is deleted would depend on
    the steps in which time went on.
    """
    if level == LEVEL_MAX or (LADDER + 2) << (WIDTH_SHIFT + level) > ttl_ms:
        return -NEVER
    wider = WIDTH_SHIFT + level + 1
    return (((time_ms >> wider) + 1) << wider) + (LADDER << (wider - 1))


@inlined
def _level_at(time_ms: int, level: int, newest_ms: int, ttl_ms: int) -> int:
    """The level, at least `level`, of the tile that `time_ms` belongs to."""
    while _change_ms(time_ms, level, ttl_ms) <= newest_ms:
        level += 1
    return level


@inlined
def tile_of(heap: Int64, part: int, time_ms: int, predicates: int, tables: int) -> int:
    """The index of the tile that a time lies in, or -1 - the index that it would have."""
    low, high = -1, heap[part + TILE_COUNT]
    if high > 0 and start_of(heap, tile_at(part, high - 1, predicates, tables)) <= time_ms:
        low = high - 1  # as nearly always: what a ring drops is newer than what it dropped before
    while high - low > 1:
        middle = (low + high) >> 1
        if start_of(heap, tile_at(part, middle, predicates, tables)) > time_ms:
            high = middle
        else:
            low = middle
    if low >= 0 and time_ms < end_of(heap, tile_at(part, low, predicates, tables)):
        return low
    return -1 - (low + 1)


@inlined
def part_count(heap: Int64, tile: int, part: int) -> int:
    """One part's count."""
    return (heap[tile + PARTS + part // 8] >> (8 * (part % 8))) & PART_MAX


@inlined
def _set_part(heap: Int64, tile: int, part: int, count: int) -> None:
    word, shift = tile + PARTS + part // 8, 8 * (part % 8)
    heap[word] += np.int64(np.uint64(count - part_count(heap, tile, part)) << np.uint64(shift))


@inlined
def _add_to_part(heap: Int64, tile: int, part: int, count: int) -> None:
    """Adds to one part's count, which stops at 255."""
    _set_part(heap, tile, part, min(part_count(heap, tile, part) + count, PART_MAX))


@inlined
def quarter_sum(heap: Int64, tile: int, quarter: int) -> int:
    """The sum of one quarter's amounts. The last one is not stored: it is what is left of the tile's."""
    if quarter < QUARTERS_WORDS:
        return heap[tile + QUARTERS + quarter]
    others = heap[tile + QUARTERS] + heap[tile + QUARTERS + 1] + heap[tile + QUARTERS + 2]
    return heap[tile + ACCUMULATORS + SUM] - others


@inlined
def _add_squares(heap: Int64, to: int, low: int, high: int) -> None:
    """Adds a 128-bit sum of squares to an accumulator."""
    before = np.uint64(heap[to + SQUARES_LOW])
    after = before + np.uint64(low)
    heap[to + SQUARES_LOW] = np.int64(after)
    heap[to + SQUARES_HIGH] += high + (1 if after < before else 0)


@inlined
def _merge_accumulators(heap: Int64, to: int, source: int) -> None:
    if heap[source + COUNT] == 0:
        return
    if heap[to + COUNT] == 0:
        heap[to + LEAST], heap[to + MOST] = heap[source + LEAST], heap[source + MOST]
    heap[to + COUNT] += heap[source + COUNT]
    heap[to + SUM] += heap[source + SUM]
    _add_squares(heap, to, heap[source + SQUARES_LOW], heap[source + SQUARES_HIGH])
    heap[to + LEAST] = min(heap[to + LEAST], heap[source + LEAST])
    heap[to + MOST] = max(heap[to + MOST], heap[source + MOST])


@inlined
def _raise_tile(heap: Int64, tile: int, level: int) -> None:
    """Makes a tile one of a higher level, level by level."""
    while heap[tile + START] & LEVEL_MASK < level:
        wider = WIDTH_SHIFT + (heap[tile + START] & LEVEL_MASK) + 1
        start, first_ms, last_ms = start_of(heap, tile), first_of(heap, tile), last_of(heap, tile)
        later = start >> (wider - 1) & 1
        half = 1 << (PARTS_SHIFT - 1)
        # Two parts become one. Those of the later half are taken from the end, so that each is read before it changes.
        for step in range(half):
            part = half - 1 - step if later else step
            count = part_count(heap, tile, 2 * part) + part_count(heap, tile, 2 * part + 1)
            _set_part(heap, tile, part + half * later, min(count, PART_MAX))
        for part in range(half):
            _set_part(heap, tile, part + half * (1 - later), 0)
        early_sum = quarter_sum(heap, tile, 0) + quarter_sum(heap, tile, 1)
        late_sum = quarter_sum(heap, tile, 2) + quarter_sum(heap, tile, 3)
        heap[tile + QUARTERS] = 0 if later else early_sum
        heap[tile + QUARTERS + 1] = 0 if later else late_sum
        heap[tile + QUARTERS + 2] = early_sum if later else 0
        wider_start = start >> wider << wider
        heap[tile + START] = wider_start | (wider - WIDTH_SHIFT)
        heap[tile + SPAN] = (first_ms - wider_start) << 32 | (last_ms - wider_start)


@kernel
def fold(heap: Int64, part: int, newest_ms: int, ttl_ms: int, predicates: int, tables: int) -> None:
    """Brings the tiles to the levels that they have at this newest time; deletes those that are past the TTL."""
    if newest_ms < heap[part + NEXT_CHANGE_MS]:
        return
    words = tile_words(predicates)
    kept, next_ms = 0, -NEVER
    for index in range(heap[part + TILE_COUNT]):
        source = tile_at(part, index, predicates, tables)
        level = _level_at(start_of(heap, source), heap[source + START] & LEVEL_MASK, newest_ms, ttl_ms)
        _raise_tile(heap, source, level)
        if end_of(heap, source) <= newest_ms - ttl_ms:
            continue
        to = tile_at(part, kept - 1, predicates, tables)
        if kept and heap[to + START] == heap[source + START]:
            _merge_tiles(heap, to, source, predicates)
            continue
        to += words
        if to != source:
            for k in range(words):
                heap[to + k] = heap[source + k]
        kept += 1
        next_ms = min(next_ms, _change_ms(start_of(heap, to), level, ttl_ms), end_of(heap, to) + ttl_ms)
    heap[part + TILE_COUNT] = kept
    heap[part + NEXT_CHANGE_MS] = next_ms


@inlined
def _merge_tiles(heap: Int64, to: int, source: int, predicates: int) -> None:
    """Adds one tile to another of the same place."""
    first = min(first_of(heap, to), first_of(heap, source)) - start_of(heap, to)
    last = max(last_of(heap, to), last_of(heap, source)) - start_of(heap, to)
    heap[to + SPAN] = first << 32 | last
    for part in range(1 << PARTS_SHIFT):
        count = part_count(heap, source, part)
        if count:
            _add_to_part(heap, to, part, count)
    for quarter in range(QUARTERS_WORDS):
        heap[to + QUARTERS + quarter] += heap[source + QUARTERS + quarter]
    for accumulator in range(1 + predicates):
        offset = ACCUMULATORS + ACCUMULATOR_WORDS * accumulator
        _merge_accumulators(heap, to + offset, source + offset)


@inlined
def add_event(
    heap: Int64, part: int, newest_ms: int, ttl_ms: int, time_ms: int, amount: int, flags: int, predicates: int,
    tables: int,
) -> None:  # fmt: skip
    """Adds a dropped event to its tile; the tiles are folded and have room for one more."""
    index = tile_of(heap, part, time_ms, predicates, tables)
    if index < 0:
        level = _level_at(time_ms, 0, newest_ms, ttl_ms)
        shift = WIDTH_SHIFT + level
        start = (time_ms >> shift) << shift
        if start + (1 << shift) <= newest_ms - ttl_ms:
            return
        index = -1 - index
        words = tile_words(predicates)
        for k in range(tile_at(part, heap[part + TILE_COUNT], predicates, tables) - 1,
                       tile_at(part, index, predicates, tables) - 1, -1):  # fmt: skip
            heap[k + words] = heap[k]
        tile = tile_at(part, index, predicates, tables)
        heap[tile : tile + words] = 0
        heap[tile + START] = start | level
        heap[tile + SPAN] = (time_ms - start) << 32 | (time_ms - start)
        heap[part + TILE_COUNT] += 1
        change_ms = min(_change_ms(start, level, ttl_ms), start + (1 << shift) + ttl_ms)
        heap[part + NEXT_CHANGE_MS] = min(heap[part + NEXT_CHANGE_MS], change_ms)
    tile = tile_at(part, index, predicates, tables)
    start, level = start_of(heap, tile), heap[tile + START] & LEVEL_MASK
    first, last = min(first_of(heap, tile), time_ms), max(last_of(heap, tile), time_ms)
    heap[tile + SPAN] = (first - start) << 32 | (last - start)
    _add_to_part(heap, tile, (time_ms - start) >> (WIDTH_SHIFT + level - PARTS_SHIFT), 1)
    quarter = (time_ms - start) >> (WIDTH_SHIFT + level - QUARTERS_SHIFT)
    if quarter < QUARTERS_WORDS:
        heap[tile + QUARTERS + quarter] += amount
    for accumulator in range(1 + predicates):
        if accumulator == 0 or (flags >> (accumulator - 1)) & 1:
            at = tile + ACCUMULATORS + ACCUMULATOR_WORDS * accumulator
            if heap[at + COUNT] == 0:
                heap[at + LEAST] = heap[at + MOST] = amount
            heap[at + COUNT] += 1
            heap[at + SUM] += amount
            _add_squares(heap, at, amount * amount, high_square(amount))
            heap[at + LEAST] = min(heap[at + LEAST], amount)
            heap[at + MOST] = max(heap[at + MOST], amount)
