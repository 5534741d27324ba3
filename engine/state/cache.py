"""Entities in memory: the arrays that the kernel works on, within a fixed byte budget.

All arrays are reserved once and touched as they fill, so memory grows with the entities that are hot and never past the
budget. Entities that changed since the last flush are dirty and stay; clean ones may be given up for room.
"""

import itertools

import numpy as np
from numpy.typing import NDArray

from engine.errors import FatalError
from engine.state.keys import entity_keys
from engine.state.store import Store
from features.arena import (
    CAPACITY,
    DIRTY,
    KEY,
    KIND,
    LENGTH,
    NEVER,
    POSITION,
    RING_WORDS,
    SLOT_WORDS,
    TICK,
    blob_bytes_max,
    compact,
    pack,
    rebuild_table,
    resolve,
    ring_words,
    room_needed,
    table_size,
    unpack,
)

Int64 = NDArray[np.int64]
UInt8 = NDArray[np.uint8]
UInt64 = NDArray[np.uint64]
Int32 = NDArray[np.int32]

# Of the budget, the share for slots and table against ring rows; both bind at about 200 bytes of ring per entity.
SLOTS_SHARE = 0.3
BYTES_PER_SLOT = 8 * SLOT_WORDS + 4 + 2 * 2 * 4
# How full the heap stays when room is made: half, so that it is seldom needed.
KEPT_SHARE = 0.5


class HotCache:
    """The slots, rings and lookup table of every entity in memory."""

    def __init__(self, store: Store | None, distinct_counts: Int64, ring_events_max: int, bytes_max: int) -> None:
        """`store` is where misses are read from; None keeps everything in memory and starts from nothing."""
        self._store = store
        self.distinct_counts = distinct_counts
        self.ring_events_max = ring_events_max
        self._slots_max = int(bytes_max * SLOTS_SHARE) // BYTES_PER_SLOT
        self.slots = np.empty((self._slots_max, SLOT_WORDS), np.int64)
        self.heap = np.empty(int(bytes_max * (1 - SLOTS_SHARE)) // 8, np.int64)
        self.table = np.full(table_size(self._slots_max), -1, np.int32)
        self.dirty = np.empty(self._slots_max, np.int32)
        self.heap_top = 0
        self.used = 0
        self.dirty_count = 0
        self.hits = 0
        self.misses = 0
        self.floor_ms = NEVER
        self.new_entities = np.zeros(len(distinct_counts), np.int64)
        self._tick = 0

    def events_max(self) -> int:
        """How many events one batch may have so that room for it can always be made."""
        by_heap = len(self.heap) // 4 // room_needed(1, self.distinct_counts, self.ring_events_max)
        by_slots = self._slots_max // 4 // len(self.distinct_counts)
        return max(1, min(by_heap, by_slots))

    def has_room(self, events: int) -> bool:
        """Whether a batch of so many events fits whatever it holds."""
        heap_words = room_needed(events, self.distinct_counts, self.ring_events_max)
        slots = events * len(self.distinct_counts)
        return self.heap_top + heap_words <= len(self.heap) and self.used + slots <= self._slots_max

    def make_room(self, events: int) -> None:
        """Gives up the clean entities that were used least recently; FatalError where the dirty ones alone fill it.

        Whatever is given up must already be in the database.
        """
        slots = self.slots[: self.used]
        is_dirty = (slots[:, KIND] & DIRTY) != 0
        words = (RING_WORDS + self.distinct_counts[slots[:, KIND] & 255]) * slots[:, CAPACITY]
        newest_first = np.argsort(np.where(is_dirty, np.iinfo(np.int64).max, slots[:, TICK]))[::-1]
        fits = np.cumsum(words[newest_first]) <= len(self.heap) * KEPT_SHARE
        fits &= np.arange(self.used) < self._slots_max * KEPT_SHARE
        kept = newest_first[fits | is_dirty[newest_first]]
        kept = kept[np.argsort(slots[kept, POSITION], kind="stable")]
        self.heap_top = compact(kept, self.slots, self.heap, self.distinct_counts)
        self.used = len(kept)
        rebuild_table(self.table, self.slots, self.used)
        still_dirty = np.flatnonzero(self.slots[: self.used, KIND] & DIRTY)
        self.dirty_count = len(still_dirty)
        self.dirty[: self.dirty_count] = still_dirty
        if not self.has_room(events):
            raise FatalError("state.cache_bytes_max is too small for the entities that changed since the last flush")

    def find(self, hashes: UInt64) -> Int32:
        """The slot of each entity of each event, int32[n, E], -1 where absent; misses are read from the database."""
        events, entities = len(hashes), len(self.distinct_counts)
        found = np.empty((events, entities), np.int32)
        missing = np.empty(events * entities, np.int32)
        self._tick += 1
        before = self.used
        self.used = resolve(
            hashes, entities, self.table, self.slots, self.used, self._tick, self.floor_ms, found, missing
        )
        opened = self.used - before
        self.misses += opened
        self.hits += int(np.count_nonzero(found >= 0)) - opened
        if opened:
            self._load(missing[:opened].astype(np.int64))
        return found

    def _load(self, slots: Int64) -> None:
        kinds = self.slots[slots, KIND] & 255
        if self._store is None:
            self.new_entities += np.bincount(kinds, minlength=len(self.new_entities))
            return
        keys = entity_keys(kinds, self.slots[slots, KEY].view(np.uint64))
        blobs = self._store.get_many(keys)
        known = np.array([blob is not None for blob in blobs], np.bool_)
        self.new_entities += np.bincount(kinds[~known], minlength=len(self.new_entities))
        if not known.any():
            return
        self.read_back([blob for blob in blobs if blob is not None], slots[known])

    def read_back(self, blobs: list[bytes], slots: Int64) -> None:
        """Unpacks one blob into each of these empty slots; FatalError where one is not what was packed."""
        starts = np.zeros(len(blobs) + 1, np.int64)
        np.cumsum([len(blob) for blob in blobs], out=starts[1:])
        joined = np.frombuffer(bytearray().join(blobs), np.uint8)
        top = unpack(
            slots, starts, joined, self.slots, self.heap, self.distinct_counts, self.ring_events_max, self.heap_top
        )
        if top < 0:
            raise FatalError(f"state of entity {int(self.hashes(slots)[-1 - top]):016x} is damaged")
        self.heap_top = top

    def ring_lengths(self, kind: int, found: Int32) -> Int64:
        """Events in the ring of the kind-th entity of each row of `find`'s answer."""
        lengths: Int64 = self.slots[found[:, kind], LENGTH]
        return lengths

    def dirty_bytes(self) -> int:
        """Memory, rings and slots, of what the next flush would write."""
        rings = 8 * int(ring_words(self.dirty[: self.dirty_count], self.slots, self.distinct_counts))
        return rings + self.dirty_count * BYTES_PER_SLOT

    def kinds(self, slots: Int32) -> Int64:
        """The entity number of each slot."""
        kinds: Int64 = self.slots[slots, KIND] & 255
        return kinds

    def hashes(self, slots: NDArray[np.integer]) -> UInt64:
        """The key hash of each slot."""
        hashes: UInt64 = self.slots[slots, KEY].view(np.uint64)
        return hashes

    def take_dirty(self) -> Int32:
        """The dirty slots; the list of them is empty afterwards."""
        chosen = self.dirty[: self.dirty_count].copy()
        self.dirty_count = 0
        return chosen

    def pack(self, slots: Int64) -> list[bytes]:
        """One blob for each slot."""
        # Reserved for the worst, touched as far as it fills.
        blobs = np.empty(blob_bytes_max(slots, self.slots, self.distinct_counts), np.uint8)
        starts = pack(slots, self.slots, self.heap, self.distinct_counts, blobs).tolist()
        joined = blobs[: starts[-1]].tobytes()
        return [joined[start:end] for start, end in itertools.pairwise(starts)]
