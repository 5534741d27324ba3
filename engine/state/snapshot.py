"""Entities as they were at one moment, written bit by bit while the stream goes on.

At `begin` every dirty slot becomes pending. A pending slot is packed when its turn comes, in key order, or just before
a batch changes it, whichever is first; so nothing is copied but what the stream touches meanwhile, and no micro-batch
waits for more than one slice.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from engine.state.cache import HotCache
from engine.state.keys import SHARDS, entity_keys
from features.arena import KEY, KIND, PENDING, freeze, take_pending

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]


class Snapshot:
    """The dirty entities of a cache, on their way to the database."""

    def __init__(self, cache: HotCache) -> None:
        """Marks them clean and pending; slots must not be renumbered before the last one is written."""
        self._cache = cache
        chosen = cache.take_dirty()
        # Keys ascend by entity and shard, in buckets, and within those by hash: a bucket is sorted when its turn comes.
        buckets = np.empty(len(chosen), np.uint16)
        freeze(chosen, cache.slots, SHARDS, buckets)
        order = np.argsort(buckets, kind="stable")
        self._chosen = chosen[order].astype(np.int64)
        self._bounds = iter([*np.flatnonzero(np.diff(buckets[order], prepend=-1)).tolist(), len(chosen)][1:])
        # What was given out, and up to where the rest is in the order of keys.
        self._at = self._sorted_to = 0
        self._early: dict[int, bytes] = {}

    def __len__(self) -> int:
        return len(self._chosen)

    @property
    def done(self) -> bool:
        """Whether every entity was given out."""
        return self._at == len(self._chosen)

    def protect(self, found: Int32) -> None:
        """Packs those of a batch's slots that are still pending, before the batch changes them."""
        pending = np.empty(found.size, np.int64)
        pending = pending[: take_pending(found, self._cache.slots, pending)]
        if len(pending):
            self._early.update(zip(pending.tolist(), self._cache.pack(pending), strict=True))

    def rows(self, entities: int) -> Iterator[tuple[bytes, bytes]]:
        """Keys and blobs of the next entities: so many, unless fewer are left; keys ascend."""
        while entities > 0 and not self.done:
            chosen = self._next(entities)
            entities -= len(chosen)
            yield from self._packed(chosen)

    def _next(self, entities: int) -> Int64:
        """Slots of the next entities, of one bucket, which is sorted when its turn comes."""
        if self._at == self._sorted_to:
            self._sorted_to = next(self._bounds)
            bucket = self._chosen[self._at : self._sorted_to]
            bucket[:] = bucket[np.argsort(self._cache.hashes(bucket))]
        first = self._at
        self._at = min(first + entities, self._sorted_to)
        return self._chosen[first : self._at]

    def _packed(self, chosen: Int64) -> Iterator[tuple[bytes, bytes]]:
        slots = self._cache.slots
        waiting = slots[chosen, KIND] & PENDING != 0
        packed = iter(self._cache.pack(chosen[waiting]))
        slots[chosen, KIND] &= ~PENDING
        keys = entity_keys(slots[chosen, KIND] & 255, slots[chosen, KEY].view(np.uint64))
        for slot, key, is_waiting in zip(chosen.tolist(), keys, waiting.tolist(), strict=True):
            yield key, next(packed) if is_waiting else self._early.pop(slot)
