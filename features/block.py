"""An entity's block: how it grows, and how an event goes into it.

A ring doubles until it has K places. The first event after that brings tiles and tables; from then on each event drops
one, the oldest, which may be the event itself.
"""

import numpy as np
from numpy.typing import NDArray

from features.arena import CAPACITY, HEAD, LENGTH, NEWEST_MS, POSITION
from features.bits import count_bits, has_bit
from features.jit import kernel
from features.ring import (
    DROPPED_MS,
    FIRST_MS,
    NEWEST,
    TILES_AT,
    TIME_MS,
    WORDS,
    amount_of,
    bits_at,
    column_at,
    copy_ring,
    drop_oldest,
    place_for,
    put,
    ring_words,
    row_at,
    whole_lines,
    word_of,
)
from features.tiles import (
    NEXT_CHANGE_MS,
    TILE_CAPACITY,
    TILE_COUNT,
    TILE_HEADER_WORDS,
    TILES_STEP,
    add_event,
    fold,
    tile_at,
    tile_words,
    tiles_max,
)
from features.values import (
    TABLE_WORDS_MAX,
    cell_shift,
    fill_cells,
    fill_table,
    is_full,
    live_entries,
    see_value,
    shift_for,
    sweep,
    table_at,
    table_capacity,
    table_word,
    words_for,
)

Int64 = NDArray[np.int64]


def block_words_max(capacity: int, columns: int, predicates: int, tables: int, ttl_ms: int) -> int:
    """Words that a block can have at most; `capacity` is that of a full ring."""
    tiles = tiles_max(ttl_ms) * tile_words(predicates)
    tile_part = TILE_HEADER_WORDS + tables + tiles + tables * TABLE_WORDS_MAX
    return int(ring_words(capacity, columns, predicates)) + int(whole_lines(tile_part))


@kernel
def grow_ring(slots: Int64, at: int, heap: Int64, heap_top: int, columns: int, predicates: int) -> int:
    """Moves a full ring to a block of twice its places; returns the new heap top."""
    capacity = 2 * slots[at, CAPACITY]
    words = ring_words(capacity, columns, predicates)
    copy_ring(slots, at, heap, heap_top, capacity, columns, predicates)
    heap[heap_top + WORDS] = words
    slots[at, POSITION], slots[at, CAPACITY] = heap_top, capacity
    return heap_top + words


@kernel
def grow_tiles(
    slots: Int64, at: int, heap: Int64, heap_top: int, newest_ms: int, ttl_ms: int, columns: int, predicates: int,
    tables: int, tables_of: Int64, entries: Int64,
) -> int:  # fmt: skip
    """Moves an entity with a ring of full size to a block with room for more tiles and values, or for the first ones.

    Values older than the TTL are left behind; a table too large becomes cells. Returns the new heap top.
    """
    old, capacity = slots[at, POSITION], slots[at, CAPACITY]
    copy_ring(slots, at, heap, heap_top, capacity, columns, predicates)
    had_tiles = heap[old + TILES_AT] != 0
    before = old + heap[old + TILES_AT]
    part = heap_top + ring_words(capacity, columns, predicates)
    heap[heap_top + TILES_AT] = part - heap_top
    count = heap[before + TILE_COUNT] if had_tiles else 0
    heap[part + TILE_COUNT] = count
    heap[part + TILE_CAPACITY] = (count // TILES_STEP + 1) * TILES_STEP
    heap[part + NEXT_CHANGE_MS] = heap[before + NEXT_CHANGE_MS] if had_tiles else 1 << 62
    source = tile_at(before, 0, predicates, tables)
    target = tile_at(part, 0, predicates, tables)
    for k in range(count * tile_words(predicates)):
        heap[target + k] = heap[source + k]
    for column in range(columns):
        table = tables_of[column]
        if table < 0:
            continue
        if had_tiles:
            _move_table(heap, before, part, table, newest_ms, ttl_ms, predicates, tables, entries)
        else:
            _first_table(slots, at, heap, heap_top, part, column, table, newest_ms, ttl_ms, columns, predicates, tables)
    top = part + TILE_HEADER_WORDS + tables + heap[part + TILE_CAPACITY] * tile_words(predicates)
    for table in range(tables):
        top += table_capacity(heap, part, table)
    words = whole_lines(top - heap_top)
    heap[heap_top + WORDS] = words
    slots[at, POSITION] = heap_top
    return heap_top + words


@kernel
def _move_table(
    heap: Int64, before: int, part: int, table: int, newest_ms: int, ttl_ms: int, predicates: int, tables: int,
    entries: Int64,
) -> None:  # fmt: skip
    source, words = table_at(heap, before, table, predicates, tables), table_capacity(heap, before, table)
    if cell_shift(heap, before, table):
        heap[part + TILE_HEADER_WORDS + table] = heap[before + TILE_HEADER_WORDS + table]
        target = table_at(heap, part, table, predicates, tables)
        for k in range(words):
            heap[target + k] = heap[source + k]
        return
    count = live_entries(heap, source, words, newest_ms - ttl_ms, entries)
    words = words_for(count)
    if (count + 1) * 8 > words * 7:
        shift = shift_for(ttl_ms)
        heap[part + TILE_HEADER_WORDS + table] = table_word(TABLE_WORDS_MAX, 0, shift)
        fill_cells(heap, table_at(heap, part, table, predicates, tables), shift, newest_ms, entries, count)
        return
    heap[part + TILE_HEADER_WORDS + table] = table_word(words, count, 0)
    fill_table(heap, table_at(heap, part, table, predicates, tables), words, entries, count)


@kernel
def _first_table(
    slots: Int64, at: int, heap: Int64, position: int, part: int, column: int, table: int, newest_ms: int, ttl_ms: int,
    columns: int, predicates: int, tables: int,
) -> None:  # fmt: skip
    """Makes the table of a column, of the values in the ring, which stands at `position` already."""
    capacity, head, length = slots[at, CAPACITY], slots[at, HEAD], slots[at, LENGTH]
    marks = bits_at(position, capacity, columns, NEWEST + column)
    count = count_bits(heap, marks, head, head + length - 1, capacity - 1)
    words = words_for(count)
    fits = (count + 1) * 8 <= words * 7
    heap[part + TILE_HEADER_WORDS + table] = table_word(words, 0, 0 if fits else shift_for(ttl_ms))
    target = table_at(heap, part, table, predicates, tables)
    heap[target : target + words] = 0
    for place in range(length):
        word = word_of(heap, column_at(position, capacity, column), capacity, (head + place) & (capacity - 1))
        if word != 0:
            time_ms = heap[row_at(position, capacity, head, place) + TIME_MS]
            see_value(heap, part, table, word, time_ms, newest_ms, predicates, tables)


@kernel
def _lacks_room(heap: Int64, position: int, tables: int) -> bool:
    """Whether tiles or a table are missing or full."""
    if heap[position + TILES_AT] == 0:
        return True
    part = position + heap[position + TILES_AT]
    for table in range(tables):
        if is_full(heap, part, table):
            return True
    return heap[part + TILE_COUNT] == heap[part + TILE_CAPACITY]


@kernel
def insert(
    slots: Int64, at: int, heap: Int64, heap_top: int, last: int, time_ms: int, amount: int, event_words: Int64,
    flags: int, columns: int, predicates: int, tables: int, tables_of: Int64, ring_events_max: int, ttl_ms: int,
    marked: int, previous: Int64, seen_keys: Int64, seen_stamps: Int64, seen_stamp: Int64, entries: Int64,
) -> int:  # fmt: skip
    """Puts an event into an entity; returns the new heap top. `last`: the newest place that is not after it."""
    before_ms = slots[at, NEWEST_MS]
    newest_ms = max(before_ms, time_ms)
    place = place_for(slots, at, heap, last, time_ms, amount, event_words, flags, columns, predicates)
    if slots[at, LENGTH] == slots[at, CAPACITY] and slots[at, CAPACITY] < ring_events_max:
        heap_top = grow_ring(slots, at, heap, heap_top, columns, predicates)
    drops = slots[at, LENGTH] == slots[at, CAPACITY]
    if drops and _lacks_room(heap, slots[at, POSITION], tables):
        heap_top = grow_tiles(
            slots, at, heap, heap_top, newest_ms, ttl_ms, columns, predicates, tables, tables_of, entries
        )
    position = slots[at, POSITION]
    slots[at, NEWEST_MS] = newest_ms
    heap[position + FIRST_MS] = min(heap[position + FIRST_MS], time_ms)
    if drops:
        part = position + heap[position + TILES_AT]
        sweep(heap, part, predicates, tables, before_ms, newest_ms)
        fold(heap, part, newest_ms, ttl_ms, predicates, tables)
        for column in range(columns):
            if tables_of[column] >= 0 and event_words[column] != 0:
                see_value(heap, part, tables_of[column], event_words[column], time_ms, newest_ms, predicates, tables)
        if place == 0:
            heap[position + DROPPED_MS] = max(heap[position + DROPPED_MS], time_ms)
            add_event(heap, part, newest_ms, ttl_ms, time_ms, amount, flags, predicates, tables)
            return heap_top
        _drop_into_tiles(slots, at, heap, part, newest_ms, ttl_ms, columns, predicates, tables)
        place -= 1
        for column in range(columns):
            previous[column] -= 1
    put(
        slots, at, heap, place, time_ms, amount, event_words, flags, columns, predicates, marked, previous,
        seen_keys, seen_stamps, seen_stamp,
    )  # fmt: skip
    return heap_top


@kernel
def _drop_into_tiles(
    slots: Int64, at: int, heap: Int64, part: int, newest_ms: int, ttl_ms: int, columns: int, predicates: int,
    tables: int,
) -> None:  # fmt: skip
    position, capacity, head = slots[at, POSITION], slots[at, CAPACITY], slots[at, HEAD]
    flags = 0
    for predicate in range(predicates):
        if has_bit(heap, bits_at(position, capacity, columns, NEWEST + columns + predicate), head):
            flags |= 1 << predicate
    time_ms = heap[row_at(position, capacity, head, 0) + TIME_MS]
    amount = amount_of(heap, position, capacity, head, 0)
    add_event(heap, part, newest_ms, ttl_ms, time_ms, amount, flags, predicates, tables)
    drop_oldest(slots, at, heap, columns, predicates)
