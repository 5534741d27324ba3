"""The memory that entity state lives in: one table, one array of slots, one heap of blocks.

An entity is a *slot*: a row of `slots`, one cache line of eight int64 words. Its events and tiles are a *block* on the
heap (features.ring, features.tiles); the first word of a block is its length. Blocks are taken from the top; what is
given up by growth or eviction is reclaimed by `compact`.

These are plain functions over arrays. numba checks no bounds: whoever calls makes room first.
"""

import numpy as np
from numpy.typing import NDArray

from features.jit import allocating, inlined, kernel
from features.prefetch import prefetch

Int64 = NDArray[np.int64]
UInt64 = NDArray[np.uint64]
Int32 = NDArray[np.int32]
UInt16 = NDArray[np.uint16]

KEY, POSITION, CAPACITY, HEAD, LENGTH, NEWEST_MS, TICK, KIND = range(8)
SLOT_WORDS = 8
LINE_WORDS = 8  # int64 words in a cache line
# How many rows ahead entries of the table and slots are asked for.
TABLE_AHEAD, SLOT_AHEAD = 16, 8
# Bits of the KIND word beside the entity's index: changed since the last snapshot; awaiting its turn in that snapshot;
# with a row in the database, or in the snapshot on its way there.
DIRTY, PENDING, STORED = 256, 512, 1024

# Earlier than any event: the newest dropped time of an entity of which nothing was ever dropped.
NEVER = -(2**62)

WORDS = 0

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def aligned_words(count: int) -> Int64:
    """So many words, reserved and not touched, that begin with a cache line."""
    words = np.empty(count + LINE_WORDS, np.int64)
    skipped = -words.ctypes.data // words.itemsize % LINE_WORDS
    return words[skipped : skipped + count]


def table_size(slots_max: int) -> int:
    """Entries of a lookup table for so many slots: a power of two, at most half full."""
    return 1 << (2 * slots_max - 1).bit_length()


@inlined
def _bucket(key: np.uint64, kind: int, mask: int) -> int:
    mixed = (key ^ np.uint64(kind)) * _GOLDEN
    return int(np.int64(mixed >> np.uint64(20)) & mask)


@inlined
def _place_of(key: np.uint64, kind: int, table: Int32, slots: Int64) -> int:
    """Where in the table the slot of an entity stands, or would stand."""
    mask = table.shape[0] - 1
    place = _bucket(key, kind, mask)
    slot = table[place]
    while slot >= 0 and not (np.uint64(slots[slot, KEY]) == key and slots[slot, KIND] & 255 == kind):
        place = (place + 1) & mask
        slot = table[place]
    return place


@kernel
def resolve(
    words: UInt64, entities: int, table: Int32, slots: Int64, used: int, tick: int, found: Int32, missing: Int32
) -> int:
    """Finds the slot of every key of a batch, and opens an empty one for each key that is not in memory.

    `words[n, >=entities]`, of which the first are keys, 0 = absent. Writes `found[n, entities]` (-1 = absent) and the
    new slots to `missing` (room for n x entities). Returns how many slots are used now.
    """
    first_new, mask = used, table.shape[0] - 1
    for row in range(words.shape[0]):
        if row + TABLE_AHEAD < words.shape[0]:
            for kind in range(entities):
                prefetch(table, _bucket(words[row + TABLE_AHEAD, kind], kind, mask))
        if row + SLOT_AHEAD < words.shape[0]:
            for kind in range(entities):
                prefetch(slots, max(table[_bucket(words[row + SLOT_AHEAD, kind], kind, mask)], 0))
        for kind in range(entities):
            key = words[row, kind]
            if key == 0:
                found[row, kind] = -1
                continue
            place = _place_of(key, kind, table, slots)
            slot = table[place]
            if slot < 0:
                slot = used
                used += 1
                table[place] = slot
                slots[slot] = 0
                slots[slot, KEY] = np.int64(key)
                slots[slot, NEWEST_MS] = NEVER
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
def block_words(chosen: Int32, slots: Int64, heap: Int64) -> int:
    """Heap words that the blocks of these slots take."""
    total = 0
    for slot in chosen:
        if slots[slot, CAPACITY]:
            total += heap[slots[slot, POSITION] + WORDS]
    return total


@kernel
def count_new(chosen: Int32, slots: Int64, counts: Int64) -> None:
    """Adds those of these slots that have no row in the database to `counts[E]`, by entity."""
    for slot in chosen:
        counts[slots[slot, KIND] & 255] += slots[slot, KIND] & STORED == 0


@kernel
def freeze(chosen: Int32, slots: Int64, shards: int, buckets: UInt16) -> None:
    """Turns dirty slots into pending ones: what they hold now is what a snapshot will write.

    Writes to `buckets[n]` what a slot's row is sorted by first: its entity, and in which of so many shards its key is.
    """
    for k in range(chosen.shape[0]):
        if k + SLOT_AHEAD < chosen.shape[0]:
            prefetch(slots, chosen[k + SLOT_AHEAD])
        slot = chosen[k]
        kind = slots[slot, KIND]
        buckets[k] = (kind & 255) * shards + np.int64(np.uint64(slots[slot, KEY]) % np.uint64(shards))
        slots[slot, KIND] = (kind & ~DIRTY) | PENDING | STORED


@kernel
def find_slots(kinds: Int64, keys: UInt64, table: Int32, slots: Int64, found: Int32) -> None:
    """Writes the slot of each of these entities to `found`, -1 where it is not in memory."""
    for k in range(keys.shape[0]):
        found[k] = table[_place_of(keys[k], kinds[k], table, slots)]


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


@allocating
def compact(kept: Int64, slots: Int64, heap: Int64) -> int:
    """Slides the kept slots (ascending heap position) and their blocks down over what is given up.

    The slots are renumbered 0..len(kept); rebuild the table afterwards. Returns the new heap top.
    """
    top = 0
    moved = np.empty((kept.shape[0], SLOT_WORDS), np.int64)
    for i in range(kept.shape[0]):
        moved[i] = slots[kept[i]]
    for i in range(kept.shape[0]):
        if moved[i, CAPACITY]:
            position = moved[i, POSITION]
            words = heap[position + WORDS]
            for k in range(words):
                heap[top + k] = heap[position + k]
            moved[i, POSITION] = top
            top += words
        slots[i] = moved[i]
    return top
