"""What the next events need, asked for while the events before them are computed.

An event far ahead needs its slot, then the head of its block, then what lies within: rows, squares, columns, tiles. A
core waits for some sixteen lines at once and for the next one does nothing else, so what lies within is asked for in
four portions, between the parts of the computation.
"""

import numpy as np
from numpy.typing import NDArray

from features.arena import CAPACITY, HEAD, LENGTH, LINE_WORDS, POSITION
from features.jit import inlined
from features.prefetch import prefetch
from features.program import COLUMNS, PREDICATES, TABLES
from features.ring import (
    HEADER_WORDS,
    NEWEST,
    ROW_WORDS,
    TILES_AT,
    UPPER_BYTES,
    WORD_BYTES,
    bits_at,
    column_at,
    extremes_at,
)
from features.tiles import TILE_COUNT, tile_at
from features.values import place_of_value
from features.windows import LINE_ROWS

Int64 = NDArray[np.int64]
UInt64 = NDArray[np.uint64]
Int32 = NDArray[np.int32]
UInt16 = NDArray[np.uint16]

# How many events ahead slots, the heads of blocks and what lies within them are asked for.
SLOT_AHEAD, BLOCK_AHEAD, RING_AHEAD, TILES_AHEAD = 6, 4, 2, 1


@inlined
def ask_for_entities(
    event: int, words: UInt64, found: Int32, slots: Int64, edges: UInt16, heap: Int64, facts: Int64,
    columns_of: Int64, tables_of: Int64,
) -> None:  # fmt: skip
    """Asks for the slots, heads of blocks and tiles of the entities of later events."""
    for kind in range(found.shape[1]):
        at = slot_ahead(event + SLOT_AHEAD, kind, found)
        prefetch(slots, at)
        prefetch(edges, at)
    for kind in range(found.shape[1]):
        prefetch(heap, slots[slot_ahead(event + BLOCK_AHEAD, kind, found), POSITION])
    for kind in range(found.shape[1]):
        position = slots[slot_ahead(event + RING_AHEAD, kind, found), POSITION]
        prefetch(heap, position + heap[position + TILES_AT])
    later = min(event + TILES_AHEAD, found.shape[0] - 1)
    for kind in range(found.shape[1]):
        at = found[later, kind]
        position = slots[max(at, 0), POSITION]
        # Read here, so it has to be there.
        if at >= 0 and slots[at, CAPACITY] and heap[position + TILES_AT]:
            _ask_for_tiles(
                heap, position + heap[position + TILES_AT], words[later], facts[kind, COLUMNS],
                facts[kind, PREDICATES], facts[kind, TABLES], columns_of[kind], tables_of[kind],
            )  # fmt: skip


@inlined
def slot_ahead(event: int, kind: int, found: Int32) -> int:
    """The slot of an event's entity, or any other where there is no such event or entity: good enough to ask for."""
    return max(found[min(event, found.shape[0] - 1), kind], 0)


@inlined
def _ask_for_tiles(
    heap: Int64, part: int, words: UInt64, columns: int, predicates: int, tables: int, columns_of: Int64,
    tables_of: Int64,
) -> None:  # fmt: skip
    """Asks for the newest tile of an entity, and for where its tables have the event's values."""
    newest = tile_at(part, heap[part + TILE_COUNT] - 1, predicates, tables)
    prefetch(heap, newest)
    prefetch(heap, newest + LINE_WORDS)
    for column in range(columns):
        if tables_of[column] >= 0:
            word = int(np.int64(words[columns_of[column]]))
            prefetch(heap, place_of_value(heap, part, tables_of[column], word, predicates, tables))


@inlined
def ask_for_edges(slots: Int64, at: int, edges: UInt16, heap: Int64, first: int, end: int) -> None:
    """Asks for where these windows of an entity began, and for the line after it, where most of the others begin."""
    rows, mask = slots[at, POSITION] + HEADER_WORDS, slots[at, CAPACITY] - 1
    for window in range(first, end):
        prefetch(heap, rows + ROW_WORDS * (edges[window] & mask))
        prefetch(heap, rows + ROW_WORDS * ((edges[window] + LINE_ROWS) & mask))


@inlined
def ask_for_squares(slots: Int64, at: int, heap: Int64) -> None:
    """Asks for an entity's newest row and for its squares."""
    position, capacity = slots[at, POSITION], slots[at, CAPACITY]
    rows = position + HEADER_WORDS
    prefetch(heap, rows + ROW_WORDS * ((slots[at, HEAD] + slots[at, LENGTH] - 1) & (capacity - 1)))
    for line in range(rows + ROW_WORDS * capacity, column_at(position, capacity, 0), LINE_WORDS):
        prefetch(heap, line)


@inlined
def ask_for_columns(slots: Int64, at: int, heap: Int64, columns: int, tables_of: Int64, marked: int) -> None:
    """Asks for where the next words go, the tags that are searched, extremes and bit sets."""
    position, capacity = slots[at, POSITION], slots[at, CAPACITY]
    next_place = (slots[at, HEAD] + slots[at, LENGTH]) & (capacity - 1)
    for column in range(columns):
        words = column_at(position, capacity, column)
        prefetch(heap, words + UPPER_BYTES * next_place // WORD_BYTES)
        tags = words + UPPER_BYTES * capacity // WORD_BYTES
        for line in range(tags, words + capacity, LINE_WORDS):
            prefetch(heap, line)
    for number in range(NEWEST):
        if marked >> number & 1:
            prefetch(heap, extremes_at(position, capacity, columns, number))
    bits = bits_at(position, capacity, columns, 0)
    for line in range(bits, bits_at(position, capacity, columns, NEWEST + columns), LINE_WORDS):
        prefetch(heap, line)
