"""An entity as bytes, for the database: what cannot be derived, as short as it goes.

    version                     1 byte
    newest event time           varint (7 bits a byte, signed ones zigzag)
    what follows                1 byte: HAS_DROPPED | HAS_UNKNOWN | HAS_TILES
    newest - dropped, - unknown, - first event time     varints, where there are any
    ring                        length; times as differences; amounts; words of the columns as they are; predicate bits
    tiles                       count; of each: level, start, span, parts, quarters, accumulators
    tables                      of each: unit of its cells and the cells, or the values of the last TTL by hash

Everything that only makes reading quick (running totals, marks, places in a table) is made anew when a blob is read.
"""

import numpy as np
from numpy.typing import NDArray

from features.arena import CAPACITY, HEAD, KIND, LENGTH, NEVER, NEWEST_MS, POSITION
from features.bits import has_bit, set_bit
from features.jit import allocating, kernel
from features.program import COLUMNS, MARKED, PREDICATES, TABLES
from features.ring import (
    BASE_SQUARES,
    BASE_TOTAL,
    CAPACITY_MIN,
    DROPPED_MS,
    FIRST_MS,
    NEWEST,
    PEAK,
    TILES_AT,
    TIME_MS,
    TOTAL,
    UNKNOWN_MS,
    WORDS,
    amount_of,
    bits_at,
    column_at,
    mark_all,
    note_squares,
    put_word,
    ring_words,
    row_at,
    whole_lines,
    word_of,
)
from features.tiles import (
    ACCUMULATOR_WORDS,
    ACCUMULATORS,
    COUNT,
    LEVEL_MASK,
    LOW_32,
    NEXT_CHANGE_MS,
    PARTS,
    PARTS_WORDS,
    QUARTERS,
    QUARTERS_WORDS,
    SPAN,
    START,
    TILE_CAPACITY,
    TILE_COUNT,
    TILE_HEADER_WORDS,
    TILES_STEP,
    WIDTH_SHIFT,
    tile_at,
    tile_words,
)
from features.values import (
    TABLE_WORDS_MAX,
    TABLE_WORDS_MIN,
    cell_shift,
    fill_table,
    live_entries,
    table_at,
    table_capacity,
    table_word,
    words_for,
)

Int64 = NDArray[np.int64]
UInt8 = NDArray[np.uint8]
Int32 = NDArray[np.int32]

BLOB_VERSION = 2
HAS_DROPPED, HAS_UNKNOWN, HAS_TILES = 1, 2, 4
VARINT_BYTES_MAX = 10
WORD_BYTES = 8
HEADER_BYTES_MAX = 2 + 5 * VARINT_BYTES_MAX
# Level, start, span, parts, quarters and six numbers.
TILE_BYTES_MIN = 4 + PARTS_WORDS * WORD_BYTES + QUARTERS_WORDS + 6


@kernel
def blob_bytes_max(chosen: Int64, slots: Int64, heap: Int64, facts: Int64) -> int:
    """Bytes that the blobs of these slots take at most."""
    total = 0
    for slot in chosen:
        kind = slots[slot, KIND] & 255
        columns, predicates = facts[kind, COLUMNS], facts[kind, PREDICATES]
        length, position = slots[slot, LENGTH], slots[slot, POSITION]
        total += (
            HEADER_BYTES_MAX + length * (2 * VARINT_BYTES_MAX + WORD_BYTES * columns) + predicates * (length // 8 + 1)
        )
        if slots[slot, CAPACITY] and heap[position + TILES_AT]:
            total += VARINT_BYTES_MAX * (heap[position + WORDS] - heap[position + TILES_AT] + 2)
    return total


@kernel
def _write_varint(data: UInt8, at: int, value: int) -> int:
    """Writes a signed integer; returns where the next one goes."""
    zigzag = np.uint64((value << 1) ^ (value >> 63))
    while zigzag >= np.uint64(128):
        data[at] = np.uint8((zigzag & np.uint64(127)) | np.uint64(128))
        zigzag >>= np.uint64(7)
        at += 1
    data[at] = np.uint8(zigzag)
    return at + 1


@kernel
def _read_varint(data: UInt8, at: int, end: int) -> tuple[int, int]:
    """A signed integer and where the next one begins; past `end` where there is no whole one."""
    zigzag, shift = np.uint64(0), 0
    while at < end and shift < 64:
        byte = data[at]
        zigzag |= np.uint64(byte & 127) << np.uint64(shift)
        at += 1
        shift += 7
        if byte < 128:
            return int(np.int64(zigzag >> np.uint64(1)) ^ -np.int64(zigzag & np.uint64(1))), at
    return 0, end + 1


@kernel
def _write_word(data: UInt8, at: int, value: int) -> int:
    word = np.uint64(value)
    for byte in range(WORD_BYTES):
        data[at + byte] = np.uint8((word >> np.uint64(8 * byte)) & np.uint64(255))
    return at + WORD_BYTES


@kernel
def _read_word(data: UInt8, at: int) -> int:
    word = np.uint64(0)
    for byte in range(WORD_BYTES):
        word |= np.uint64(data[at + byte]) << np.uint64(8 * byte)
    return int(np.int64(word))


@allocating
def pack(chosen: Int64, slots: Int64, heap: Int64, facts: Int64, ttl_ms: int, entries: Int64, blobs: UInt8) -> Int64:
    """Writes the blobs of the chosen slots one after another; returns where each begins: int64[n + 1], in bytes."""
    starts = np.zeros(chosen.shape[0] + 1, np.int64)
    at = 0
    for i in range(chosen.shape[0]):
        slot = chosen[i]
        kind = slots[slot, KIND] & 255
        columns, predicates, tables = facts[kind, COLUMNS], facts[kind, PREDICATES], facts[kind, TABLES]
        position, newest_ms = slots[slot, POSITION], slots[slot, NEWEST_MS]
        dropped_ms, unknown_ms = heap[position + DROPPED_MS], heap[position + UNKNOWN_MS]
        tiles_at = heap[position + TILES_AT]
        blobs[at] = BLOB_VERSION
        at = _write_varint(blobs, at + 1, newest_ms)
        blobs[at] = (
            (HAS_DROPPED if dropped_ms != NEVER else 0)
            | (HAS_UNKNOWN if unknown_ms != NEVER else 0)
            | (HAS_TILES if tiles_at else 0)
        )
        at += 1
        if dropped_ms != NEVER:
            at = _write_varint(blobs, at, newest_ms - dropped_ms)
        if unknown_ms != NEVER:
            at = _write_varint(blobs, at, newest_ms - unknown_ms)
        if tiles_at:
            at = _write_varint(blobs, at, newest_ms - heap[position + FIRST_MS])
        at = _pack_ring(blobs, at, slots, slot, heap, columns, predicates)
        if tiles_at:
            at = _pack_tiles(blobs, at, heap, position + tiles_at, predicates, tables)
            oldest_ms = newest_ms - ttl_ms
            at = _pack_tables(blobs, at, heap, position + tiles_at, newest_ms, oldest_ms, predicates, tables, entries)
        starts[i + 1] = at
    return starts


@kernel
def _pack_ring(blobs: UInt8, at: int, slots: Int64, slot: int, heap: Int64, columns: int, predicates: int) -> int:
    length, capacity = slots[slot, LENGTH], slots[slot, CAPACITY]
    head, position = slots[slot, HEAD], slots[slot, POSITION]
    at = _write_varint(blobs, at, length)
    previous_ms = slots[slot, NEWEST_MS]
    for place in range(length):
        time_ms = heap[row_at(position, capacity, head, place) + TIME_MS]
        at = _write_varint(blobs, at, time_ms - previous_ms)
        previous_ms = time_ms
    for place in range(length):
        at = _write_varint(blobs, at, amount_of(heap, position, capacity, head, place))
    for column in range(columns):
        words = column_at(position, capacity, column)
        for place in range(length):
            at = _write_word(blobs, at, word_of(heap, words, capacity, (head + place) & (capacity - 1)))
    for predicate in range(predicates):
        bits = bits_at(position, capacity, columns, NEWEST + columns + predicate)
        for place in range(length):
            if place % 8 == 0:
                blobs[at + place // 8] = 0
            if has_bit(heap, bits, (head + place) & (capacity - 1)):
                blobs[at + place // 8] |= np.uint8(1 << (place % 8))
        at += (length + 7) // 8
    return at


@kernel
def _pack_tiles(blobs: UInt8, at: int, heap: Int64, part: int, predicates: int, tables: int) -> int:
    at = _write_varint(blobs, at, heap[part + TILE_COUNT])
    at = _write_varint(blobs, at, heap[part + NEXT_CHANGE_MS])
    previous = 0
    for index in range(heap[part + TILE_COUNT]):
        tile = tile_at(part, index, predicates, tables)
        blobs[at] = heap[tile + START] & LEVEL_MASK
        start = heap[tile + START] >> WIDTH_SHIFT
        at = _write_varint(blobs, at + 1, start - previous)
        previous = start
        first = heap[tile + SPAN] >> 32 & LOW_32
        at = _write_varint(blobs, at, first)
        at = _write_varint(blobs, at, (heap[tile + SPAN] & LOW_32) - first)
        for k in range(PARTS_WORDS):
            at = _write_word(blobs, at, heap[tile + PARTS + k])
        for quarter in range(QUARTERS_WORDS):
            at = _write_varint(blobs, at, heap[tile + QUARTERS + quarter])
        for accumulator in range(1 + predicates):
            words = tile + ACCUMULATORS + ACCUMULATOR_WORDS * accumulator
            for k in range(ACCUMULATOR_WORDS if heap[words + COUNT] else 1):
                at = _write_varint(blobs, at, heap[words + k])
    return at


@allocating
def _pack_tables(
    blobs: UInt8, at: int, heap: Int64, part: int, newest_ms: int, oldest_ms: int, predicates: int, tables: int,
    entries: Int64,
) -> int:  # fmt: skip
    for table in range(tables):
        shift = cell_shift(heap, part, table)
        words, capacity = table_at(heap, part, table, predicates, tables), table_capacity(heap, part, table)
        blobs[at] = shift
        at += 1
        if shift:
            for k in range(capacity):
                at = _write_word(blobs, at, heap[words + k])
            continue
        count = live_entries(heap, words, capacity, oldest_ms, entries)
        entries[:count].sort()
        at = _write_varint(blobs, at, count)
        previous = 0
        for k in range(count):
            at = _write_varint(blobs, at, (entries[k] >> 32) - previous)
            at = _write_varint(blobs, at, (newest_ms >> WIDTH_SHIFT) - (entries[k] & LOW_32))
            previous = entries[k] >> 32
    return at


@kernel
def newest_of(blob: UInt8) -> int:
    """The newest event time in a blob."""
    newest_ms, _ = _read_varint(blob, 1, blob.shape[0])
    return newest_ms


@kernel
def room_for(
    kinds: Int64, starts: Int64, blobs: UInt8, facts: Int64, block_words_max: int, ring_events_max: int
) -> int:
    """Heap words that the blocks of these blobs take at most; -1 - i where blob i is none."""
    total = 0
    for i in range(kinds.shape[0]):
        at, end = starts[i], starts[i + 1]
        if at == end or blobs[at] != BLOB_VERSION:
            return -1 - i
        _, at = _read_varint(blobs, at + 1, end)
        if at >= end:
            return -1 - i
        has = blobs[at]
        at += 1
        for bit in range(3):
            if has & (1 << bit):
                _, at = _read_varint(blobs, at, end)
        length, at = _read_varint(blobs, at, end)
        if at > end or length < 1 or length > ring_events_max:
            return -1 - i
        columns, predicates, tables = facts[kinds[i], COLUMNS], facts[kinds[i], PREDICATES], facts[kinds[i], TABLES]
        if has & HAS_TILES:
            # What follows the ring says how much there can be: a tile and an entry take some bytes each.
            rest = end - at
            words = ring_words(ring_events_max, columns, predicates) + TILE_HEADER_WORDS + tables
            words += (rest // TILE_BYTES_MIN + TILES_STEP) * tile_words(predicates)
            words += tables * min(TABLE_WORDS_MAX, rest + TABLE_WORDS_MIN)
            total += min(whole_lines(words), block_words_max)
        else:
            total += ring_words(_capacity_for(length), columns, predicates)
    return total


@kernel
def _capacity_for(length: int) -> int:
    capacity = CAPACITY_MIN
    while capacity < length:
        capacity *= 2
    return capacity


@kernel
def unpack(
    chosen: Int64, starts: Int64, blobs: UInt8, slots: Int64, heap: Int64, heap_top: int, facts: Int64,
    ring_events_max: int, entries: Int64, seen_keys: Int64, seen_stamps: Int64, seen_stamp: Int64,
) -> int:  # fmt: skip
    """Reads blobs, for which `room_for` found room, into empty slots. Returns the new heap top.

    -1 - i where blob i does not end where it should: then it was made of other columns.
    """
    for i in range(chosen.shape[0]):
        slot, at, end = chosen[i], starts[i], starts[i + 1]
        kind = slots[slot, KIND] & 255
        columns, predicates, tables = facts[kind, COLUMNS], facts[kind, PREDICATES], facts[kind, TABLES]
        position = heap_top
        newest_ms, at = _read_varint(blobs, at + 1, end)
        has = blobs[at]
        at += 1
        heap[position + DROPPED_MS] = heap[position + UNKNOWN_MS] = NEVER
        first_ms = NEVER
        if has & HAS_DROPPED:
            ago_ms, at = _read_varint(blobs, at, end)
            heap[position + DROPPED_MS] = newest_ms - ago_ms
        if has & HAS_UNKNOWN:
            ago_ms, at = _read_varint(blobs, at, end)
            heap[position + UNKNOWN_MS] = newest_ms - ago_ms
        if has & HAS_TILES:
            ago_ms, at = _read_varint(blobs, at, end)
            first_ms = newest_ms - ago_ms
        length, at = _read_varint(blobs, at, end)
        capacity = ring_events_max if has & HAS_TILES else _capacity_for(length)
        slots[slot, POSITION], slots[slot, CAPACITY], slots[slot, HEAD] = position, capacity, 0
        slots[slot, LENGTH], slots[slot, NEWEST_MS] = length, newest_ms
        at = _unpack_ring(blobs, at, end, slots, slot, heap, columns, predicates)
        if at > end:
            return -1 - i
        heap_top += ring_words(capacity, columns, predicates)
        heap[position + FIRST_MS] = first_ms if has & HAS_TILES else heap[row_at(position, capacity, 0, 0) + TIME_MS]
        heap[position + TILES_AT] = 0
        note_squares(heap, position, capacity, 0, 0, length - 1)
        mark_all(slots, slot, heap, columns, facts[kind, MARKED], seen_keys, seen_stamps, seen_stamp)
        if has & HAS_TILES:
            part = heap_top
            heap[position + TILES_AT] = part - position
            at = _unpack_tiles(blobs, at, end, heap, part, predicates, tables)
            at = _unpack_tables(blobs, at, end, heap, part, newest_ms, predicates, tables, entries)
            heap_top = position + whole_lines(table_at(heap, part, tables, predicates, tables) - position)
        heap[position + WORDS] = heap_top - position
        if at != end:
            return -1 - i
    return heap_top


@kernel
def _unpack_ring(
    blobs: UInt8, at: int, end: int, slots: Int64, slot: int, heap: Int64, columns: int, predicates: int
) -> int:
    length, capacity, position = slots[slot, LENGTH], slots[slot, CAPACITY], slots[slot, POSITION]
    heap[position + BASE_TOTAL] = heap[position + BASE_SQUARES] = 0
    time_ms, total, peak = slots[slot, NEWEST_MS], 0, 0
    for place in range(length):
        step_ms, at = _read_varint(blobs, at, end)
        time_ms += step_ms
        heap[row_at(position, capacity, 0, place) + TIME_MS] = time_ms
    for place in range(length):
        amount, at = _read_varint(blobs, at, end)
        total += amount
        peak = max(peak, abs(amount))
        heap[row_at(position, capacity, 0, place) + TOTAL] = total
    heap[position + PEAK] = peak
    packed = columns * length * WORD_BYTES + predicates * ((length + 7) // 8)
    if at + packed > end:
        return end + 1
    for column in range(columns):
        words = column_at(position, capacity, column)
        for place in range(length):
            put_word(heap, words, capacity, place, _read_word(blobs, at))
            at += WORD_BYTES
    for predicate in range(predicates):
        bits = bits_at(position, capacity, columns, NEWEST + columns + predicate)
        heap[bits : bits_at(position, capacity, columns, NEWEST + columns + predicate + 1)] = 0
        for place in range(length):
            if blobs[at + place // 8] >> (place % 8) & 1:
                set_bit(heap, bits, place)
        at += (length + 7) // 8
    return at


@kernel
def _unpack_tiles(blobs: UInt8, at: int, end: int, heap: Int64, part: int, predicates: int, tables: int) -> int:
    count, at = _read_varint(blobs, at, end)
    next_change_ms, at = _read_varint(blobs, at, end)
    heap[part + TILE_COUNT] = count
    heap[part + TILE_CAPACITY] = (count // TILES_STEP + 1) * TILES_STEP
    heap[part + NEXT_CHANGE_MS] = next_change_ms
    start = 0
    for index in range(count):
        tile = tile_at(part, index, predicates, tables)
        heap[tile : tile + tile_words(predicates)] = 0
        level = np.int64(blobs[at])
        step, at = _read_varint(blobs, at + 1, end)
        start += step
        first, at = _read_varint(blobs, at, end)
        span, at = _read_varint(blobs, at, end)
        heap[tile + START] = start << WIDTH_SHIFT | level
        heap[tile + SPAN] = first << 32 | (first + span)
        for k in range(PARTS_WORDS):
            heap[tile + PARTS + k] = _read_word(blobs, at)
            at += WORD_BYTES
        for quarter in range(QUARTERS_WORDS):
            heap[tile + QUARTERS + quarter], at = _read_varint(blobs, at, end)
        for accumulator in range(1 + predicates):
            words = tile + ACCUMULATORS + ACCUMULATOR_WORDS * accumulator
            heap[words], at = _read_varint(blobs, at, end)
            if heap[words]:
                for k in range(1, ACCUMULATOR_WORDS):
                    heap[words + k], at = _read_varint(blobs, at, end)
    return at


@kernel
def _unpack_tables(
    blobs: UInt8, at: int, end: int, heap: Int64, part: int, newest_ms: int, predicates: int, tables: int,
    entries: Int64,
) -> int:  # fmt: skip
    for table in range(tables):
        shift = int(np.int64(blobs[at]))
        at += 1
        if shift:
            heap[part + TILE_HEADER_WORDS + table] = table_word(TABLE_WORDS_MAX, 0, shift)
            words = table_at(heap, part, table, predicates, tables)
            for k in range(TABLE_WORDS_MAX):
                heap[words + k] = _read_word(blobs, at)
                at += WORD_BYTES
            continue
        count, at = _read_varint(blobs, at, end)
        mark = 0
        for k in range(count):
            step, at = _read_varint(blobs, at, end)
            ago, at = _read_varint(blobs, at, end)
            mark += step
            entries[k] = mark << 32 | ((newest_ms >> WIDTH_SHIFT) - ago)
        capacity = words_for(count)
        heap[part + TILE_HEADER_WORDS + table] = table_word(capacity, count, 0)
        fill_table(heap, table_at(heap, part, table, predicates, tables), capacity, entries, count)
    return at
