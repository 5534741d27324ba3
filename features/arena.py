"""The memory that entity state lives in: one table, one array of slots, one heap of ring rows.

An entity is a *slot*: a row of `slots`, one cache line of eight int64 words. Its events are a *ring* on the heap: for
`cap` places the words [time x cap][sequence x cap][amount x cap][hash of the first distinct field x cap]..., sorted by
(time, sequence) from `head` on, wrapping. Sequence is partition << 47 | offset, so that the order of a ring depends on
the events alone. Heap rows are taken from the top; rows given up by growth or eviction are reclaimed by `compact`.

These are plain functions over arrays. numba checks no bounds: whoever calls makes room first (`room_needed`).
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

Int64 = NDArray[np.int64]
UInt64 = NDArray[np.uint64]
Int32 = NDArray[np.int32]

KEY, POSITION, CAPACITY, HEAD, LENGTH, DROPPED_MS, TICK, KIND = range(8)
SLOT_WORDS = 8
DIRTY = 256  # bit of the KIND word beside the entity's index

# Newest dropped time of an entity of which nothing was ever dropped.
NEVER = -(2**62)

CAPACITY_MIN = 4
RING_WORDS = 3  # time, sequence, amount; then one word per distinct field
BLOB_HEADER_WORDS = 2
BLOB_VERSION = 1

OFFSET_BITS = 47
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def table_size(slots_max: int) -> int:
    """Entries of a lookup table for so many slots: a power of two, at most half full."""
    return 1 << (2 * slots_max - 1).bit_length()


def room_needed(events: int, distinct_counts: Int64, ring_events_max: int) -> int:
    """Heap words that a batch of so many events can take at worst: every entity of every event outgrows its row."""
    return int(events * np.sum((RING_WORDS + distinct_counts) * ring_events_max))


@njit(cache=True)
def _bucket(key: np.uint64, kind: int, mask: int) -> int:
    mixed = (key ^ np.uint64(kind)) * _GOLDEN
    return np.int64(mixed >> np.uint64(20)) & mask


@njit(cache=True)
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


@njit(cache=True)
def rebuild_table(table: Int32, slots: Int64, used: int) -> None:
    """Fills the table anew from the slots."""
    mask = table.shape[0] - 1
    table[:] = -1
    for slot in range(used):
        place = _bucket(np.uint64(slots[slot, KEY]), slots[slot, KIND] & 255, mask)
        while table[place] >= 0:
            place = (place + 1) & mask
        table[place] = slot


@njit(cache=True)
def blob_words(chosen: Int64, slots: Int64, distinct_counts: Int64) -> Int64:
    """Where each chosen slot's blob begins when they are packed one after another: int64[n + 1], in words."""
    starts = np.zeros(chosen.shape[0] + 1, np.int64)
    for i in range(chosen.shape[0]):
        slot = chosen[i]
        width = RING_WORDS + distinct_counts[slots[slot, KIND] & 255]
        starts[i + 1] = starts[i] + BLOB_HEADER_WORDS + width * slots[slot, LENGTH]
    return starts


@njit(cache=True)
def pack(chosen: Int64, starts: Int64, slots: Int64, heap: Int64, distinct_counts: Int64, blobs: Int64) -> None:
    """Writes each chosen slot as a blob: [version << 32 | events, newest dropped time, times, sequences, amounts, ...]."""
    for i in range(chosen.shape[0]):
        slot = chosen[i]
        length, capacity = slots[slot, LENGTH], slots[slot, CAPACITY]
        head, position = slots[slot, HEAD], slots[slot, POSITION]
        to = starts[i]
        blobs[to] = (BLOB_VERSION << 32) | length
        blobs[to + 1] = slots[slot, DROPPED_MS]
        to += BLOB_HEADER_WORDS
        for column in range(RING_WORDS + distinct_counts[slots[slot, KIND] & 255]):
            base = position + column * capacity
            for k in range(length):
                blobs[to] = heap[base + ((head + k) & (capacity - 1))]
                to += 1


@njit(cache=True)
def unpack(
    chosen: Int64, starts: Int64, blobs: Int64, slots: Int64, heap: Int64, distinct_counts: Int64, heap_top: int
) -> int:
    """Reads packed blobs into empty slots. Returns the new heap top, or -1 - i where blob i is not one of ours."""
    for i in range(chosen.shape[0]):
        slot = chosen[i]
        at = starts[i]
        length = blobs[at] & 0xFFFFFFFF
        width = RING_WORDS + distinct_counts[slots[slot, KIND] & 255]
        if blobs[at] >> 32 != BLOB_VERSION or starts[i + 1] - at != BLOB_HEADER_WORDS + width * length:
            return -1 - i
        capacity = CAPACITY_MIN
        while capacity < length:
            capacity *= 2
        slots[slot, DROPPED_MS] = blobs[at + 1]
        slots[slot, POSITION] = heap_top
        slots[slot, CAPACITY] = capacity
        slots[slot, HEAD] = 0
        slots[slot, LENGTH] = length
        at += BLOB_HEADER_WORDS
        for column in range(width):
            base = heap_top + column * capacity
            for k in range(length):
                heap[base + k] = blobs[at]
                at += 1
        heap_top += width * capacity
    return heap_top


@njit(cache=True)
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
