"""What the windows of one entity hold at one moment: sums, extremes, values; the ring exactly, tiles in proportion.

      oldest                               t-24h         t-1h      t
 ring: . . . .  .   .    .  .  .      .     |  .   . .    |  .  .   e
                                            |             <-- 1h -->
                                            <------- 24h ---------->

Windows ascend, so one walk from the event's own time backwards finds each window's edge in turn. All of this is
without the event itself, which features.write adds where it belongs.

`ints[r, w]` holds, for window w: OUTSIDE, the newest place before it; from SUMS on, six rows for all events and for
each predicate (count, total, lower and upper half of the sum of squares, least, most); then a row of distinct values
for each column, and one that says whether the event's own value is among them. `reals[r, w]`: from tiles, three rows
(count, total, squares) for each accumulator; then a row of distinct values for each column.
"""

import numpy as np
from numpy.typing import NDArray

from features.arena import LINE_WORDS, NEVER
from features.bits import (
    bits_before,
    count_bits,
    high_square,
    next_bit,
    population,
    rank_bits,
    words_until,
)
from features.extremes import is_kept
from features.jit import inlined, kernel
from features.program import AMOUNTS, LEAST_OF, MOST_OF, OF_SQUARES
from features.ring import (
    BASE_TOTAL,
    HEADER_WORDS,
    HIGH,
    LOW,
    NEWEST,
    PEAK,
    ROW_WORDS,
    add_seen,
    amount_of,
    bits_at,
    column_at,
    extremes_at,
    row_at,
    squares_until,
    total_until,
    word_of,
)
from features.ring import TOTAL as ROW_TOTAL
from features.tiles import (
    ACCUMULATOR_WORDS,
    ACCUMULATORS,
    COUNT,
    LEAST,
    LEVEL_MASK,
    MOST,
    PART_MAX,
    PARTS_SHIFT,
    QUARTERS_SHIFT,
    SQUARES_HIGH,
    SQUARES_LOW,
    START,
    SUM,
    TILE_COUNT,
    WIDTH_SHIFT,
    first_of,
    last_of,
    part_count,
    quarter_sum,
    start_of,
    tile_at,
)
from features.values import distinct_since, last_seen_ms

Int64 = NDArray[np.int64]
UInt16 = NDArray[np.uint16]
Float64 = NDArray[np.float64]

OUTSIDE, SUMS = 0, 1
N, TOTAL, SQ_LOW, SQ_HIGH, MINIMUM, MAXIMUM, SUM_ROWS = range(7)
TILE_ROWS = 3
NOTHING_LEAST, NOTHING_MOST = 1 << 62, -(1 << 62)
SQUARES_SAFE = 2.0**63
LINE_ROWS = LINE_WORDS // ROW_WORDS
# The words of two lines that are times: each row begins with one.
TIMES = np.uint64(0x5555)
TWO_64 = 2.0**64


def work_arrays(windows: int, columns: int, predicates: int) -> tuple[Int64, Float64]:
    """`ints` and `reals`, with whole lines of windows."""
    width = -(-windows // LINE_WORDS) * LINE_WORDS
    ints = np.zeros((SUMS + SUM_ROWS * (1 + predicates) + 2 * columns, width), np.int64)
    return ints, np.zeros((TILE_ROWS * (1 + predicates) + columns, width))


@inlined
def values_row(columns: int, predicates: int, column: int) -> int:
    """The row of `ints` that counts a column's values."""
    return SUMS + SUM_ROWS * (1 + predicates) + column


@inlined
def find_edges(
    heap: Int64, position: int, capacity: int, head: int, last: int, time_ms: int, windows_ms: Int64, windows: int,
    edges: UInt16, ints: Int64,
) -> None:  # fmt: skip
    """Finds the newest place before each window: from where it was last time, which is seldom far.

    `edges[w]` says so, by place in memory, which stays the same while events come and go at the ends of the ring. It
    may say anything: steps from there double.
    """
    rows, mask = position + HEADER_WORDS, capacity - 1
    oldest_ms = heap[rows + ROW_WORDS * head] if last >= 0 else -NEVER
    # A ring of less than a line has nothing in the rest of it.
    farthest = 2 * LINE_ROWS - 1 if capacity >= LINE_ROWS else capacity - 1
    for window in range(windows):
        edge_ms = time_ms - windows_ms[window]
        if oldest_ms > edge_ms:
            ints[OUTSIDE, window] = -1
            continue
        place = min((edges[window] - head) & mask, last)
        # As a rule the edge is in the same line of four rows or in the next one, which are compared at once.
        line, within = (head + place) & mask & -LINE_ROWS, (head + place) & mask & (LINE_ROWS - 1)
        first = place - within
        low, high = max(0, -first), min(farthest, last - first)
        until = words_until(heap, rows + ROW_WORDS * line, edge_ms)
        until |= words_until(heap, rows + ROW_WORDS * ((line + LINE_ROWS) & mask), edge_ms) << np.uint64(LINE_WORDS)
        compared = (TIMES << np.uint64(ROW_WORDS * low)) & (TIMES >> np.uint64(ROW_WORDS * (2 * LINE_ROWS - 1 - high)))
        held = population(until & compared)
        place = first + low + held - 1
        if held == 0 or (place == first + high and place < last):
            place = _last_until(heap, rows, head, mask, last, max(place, 0), edge_ms)
        ints[OUTSIDE, window] = place
        edges[window] = (head + place) & mask


@kernel
def _last_until(heap: Int64, rows: int, head: int, mask: int, last: int, place: int, edge_ms: int) -> int:
    """The last place whose time is not after the edge, as that of place 0 is not; looked for from `place` on."""
    step = 1
    if heap[rows + ROW_WORDS * ((head + place) & mask)] <= edge_ms:
        while place + step <= last and heap[rows + ROW_WORDS * ((head + place + step) & mask)] <= edge_ms:
            place += step
            step *= 2
    else:
        while place > step and heap[rows + ROW_WORDS * ((head + place - step) & mask)] > edge_ms:
            place -= step
            step *= 2
        place = max(place - step, 0)
    # `place` is not after the edge, and what is `step` further is.
    while step > 1:
        step >>= 1
        if place + step <= last and heap[rows + ROW_WORDS * ((head + place + step) & mask)] <= edge_ms:
            place += step
    return place


@inlined
def _add_square(ints: Int64, row: int, window: int, amount: int) -> None:
    before = np.uint64(ints[row + SQ_LOW, window])
    after = before + np.uint64(amount * amount)
    ints[row + SQ_LOW, window] = np.int64(after)
    ints[row + SQ_HIGH, window] += high_square(amount) + (1 if after < before else 0)


@inlined
def sum_all(
    heap: Int64, position: int, capacity: int, head: int, last: int, length: int, columns: int, windows: int,
    needs: int, ints: Int64, ranks: Int64,
) -> None:  # fmt: skip
    """Sums over all events of each window."""
    until, base = total_until(heap, position, capacity, head, last), heap[position + BASE_TOTAL]
    for window in range(windows):
        outside = ints[OUTSIDE, window]
        # Read in any case, which costs less than a choice.
        before = heap[row_at(position, capacity, head, outside) + ROW_TOTAL]
        ints[SUMS + N, window] = last - outside
        ints[SUMS + TOTAL, window] = until - (before if outside >= 0 else base)
    if needs & OF_SQUARES:
        _sum_squares(heap, position, capacity, head, last, windows, ints)
    if last < length - 1:
        if needs & (LEAST_OF | MOST_OF):
            _extremes_by_scan(heap, position, capacity, head, last, windows, ints)
        return
    if needs & LEAST_OF:
        row = SUMS + MINIMUM
        _extremes_by_marks(heap, position, capacity, head, last, columns, LOW, windows, row, NOTHING_LEAST, ints, ranks)
    if needs & MOST_OF:
        row = SUMS + MAXIMUM
        _extremes_by_marks(heap, position, capacity, head, last, columns, HIGH, windows, row, NOTHING_MOST, ints, ranks)


@inlined
def _sum_squares(heap: Int64, position: int, capacity: int, head: int, last: int, windows: int, ints: Int64) -> None:
    """Sums of squares: one subtraction where they surely fit a word, else one by one in two words."""
    count, peak = last - ints[OUTSIDE, windows - 1], float(heap[position + PEAK])
    if count * peak * peak < SQUARES_SAFE:
        until = squares_until(heap, position, capacity, head, last)
        for window in range(windows):
            ints[SUMS + SQ_HIGH, window] = 0
            before = squares_until(heap, position, capacity, head, ints[OUTSIDE, window])
            ints[SUMS + SQ_LOW, window] = until - before
        return
    place = last
    for window in range(windows):
        for row in (SUMS + SQ_LOW, SUMS + SQ_HIGH):
            ints[row, window] = ints[row, window - 1] if window else 0
        while place > ints[OUTSIDE, window]:
            _add_square(ints, SUMS, window, amount_of(heap, position, capacity, head, place))
            place -= 1


@inlined
def _extremes_by_marks(
    heap: Int64, position: int, capacity: int, head: int, last: int, columns: int, number: int, windows: int,
    row: int, nothing: int, ints: Int64, ranks: Int64,
) -> None:  # fmt: skip
    """Each mark goes further than those that are newer: the oldest one in a window is its extreme."""
    bits, kept = bits_at(position, capacity, columns, number), extremes_at(position, capacity, columns, number)
    _count_marks(heap, bits, capacity, head, last, windows, row, ints, ranks)
    for window in range(windows):
        marks = ints[row, window]
        if marks == 0:
            ints[row, window] = nothing
        elif is_kept(heap, kept, capacity, marks - 1):
            ints[row, window] = heap[kept + marks - 1]
        else:
            oldest = next_bit(heap, bits, head + ints[OUTSIDE, window] + 1, head + last, capacity - 1) - head
            ints[row, window] = amount_of(heap, position, capacity, head, oldest)


@inlined
def _count_marks(
    heap: Int64, bits: int, capacity: int, head: int, last: int, windows: int, row: int, ints: Int64, ranks: Int64
) -> None:
    """Counts the marks in each window that ends with the newest place."""
    marks = rank_bits(heap, bits, capacity, ranks)
    before_head = bits_before(heap, bits, ranks, head)
    for window in range(windows):
        outside = ints[OUTSIDE, window]
        first = (head + outside + 1) & (capacity - 1)
        inside = before_head - bits_before(heap, bits, ranks, first) + (marks if first >= head else 0)
        ints[row, window] = inside if outside < last else 0


@kernel
def _extremes_by_scan(
    heap: Int64, position: int, capacity: int, head: int, last: int, windows: int, ints: Int64
) -> None:
    least, most, place = NOTHING_LEAST, NOTHING_MOST, last
    newer = total_until(heap, position, capacity, head, last)
    for window in range(windows):
        while place > ints[OUTSIDE, window]:
            place -= 1
            older = total_until(heap, position, capacity, head, place)
            least, most = min(least, newer - older), max(most, newer - older)
            newer = older
        ints[SUMS + MINIMUM, window], ints[SUMS + MAXIMUM, window] = least, most


@kernel
def sum_predicate(
    heap: Int64, position: int, capacity: int, head: int, last: int, bits: int, windows: int, row: int, needs: int,
    ints: Int64,
) -> None:  # fmt: skip
    """Sums over the events of each window for which a predicate holds."""
    newest = last
    for window in range(windows):
        outside = ints[OUTSIDE, window]
        for k in range(SUM_ROWS):
            ints[row + k, window] = ints[row + k, window - 1] if window else 0
        if window == 0:
            ints[row + MINIMUM, window], ints[row + MAXIMUM, window] = NOTHING_LEAST, NOTHING_MOST
        ints[row + N, window] += count_bits(heap, bits, head + outside + 1, head + newest, capacity - 1)
        if needs & AMOUNTS:
            place = next_bit(heap, bits, head + outside + 1, head + newest, capacity - 1)
            while place <= head + newest:
                amount = amount_of(heap, position, capacity, head, place - head)
                ints[row + TOTAL, window] += amount
                _add_square(ints, row, window, amount)
                ints[row + MINIMUM, window] = min(ints[row + MINIMUM, window], amount)
                ints[row + MAXIMUM, window] = max(ints[row + MAXIMUM, window], amount)
                place = next_bit(heap, bits, place + 1, head + newest, capacity - 1)
        newest = outside


@inlined
def count_values(
    heap: Int64, position: int, capacity: int, head: int, last: int, length: int, columns: int, column: int,
    windows: int, row: int, ints: Int64, ranks: Int64, seen_keys: Int64, seen_stamps: Int64, seen_stamp: Int64,
) -> None:  # fmt: skip
    """Counts the distinct values of a column in each window: by marks, or one by one for an event that is late."""
    if last < length - 1:
        words = column_at(position, capacity, column)
        _count_one_by_one(heap, words, capacity, head, last, windows, row, ints, seen_keys, seen_stamps, seen_stamp)
        return
    bits = bits_at(position, capacity, columns, NEWEST + column)
    _count_marks(heap, bits, capacity, head, last, windows, row, ints, ranks)


@kernel
def _count_one_by_one(
    heap: Int64, words: int, capacity: int, head: int, last: int, windows: int, row: int, ints: Int64,
    seen_keys: Int64, seen_stamps: Int64, seen_stamp: Int64,
) -> None:  # fmt: skip
    newest, count = last, 0
    seen_stamp[0] += 1
    for window in range(windows):
        outside = ints[OUTSIDE, window]
        for place in range(outside + 1, newest + 1):
            word = word_of(heap, words, capacity, (head + place) & (capacity - 1))
            count += word != 0 and add_seen(seen_keys, seen_stamps, seen_stamp[0], word)
        ints[row, window] = count
        newest = outside


@inlined
def _after(heap: Int64, tile: int, edge_ms: int) -> tuple[float, float]:
    """The share of a tile's events that are after an edge, by parts, and their sum, by quarters."""
    first, last = first_of(heap, tile), last_of(heap, tile)
    if edge_ms < first:
        return 1.0, float(heap[tile + ACCUMULATORS + SUM])
    if edge_ms >= last:
        return 0.0, 0.0
    start = start_of(heap, tile)
    width = WIDTH_SHIFT + (heap[tile + START] & LEVEL_MASK) - PARTS_SHIFT
    cut = (edge_ms - start) >> width
    total, full = 0, 0
    for part in range(1 << PARTS_SHIFT):
        count = part_count(heap, tile, part)
        total += count
        full += count == PART_MAX
    # Counts that stopped at their largest share what is missing from the tile's.
    extra = (heap[tile + ACCUMULATORS + COUNT] - total) / full if full else 0.0
    low, high = max(first, start + (cut << width)), min(last + 1, start + ((cut + 1) << width))
    share_of_cut = (high - 1 - edge_ms) / max(high - low, 1)
    quarter = cut >> (PARTS_SHIFT - QUARTERS_SHIFT)
    inside, in_quarter, of_quarter, sums = 0.0, 0.0, 0.0, 0
    for part in range(1 << PARTS_SHIFT):
        count = part_count(heap, tile, part)
        events = count + (extra if count == PART_MAX else 0.0)
        taken = events if part > cut else events * share_of_cut if part == cut else 0.0
        inside += taken
        if part >> (PARTS_SHIFT - QUARTERS_SHIFT) == quarter:
            in_quarter += taken
            of_quarter += events
    for later in range(quarter + 1, 1 << QUARTERS_SHIFT):
        sums += quarter_sum(heap, tile, later)
    share = in_quarter / of_quarter if of_quarter else 0.0
    return min(1.0, inside / heap[tile + ACCUMULATORS + COUNT]), sums + share * quarter_sum(heap, tile, quarter)


@kernel
def add_tiles(
    heap: Int64, part: int, time_ms: int, windows_ms: Int64, exact: int, windows: int, predicates: int, tables: int,
    ints: Int64, reals: Float64,
) -> None:  # fmt: skip
    """Adds what tiles hold of the windows that are not exact."""
    for accumulator in range(1 + predicates):
        _add_accumulator(
            heap, part, time_ms, windows_ms, exact, windows, predicates, tables, accumulator, ints, reals
        )  # fmt: skip


@inlined
def _add_accumulator(
    heap: Int64, part: int, time_ms: int, windows_ms: Int64, exact: int, windows: int, predicates: int, tables: int,
    accumulator: int, ints: Int64, reals: Float64,
) -> None:  # fmt: skip
    """One walk from the newest tile to the oldest: a window ends in the first tile that begins before it."""
    row, about = SUMS + SUM_ROWS * accumulator, TILE_ROWS * accumulator
    count, total, squares, least, most = 0.0, 0.0, 0.0, NOTHING_LEAST, NOTHING_MOST
    window, index = exact, heap[part + TILE_COUNT] - 1
    while index >= 0 and window < windows:
        tile = tile_at(part, index, predicates, tables)
        index -= 1
        at = tile + ACCUMULATORS + ACCUMULATOR_WORDS * accumulator
        # What is newer than the event is in no window of it.
        beyond, beyond_sum = _after(heap, tile, time_ms)
        held, held_sum = heap[at + COUNT], float(heap[at + SUM])
        held_squares = np.uint64(heap[at + SQUARES_LOW]) + TWO_64 * np.uint64(heap[at + SQUARES_HIGH])
        first_ms = first_of(heap, tile)
        while window < windows and first_ms <= time_ms - windows_ms[window]:
            share, share_sum = _after(heap, tile, time_ms - windows_ms[window])
            share = max(share - beyond, 0.0)
            part_sum = share_sum - beyond_sum if accumulator == 0 else share * held_sum
            reals[about, window] = count + share * held
            reals[about + 1, window] = total + (part_sum if share > 0.0 else 0.0)
            reals[about + 2, window] = squares + share * held_squares
            cut = share > 0.0 and held > 0
            ints[row + MINIMUM, window] = min(ints[row + MINIMUM, window], least, heap[at + LEAST] if cut else least)
            ints[row + MAXIMUM, window] = max(ints[row + MAXIMUM, window], most, heap[at + MOST] if cut else most)
            window += 1
        if beyond < 1.0 and held > 0:
            count += (1.0 - beyond) * held
            total += held_sum - beyond_sum if accumulator == 0 else (1.0 - beyond) * held_sum
            squares += (1.0 - beyond) * held_squares
            least, most = min(least, heap[at + LEAST]), max(most, heap[at + MOST])
    for rest in range(window, windows):
        reals[about, rest], reals[about + 1, rest], reals[about + 2, rest] = count, total, squares
        ints[row + MINIMUM, rest] = min(ints[row + MINIMUM, rest], least)
        ints[row + MAXIMUM, rest] = max(ints[row + MAXIMUM, rest], most)


@kernel
def add_seen_values(
    heap: Int64, part: int, table: int, newest_ms: int, oldest_ms: int, time_ms: int, windows_ms: Int64, exact: int,
    windows: int, predicates: int, tables: int, word: int, counts: Float64, among: Int64,
) -> None:  # fmt: skip
    """Values seen in the windows that are not exact, and whether the event's own is among them."""
    last_ms = last_seen_ms(heap, part, table, word, newest_ms, oldest_ms, predicates, tables)
    for window in range(exact, windows):
        edge_ms = time_ms - windows_ms[window]
        counts[window] = distinct_since(heap, part, table, edge_ms, newest_ms, oldest_ms, predicates, tables)
        among[window] = last_ms > edge_ms
