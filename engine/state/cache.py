"""Entities in memory: the arrays that the kernel works on, within a fixed byte budget.

All arrays are reserved once and touched as they fill, so memory grows with the entities that are hot and never past the
budget. Entities that changed since the last flush are dirty and stay; clean ones may be given up for room.
"""

import itertools
from collections.abc import Callable

import numpy as np
import xxhash
from numpy.typing import NDArray

from engine.errors import FatalError
from engine.state.damage import WAY_OUT, DamageError
from engine.state.keys import entity_keys, parsed_entity_keys
from engine.state.store import Store
from features.arena import (
    CAPACITY,
    DIRTY,
    KEY,
    KIND,
    LENGTH,
    PENDING,
    POSITION,
    SLOT_WORDS,
    STORED,
    TICK,
    WORDS,
    aligned_words,
    block_words,
    compact,
    count_new,
    find_slots,
    rebuild_table,
    resolve,
    table_size,
)
from features.blob import blob_bytes_max, pack, room_for, unpack
from features.block import block_words_max
from features.kernel import work_for
from features.program import COLUMNS, PREDICATES, TABLES, Program

Int64 = NDArray[np.int64]
UInt8 = NDArray[np.uint8]
UInt64 = NDArray[np.uint64]
Int32 = NDArray[np.int32]

# Of the budget, the share for slots and table against blocks; both bind at about 250 bytes of block per entity.
SLOTS_SHARE = 0.3
BYTES_PER_SLOT = 8 * SLOT_WORDS + 4 + 2 * 2 * 4
BYTES_PER_EDGE = 2
# How full the heap stays when room is made: half, so that it is seldom needed.
KEPT_SHARE = 0.5
# A batch begins with at least this share of the heap free.
FREE_SHARE = 1 / 16
CHECKSUM_BYTES = 4
# Of so many blocks, drawn evenly, the mean size is that of all within a few hundredths.
SAMPLED_BLOCKS = 8_192

Settle = Callable[[], None]


def nothing_to_settle() -> None:
    """What settles a cache whose slots nobody else knows."""


def checksum(blob: bytes | memoryview) -> bytes:
    """What ends a blob in the database."""
    return xxhash.xxh32_digest(blob)


class HotCache:
    """The slots, blocks and lookup table of every entity in memory."""

    def __init__(
        self,
        store: Store | None,
        program: Program,
        ring_events_max: int,
        ttl_ms: int,
        bytes_max: int,
    ) -> None:
        """`store` is where misses are read from; None keeps everything in memory and starts from nothing."""
        self._store = store
        self._facts = program.facts
        self._entities = len(program.facts)
        self.ring_events_max = ring_events_max
        self.ttl_ms = ttl_ms
        self.block_words_max = max(
            block_words_max(ring_events_max, fact[COLUMNS], fact[PREDICATES], fact[TABLES], ttl_ms)
            for fact in program.facts.tolist()
        )
        self.work = work_for(program, ring_events_max)
        windows = int(program.windows_ms.shape[1])
        self._bytes_per_slot = BYTES_PER_SLOT + BYTES_PER_EDGE * windows
        self._slots_max = int(bytes_max * SLOTS_SHARE) // self._bytes_per_slot
        self.slots = aligned_words(self._slots_max * SLOT_WORDS).reshape(-1, SLOT_WORDS)
        # Where a key is absent, the first slot is what is asked for ahead, in use or not.
        self.slots[0] = 0
        # Where each window began when the entity was last asked for: no more than where to begin to look.
        self.edges = np.empty((self._slots_max, windows), np.uint16)
        self.heap = aligned_words(int(bytes_max * (1 - SLOTS_SHARE)) // 8)
        self.table = np.full(table_size(self._slots_max), -1, np.int32)
        self.dirty = np.empty(self._slots_max, np.int32)
        self.heap_top = 0
        self.used = 0
        self.dirty_count = 0
        self.hits = 0
        self.misses = 0
        self._tick = 0
        # Of the dirty slots, those without a row by kind, as far as they were counted.
        self._new = np.zeros(self._entities, np.int64)
        self._counted = 0

    def events_max(self) -> int:
        """How many events one batch may have so that there can always be slots for it, and room for its blocks."""
        by_slots = self._slots_max // 4 // self._entities
        by_blocks = len(self.heap) // 4 // self._words_per_event()
        return max(1, min(by_slots, by_blocks))

    def has_room(self, events: int) -> bool:
        """Whether a batch of so many events, if it is of the usual kind, fits without giving anything up."""
        heap_free = len(self.heap) - self.heap_top
        return (
            heap_free >= max(len(self.heap) * FREE_SHARE, self.needed_words(events))
            and self.used + events * self._entities <= self._slots_max
        )

    def needed_words(self, events: int) -> int:
        """Heap words that a batch takes whose entities are like those in memory, all others than these, and grow."""
        return max(self._entities * self.block_words_max, events * self._words_per_event())

    def _words_per_event(self) -> int:
        return self._entities * 2 * max(1, self.heap_top // max(1, self.used))

    def make_room(self, events: int, heap_words: int = 0) -> Int32:
        """Gives up the clean entities that were used least recently; FatalError where the others alone fill it.

        Afterwards there are slots for so many events and so many heap words. Those of the newest batch stay. Returns
        the new number of each slot, -1 for those given up: int32[used before]. Nobody may know a slot by its old
        number any longer, and what is given up must already be in the database: no snapshot may be on its way there.
        """
        slots, before = self.slots[: self.used], self.used
        stays = ((slots[:, KIND] & DIRTY) != 0) | (slots[:, TICK] == self._tick)
        words = np.where(slots[:, CAPACITY] > 0, self.heap[slots[:, POSITION] + WORDS], 0)
        newest_first = np.argsort(np.where(stays, np.iinfo(np.int64).max, slots[:, TICK]), kind="stable")[::-1]
        fits = np.cumsum(words[newest_first]) <= len(self.heap) * KEPT_SHARE
        fits &= np.arange(self.used) < self._slots_max * KEPT_SHARE
        kept = newest_first[fits | stays[newest_first]]
        kept = kept[np.argsort(slots[kept, POSITION], kind="stable")]
        self.heap_top = compact(kept, self.slots, self.heap)
        self.edges[: len(kept)] = self.edges[kept]
        self.used = len(kept)
        rebuild_table(self.table, self.slots, self.used)
        still_dirty = np.flatnonzero(self.slots[: self.used, KIND] & DIRTY)
        self.dirty_count = len(still_dirty)
        self.dirty[: self.dirty_count] = still_dirty
        self._count_anew()
        heap_words = max(heap_words, self._entities * self.block_words_max)
        if self.heap_top + heap_words > len(self.heap) or self.used + events * self._entities > self._slots_max:
            raise FatalError(
                "state.cache_bytes_max is too small for the entities that changed since the last flush: raise it, or "
                "lower kafka.batch_events_max"
            )
        moved = np.full(before, -1, np.int32)
        moved[kept] = np.arange(len(kept))
        return moved

    def find(self, words: UInt64, settle: Settle = nothing_to_settle) -> Int32:
        """The slot of each entity of each event, int32[n, E], -1 where absent; misses are read from the database.

        `settle` is called before room is made for what was read: see `make_room`.
        """
        events = len(words)
        found = np.empty((events, self._entities), np.int32)
        missing = np.empty(events * self._entities, np.int32)
        self._tick += 1
        before = self.used
        self.used = resolve(words, self._entities, self.table, self.slots, self.used, self._tick, found, missing)
        opened = self.used - before
        self.misses += opened
        self.hits += int(np.count_nonzero(found >= 0)) - opened
        if opened:
            return self._load(missing[:opened].astype(np.int64), found, settle)
        return found

    def _load(self, slots: Int64, found: Int32, settle: Settle) -> Int32:
        """Reads what the database has of these new slots; returns `found` by the numbers that slots have then."""
        kinds = self.kinds(slots)
        if self._store is None:
            return found
        blobs = self._store.get_many(entity_keys(kinds, self.hashes(slots)))
        known = np.array([blob is not None for blob in blobs], np.bool_)
        if not known.any():
            return found
        self.slots[slots[known], KIND] |= STORED
        moved = self.read_back([blob for blob in blobs if blob is not None], slots[known], settle)
        return found if moved is None else renumbered(found, moved)

    def read_back(self, blobs: list[bytes], slots: Int64, settle: Settle = nothing_to_settle) -> Int32 | None:
        """Unpacks one blob into each of these empty slots, and makes room first if need be: then as `make_room`.

        DamageError where a blob is not what was packed.
        """
        for blob, slot in zip(blobs, slots.tolist(), strict=True):
            if checksum(memoryview(blob)[:-CHECKSUM_BYTES]) != blob[-CHECKSUM_BYTES:]:
                raise self._damaged(slot)
        bounds = np.zeros(len(blobs) + 1, np.int64)
        np.cumsum([len(blob) - CHECKSUM_BYTES for blob in blobs], out=bounds[1:])
        joined = np.frombuffer(bytearray().join(blob[:-CHECKSUM_BYTES] for blob in blobs), np.uint8)
        words = room_for(self.kinds(slots), bounds, joined, self._facts, self.block_words_max, self.ring_events_max)
        if words < 0:
            raise self._damaged(int(slots[-1 - words]))
        moved = None
        if self.heap_top + words > len(self.heap):
            settle()
            moved = self.make_room(0, words)
            slots = moved[slots].astype(np.int64)
        work = self.work
        top = unpack(
            slots, bounds, joined, self.slots, self.heap, self.heap_top, self._facts, self.ring_events_max,
            work.entries, work.seen_keys, work.seen_stamps, work.seen_stamp,
        )  # fmt: skip
        if top < 0:
            raise self._damaged(int(slots[-1 - top]))
        self.heap_top = top
        return moved

    def _damaged(self, slot: int) -> DamageError:
        return DamageError(f"state of entity {int(self.hashes(np.array([slot]))[0]):016x} is damaged; {WAY_OUT}")

    def ring_lengths(self, kind: int, found: Int32) -> Int64:
        """Events in the ring of the kind-th entity of each row of `find`'s answer."""
        lengths: Int64 = self.slots[found[:, kind], LENGTH]
        return lengths

    def dirty_bytes(self) -> int:
        """Memory, blocks and slots, of what the next flush would write; that of many blocks by a sample of them."""
        every = max(1, self.dirty_count // SAMPLED_BLOCKS)
        sample = np.ascontiguousarray(self.dirty[: self.dirty_count : every])
        words = int(block_words(sample, self.slots, self.heap))
        return 8 * words * self.dirty_count // max(1, len(sample)) + self.dirty_count * self._bytes_per_slot

    def kinds(self, slots: NDArray[np.integer]) -> Int64:
        """The entity number of each slot."""
        kinds: Int64 = self.slots[slots, KIND] & 255
        return kinds

    def hashes(self, slots: NDArray[np.integer]) -> UInt64:
        """The key hash of each slot."""
        hashes: UInt64 = self.slots[slots, KEY].view(np.uint64)
        return hashes

    def new_entities(self) -> Int64:
        """How many entities of each kind the next flush would write that have no row yet."""
        count_new(self.dirty[self._counted : self.dirty_count], self.slots, self._new)
        self._counted = self.dirty_count
        return self._new.copy()

    def _count_anew(self) -> None:
        """Forgets what was counted of the dirty slots, which are others now, or have another row."""
        self._counted = 0
        self._new[:] = 0

    def note_deleted(self, keys: list[bytes]) -> None:
        """Notes that these rows are gone from the database."""
        found = self._find_keys(keys)
        self.slots[found[found >= 0], KIND] &= ~STORED
        self._count_anew()

    def without_pending(self, keys: list[bytes]) -> list[bytes]:
        """Those of these keys that the newest snapshot does not write."""
        found = self._find_keys(keys)
        pending = (found >= 0) & (self.slots[found, KIND] & PENDING != 0)
        return [key for key, is_pending in zip(keys, pending.tolist(), strict=True) if not is_pending]

    def _find_keys(self, keys: list[bytes]) -> Int32:
        kinds, hashes = parsed_entity_keys(keys)
        found = np.empty(len(keys), np.int32)
        find_slots(kinds, hashes, self.table, self.slots, found)
        return found

    def take_dirty(self) -> Int32:
        """The dirty slots; the list of them is empty afterwards."""
        chosen = self.dirty[: self.dirty_count].copy()
        self.dirty_count = 0
        self._count_anew()
        return chosen

    def pack(self, slots: Int64) -> list[bytes]:
        """One blob for each slot."""
        # Reserved for the worst, touched as far as it fills.
        blobs = np.empty(blob_bytes_max(slots, self.slots, self.heap, self._facts), np.uint8)
        starts = pack(slots, self.slots, self.heap, self._facts, self.ttl_ms, self.work.entries, blobs).tolist()
        joined = blobs[: starts[-1]].tobytes()
        packed = (joined[start:end] for start, end in itertools.pairwise(starts))
        return [blob + checksum(blob) for blob in packed]


def renumbered(found: Int32, moved: Int32) -> Int32:
    """Slots by their new numbers; -1 stays."""
    return np.where(found >= 0, moved[found], np.int32(-1))
