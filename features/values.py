"""When values were last seen, for `distinct` and `is_new` in windows that reach beyond the ring.

Once an entity has tiles, each column has a table of the values that its events had, those in the ring included, as
31 bits of the hash and the newest time in units of 1,024 ms. As many values are distinct in a window that ends now as
the table has times after the window's edge.

A table that would outgrow `TABLE_WORDS_MAX` becomes 2,816 *cells* of 16 bits: a value belongs to the cell of its
hash, and a cell keeps the newest time among its values, in units of 2^shift ms. With n of B cells after the edge, the
window has about -B ln(1 - n/B) values (Whang, Vander-Zanden, Taylor: A linear-time probabilistic counting algorithm,
1990).

Both only ever take the newest of the times of a value or cell, so they do not depend on the order of events.
"""

from math import log

import numpy as np
from numpy.typing import NDArray

from features.arena import NEVER
from features.jit import inlined, kernel
from features.tiles import LOW_32, TILE_CAPACITY, TILE_HEADER_WORDS, tile_at

Int64 = NDArray[np.int64]

UNIT_SHIFT = 10  # of a table's times: 1,024 ms
TABLE_WORDS_MIN, TABLE_WORDS_MAX = 16, 704
CELL_BITS = 16
CELLS_PER_WORD = 64 // CELL_BITS
CELLS = TABLE_WORDS_MAX * CELLS_PER_WORD
CELL_MASK = (1 << CELL_BITS) - 1
# Cells older than this many units are emptied, each time that so many units have passed.
CELL_AGE_MAX, CELL_SWEEP_SHIFT = 1 << 15, 13
CELL_SHIFT_MIN = 17

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@inlined
def table_word(capacity: int, entries: int, shift: int) -> int:
    """What a table is, in one word: capacity in words, entries, and the unit of its cells' time if it has cells."""
    return capacity << 32 | entries << 8 | shift


@inlined
def table_capacity(heap: Int64, part: int, table: int) -> int:
    """Words of a table."""
    return heap[part + TILE_HEADER_WORDS + table] >> 32


@inlined
def table_entries(heap: Int64, part: int, table: int) -> int:
    """Values in a table that has no cells."""
    return heap[part + TILE_HEADER_WORDS + table] >> 8 & 0xFFFFFF


@inlined
def cell_shift(heap: Int64, part: int, table: int) -> int:
    """A cell's unit of time is 2^shift ms; 0 where there are no cells."""
    return heap[part + TILE_HEADER_WORDS + table] & 255


@inlined
def table_at(heap: Int64, part: int, table: int, predicates: int, tables: int) -> int:
    """Where a table begins."""
    at = tile_at(part, heap[part + TILE_CAPACITY], predicates, tables)
    for before in range(table):
        at += table_capacity(heap, part, before)
    return at


@inlined
def words_for(entries: int) -> int:
    """Words of a table that is to take one value more than so many, a seventh of them or more left free."""
    words = TABLE_WORDS_MIN
    while (entries + 1) * 8 > words * 7 and words < TABLE_WORDS_MAX:
        words = min(words + words // 2, TABLE_WORDS_MAX)
    return words


@inlined
def is_full(heap: Int64, part: int, table: int) -> bool:
    """Whether a table has no room for another value."""
    entries, capacity = table_entries(heap, part, table), table_capacity(heap, part, table)
    return cell_shift(heap, part, table) == 0 and (entries + 1) * 8 > capacity * 7


@inlined
def _mark(word: int) -> int:
    """31 bits of a value, never 0. Mixed twice: words of numbers are no hashes."""
    mixed = np.uint64(word)
    for _ in range(2):
        mixed = (mixed ^ (mixed >> np.uint64(32))) * _GOLDEN
    mark = int(np.int64(mixed >> np.uint64(33)))
    return mark if mark > 0 else 1


@inlined
def _entry_of(heap: Int64, at: int, capacity: int, mark: int) -> int:
    """Where the entry of a value stands, or where it would."""
    place = (mark * capacity) >> 31
    while heap[at + place] != 0 and heap[at + place] >> 32 != mark:
        place = place + 1 if place + 1 < capacity else 0
    return at + place


@inlined
def place_of_value(heap: Int64, part: int, table: int, word: int, predicates: int, tables: int) -> int:
    """Where `see_value` begins to look for a value."""
    return table_at(heap, part, table, predicates, tables) + ((_mark(word) * table_capacity(heap, part, table)) >> 31)


@inlined
def read_cell(heap: Int64, at: int, cell: int) -> int:
    """The time in a cell, modulo 2^16; 0 where nothing was seen."""
    return heap[at + cell // CELLS_PER_WORD] >> (CELL_BITS * (cell % CELLS_PER_WORD)) & CELL_MASK


@inlined
def write_cell(heap: Int64, at: int, cell: int, value: int) -> None:
    """Sets the time in a cell."""
    bit = np.uint64(CELL_BITS * (cell % CELLS_PER_WORD))
    word = np.uint64(heap[at + cell // CELLS_PER_WORD]) & ~(np.uint64(CELL_MASK) << bit)
    heap[at + cell // CELLS_PER_WORD] = np.int64(word | (np.uint64(value) << bit))


@inlined
def _see_in_cell(heap: Int64, at: int, shift: int, mark: int, time_ms: int, newest_ms: int) -> None:
    newest = newest_ms >> shift
    unit = time_ms >> shift
    if unit & CELL_MASK == 0:
        unit -= 1  # 0 means nothing
    if unit < (newest >> CELL_SWEEP_SHIFT << CELL_SWEEP_SHIFT) - CELL_AGE_MAX:
        return
    cell = (mark * CELLS) >> 31
    before = read_cell(heap, at, cell)
    if before == 0 or (newest - before) & CELL_MASK > newest - unit:
        write_cell(heap, at, cell, unit & CELL_MASK)


@kernel
def sweep(heap: Int64, part: int, predicates: int, tables: int, before_ms: int, newest_ms: int) -> None:
    """Empties cells that are too old to tell from new ones, when the newest time has moved on far enough."""
    for table in range(tables):
        shift = cell_shift(heap, part, table)
        before, newest = before_ms >> shift, newest_ms >> shift
        if shift == 0 or before >> CELL_SWEEP_SHIFT == newest >> CELL_SWEEP_SHIFT:
            continue
        at = table_at(heap, part, table, predicates, tables)
        oldest = (newest >> CELL_SWEEP_SHIFT << CELL_SWEEP_SHIFT) - CELL_AGE_MAX
        for cell in range(CELLS):
            time = read_cell(heap, at, cell)
            # None is older than can be told from before, however far time has moved on since.
            if time != 0 and before - ((before - time) & CELL_MASK) < oldest:
                write_cell(heap, at, cell, 0)


@inlined
def see_value(
    heap: Int64, part: int, table: int, word: int, time_ms: int, newest_ms: int, predicates: int, tables: int
) -> None:
    """Notes that an event had a value; the table has room."""
    at, mark, shift = table_at(heap, part, table, predicates, tables), _mark(word), cell_shift(heap, part, table)
    if shift:
        _see_in_cell(heap, at, shift, mark, time_ms, newest_ms)
        return
    entry = _entry_of(heap, at, table_capacity(heap, part, table), mark)
    if heap[entry] == 0:
        heap[part + TILE_HEADER_WORDS + table] += table_word(0, 1, 0)
    heap[entry] = mark << 32 | max(heap[entry] & LOW_32, time_ms >> UNIT_SHIFT)


@kernel
def live_entries(heap: Int64, at: int, capacity: int, oldest_ms: int, found: Int64) -> int:
    """Collects the entries of a table that are not older; returns how many there are."""
    count = 0
    for place in range(capacity):
        entry = heap[at + place]
        if entry != 0 and entry & LOW_32 > oldest_ms >> UNIT_SHIFT:
            found[count] = entry
            count += 1
    return count


@kernel
def fill_table(heap: Int64, at: int, capacity: int, entries: Int64, count: int) -> None:
    """Writes a table anew, of these entries."""
    heap[at : at + capacity] = 0
    for k in range(count):
        heap[_entry_of(heap, at, capacity, entries[k] >> 32)] = entries[k]


@kernel
def fill_cells(heap: Int64, at: int, shift: int, newest_ms: int, entries: Int64, count: int) -> None:
    """Writes cells, of the entries of the table that they replace."""
    heap[at : at + TABLE_WORDS_MAX] = 0
    for k in range(count):
        time_ms = (entries[k] & LOW_32) << UNIT_SHIFT
        _see_in_cell(heap, at, shift, entries[k] >> 32, time_ms, newest_ms)


@inlined
def shift_for(ttl_ms: int) -> int:
    """The unit of cells in which a TTL fits."""
    shift = CELL_SHIFT_MIN
    while ttl_ms >> shift >= CELL_AGE_MAX:
        shift += 1
    return shift


@inlined
def last_seen_ms(
    heap: Int64, part: int, table: int, word: int, newest_ms: int, oldest_ms: int, predicates: int, tables: int
) -> int:
    """The end of the unit of time in which a value was last seen; NEVER where it was not after `oldest_ms`.

    Whether older ones are still in a table depends on when it was last written anew.
    """
    at, mark, shift = table_at(heap, part, table, predicates, tables), _mark(word), cell_shift(heap, part, table)
    if shift:
        newest = newest_ms >> shift
        time = read_cell(heap, at, (mark * CELLS) >> 31)
        return (newest - ((newest - time) & CELL_MASK) + 1) << shift if time else NEVER
    entry = heap[_entry_of(heap, at, table_capacity(heap, part, table), mark)]
    return ((entry & LOW_32) + 1) << UNIT_SHIFT if entry & LOW_32 > max(oldest_ms, 0) >> UNIT_SHIFT else NEVER


@inlined
def distinct_since(
    heap: Int64, part: int, table: int, edge_ms: int, newest_ms: int, oldest_ms: int, predicates: int, tables: int
) -> float:
    """About how many values were seen after a time, and after `oldest_ms`."""
    at, shift = table_at(heap, part, table, predicates, tables), cell_shift(heap, part, table)
    if shift == 0:
        entries = heap[at : at + table_capacity(heap, part, table)]
        count, edge = 0, max(edge_ms, oldest_ms, 0) >> UNIT_SHIFT  # never below 0, which is what empty entries hold
        for place in range(entries.shape[0]):
            count += (entries[place] & LOW_32) > edge
        return float(count)
    newest, edge = newest_ms >> shift, edge_ms >> shift
    if edge > newest:
        return 0.0
    # In 16 bits throughout, so that many cells are compared at once.
    cells = heap[at : at + TABLE_WORDS_MAX].view(np.uint16)
    now, age = np.uint16(newest & CELL_MASK), np.uint16(min(newest - edge, CELL_MASK))
    none, one = np.uint16(0), np.uint16(1)
    after, within = none, none
    for cell in range(cells.shape[0]):
        old = np.uint16(now - cells[cell])
        after = np.uint16(after + (one if (cells[cell] != none) & (old < age) else none))
        within = np.uint16(within + (one if (cells[cell] != none) & (old == age) else none))
    share = 1.0 - (edge_ms - (edge << shift)) / (1 << shift)
    occupied = min(after + within * share, CELLS - 0.5)
    return -CELLS * log(1.0 - occupied / CELLS)
