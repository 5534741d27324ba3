"""The memory that entity state lives in: one table, one array of slots, one heap of ring rows.

An entity is a *slot*: a row of `slots`, one cache line of eight int64 words. Its events are a *ring* on the heap: for
`cap` places the words [time x cap][amount x cap][hash of the first distinct field x cap]..., sorted by all of these in
turn from `head` on, wrapping. So what a ring holds, and what it drops when it is full, depends on the events alone and
not on the order in which they came: events that tie in everything stored are interchangeable. Heap rows are taken from
the top; rows given up by growth or eviction are reclaimed by `compact`.

On its way to disk a ring is a *blob*: version, length, newest dropped time, times as differences, amounts (all as
variable-length integers, 7 bits a byte, signed ones zigzag), then the hashes as they are.

These are plain functions over arrays. numba checks no bounds: whoever calls makes room first (`room_needed`).
"""

import numpy as np
from numpy.typing import NDArray

from features.jit import kernel

Int64 = NDArray[np.int64]
UInt8 = NDArray[np.uint8]
UInt64 = NDArray[np.uint64]
Int32 = NDArray[np.int32]

KEY, POSITION, CAPACITY, HEAD, LENGTH, DROPPED_MS, TICK, KIND = range(8)
SLOT_WORDS = 8
# Bits of the KIND word beside the entity's index: changed since the last snapshot; awaiting its turn in that snapshot.
DIRTY, PENDING = 256, 512

# Newest dropped time of an entity of which nothing was ever dropped.
NEVER = -(2**62)

CAPACITY_MIN = 4
RING_WORDS = 2  # time, amount; then one word per distinct field
BLOB_VERSION = 1
VARINT_BYTES_MAX = 10
HASH_BYTES = 8

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def table_size(slots_max: int) -> int:
    """Entries of a lookup table for so many slots: a power of two, at most half full."""
    return 1 << (2 * slots_max - 1).bit_length()


def room_needed(events: int, distinct_counts: Int64, ring_events_max: int) -> int:
    """Heap words that a batch of so many events can take at worst.

    Every entity of every event is read back, into a row of half the largest size, and then outgrows it.
    """
    return int(events * np.sum((RING_WORDS + distinct_counts) * (ring_events_max + ring_events_max // 2)))


@kernel
def _bucket(key: np.uint64, kind: int, mask: int) -> int:
    mixed = (key ^ np.uint64(kind)) * _GOLDEN
    return int(np.int64(mixed >> np.uint64(20)) & mask)


@kernel
def resolve(
    hashes: UInt64,
    entities: int,
    table: Int32,
    slots: Int64,
    used: int,
    tick: int,
    floor_ms: int,
    found: Int32,
    missing: Int32,
) -> int:
    """Finds the slot of every key of a batch, and opens an empty one for each key that is not in memory.

    `hashes[n, >=entities]`, 0 = absent. Writes `found[n, entities]` (-1 = absent) and the new slots to `missing`
    (room for n x entities). Returns how many slots are used now.
    """
    mask = table.shape[0] - 1
    first_new = used
    for row in range(hashes.shape[0]):
        for kind in range(entities):
            key = hashes[row, kind]
            if key == 0:
                found[row, kind] = -1
                continue
            place = _bucket(key, kind, mask)
            slot = table[place]
            while slot >= 0 and not (np.uint64(slots[slot, KEY]) == key and slots[slot, KIND] & 255 == kind):
                place = (place + 1) & mask
                slot = table[place]
            if slot < 0:
                slot = used
                used += 1
                table[place] = slot
                slots[slot, KEY] = np.int64(key)
                slots[slot, POSITION] = 0
                slots[slot, CAPACITY] = 0
                slots[slot, HEAD] = 0
                slots[slot, LENGTH] = 0
                slots[slot, DROPPED_MS] = floor_ms
                slots[slot, KIND] = kind
                missing[slot - first_new] = slot
            slots[slot, TICK] = tick
            found[row, kind] = slot
    return used


@kernel
def rebuild_table(table: Int32, slots: Int64, used: int) -> None:
    """Fills the table anew from the slots."""
    mask = table.shape[0] - 1
    table[:] = -1
    for slot in range(used):
        place = _bucket(np.uint64(slots[slot, KEY]), slots[slot, KIND] & 255, mask)
        while table[place] >= 0:
            place = (place + 1) & mask
        table[place] = slot


@kernel
def ring_words(chosen: Int32, slots: Int64, distinct_counts: Int64) -> int:
    """Heap words that the rings of these slots take."""
    total = 0
    for slot in chosen:
        total += (RING_WORDS + distinct_counts[slots[slot, KIND] & 255]) * slots[slot, CAPACITY]
    return total


@kernel
def blob_bytes_max(chosen: Int64, slots: Int64, distinct_counts: Int64) -> int:
    """Bytes that the blobs of these slots take at most."""
    total = 0
    for slot in chosen:
        width = RING_WORDS * VARINT_BYTES_MAX + HASH_BYTES * distinct_counts[slots[slot, KIND] & 255]
        total += 1 + 2 * VARINT_BYTES_MAX + width * slots[slot, LENGTH]
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
    while at < end:
        byte = data[at]
        zigzag |= np.uint64(byte & 127) << np.uint64(shift)
        at += 1
        shift += 7
        if byte < 128:
            return int(np.int64(zigzag >> np.uint64(1)) ^ -np.int64(zigzag & np.uint64(1))), at
        if shift > 63:
            break
    return 0, end + 1


@kernel
def pack(chosen: Int64, slots: Int64, heap: Int64, distinct_counts: Int64, blobs: UInt8) -> Int64:
    """Writes the blobs of the chosen slots one after another; returns where each begins: int64[n + 1], in bytes."""
    starts = np.zeros(chosen.shape[0] + 1, np.int64)
    at = 0
    for i in range(chosen.shape[0]):
        slot = chosen[i]
        length, capacity = slots[slot, LENGTH], slots[slot, CAPACITY]
        head, position = slots[slot, HEAD], slots[slot, POSITION]
        blobs[at] = BLOB_VERSION
        at = _write_varint(blobs, at + 1, length)
        at = _write_varint(blobs, at, slots[slot, DROPPED_MS])
        previous_ms = 0
        for k in range(length):
            time_ms = heap[position + ((head + k) & (capacity - 1))]
            at = _write_varint(blobs, at, time_ms - previous_ms)
            previous_ms = time_ms
        for k in range(length):
            at = _write_varint(blobs, at, heap[position + capacity + ((head + k) & (capacity - 1))])
        for field in range(distinct_counts[slots[slot, KIND] & 255]):
            base = position + (RING_WORDS + field) * capacity
            for k in range(length):
                word = np.uint64(heap[base + ((head + k) & (capacity - 1))])
                for byte in range(HASH_BYTES):
                    blobs[at + byte] = np.uint8((word >> np.uint64(8 * byte)) & np.uint64(255))
                at += HASH_BYTES
        starts[i + 1] = at
    return starts


@kernel
def unpack(
    chosen: Int64,
    starts: Int64,
    blobs: UInt8,
    slots: Int64,
    heap: Int64,
    distinct_counts: Int64,
    ring_events_max: int,
    heap_top: int,
) -> int:
    """Reads packed blobs into empty slots. Returns the new heap top, or -1 - i where blob i is not one of ours."""
    for i in range(chosen.shape[0]):
        slot, at, end = chosen[i], starts[i], starts[i + 1]
        if at == end or blobs[at] != BLOB_VERSION:
            return -1 - i
        length, at = _read_varint(blobs, at + 1, end)
        dropped_ms, at = _read_varint(blobs, at, end)
        if at > end or length < 0 or length > min(end - at, ring_events_max):
            return -1 - i
        capacity = CAPACITY_MIN
        while capacity < length:
            capacity *= 2
        time_ms = 0
        for k in range(length):
            step_ms, at = _read_varint(blobs, at, end)
            time_ms += step_ms
            heap[heap_top + k] = time_ms
        for k in range(length):
            heap[heap_top + capacity + k], at = _read_varint(blobs, at, end)
        fields = distinct_counts[slots[slot, KIND] & 255]
        if at + fields * length * HASH_BYTES != end:
            return -1 - i
        for field in range(fields):
            for k in range(length):
                word = np.uint64(0)
                for byte in range(HASH_BYTES):
                    word |= np.uint64(blobs[at + byte]) << np.uint64(8 * byte)
                heap[heap_top + (RING_WORDS + field) * capacity + k] = np.int64(word)
                at += HASH_BYTES
        slots[slot, POSITION] = heap_top
        slots[slot, CAPACITY] = capacity
        slots[slot, HEAD] = 0
        slots[slot, LENGTH] = length
        slots[slot, DROPPED_MS] = dropped_ms
        heap_top += (RING_WORDS + fields) * capacity
    return heap_top


@kernel
def freeze(chosen: Int32, slots: Int64) -> None:
    """Turns dirty slots into pending ones: what they hold now is what a snapshot will write."""
    for slot in chosen:
        slots[slot, KIND] = (slots[slot, KIND] & ~DIRTY) | PENDING


@kernel
def take_pending(found: Int32, slots: Int64, pending: Int64) -> int:
    """Collects the pending slots among those of a batch into `pending`, each once, and ends their waiting."""
    count = 0
    for row in range(found.shape[0]):
        for kind in range(found.shape[1]):
            slot = found[row, kind]
            if slot >= 0 and slots[slot, KIND] & PENDING:
                slots[slot, KIND] &= ~PENDING
                pending[count] = slot
                count += 1
    return count


@kernel
def compact(kept: Int64, slots: Int64, heap: Int64, distinct_counts: Int64) -> int:
    """Slides the kept slots (ascending heap position) and their rows down over what is given up.

    The slots are renumbered 0..len(kept); rebuild the table afterwards. Returns the new heap top.
    """
    top = 0
    moved = np.empty((kept.shape[0], SLOT_WORDS), np.int64)
    for i in range(kept.shape[0]):
        moved[i] = slots[kept[i]]
    for i in range(kept.shape[0]):
        words = (RING_WORDS + distinct_counts[moved[i, KIND] & 255]) * moved[i, CAPACITY]
        position = moved[i, POSITION]
        for k in range(words):
            heap[top + k] = heap[position + k]
        moved[i, POSITION] = top
        top += words
        slots[i] = moved[i]
    return top
