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
        # Keys ascend by entity and shard, and within those by hash, which each slice sorts for itself.
        buckets = (cache.kinds(chosen) * SHARDS + (cache.hashes(chosen) % SHARDS).astype(np.int64)).astype(np.uint16)
        order = np.argsort(buckets, kind="stable")
        self._chosen = chosen[order].astype(np.int64)
        self._bounds = [*np.flatnonzero(np.diff(buckets[order], prepend=-1)).tolist(), len(chosen)]
        self._bucket = 0
        self._early: dict[int, bytes] = {}
        freeze(chosen, cache.slots)

    def __len__(self) -> int:
        return len(self._chosen)

    @property
    def done(self) -> bool:
        """Whether every entity was given out."""
        return self._bucket == len(self._bounds) - 1

    def protect(self, found: Int32) -> None:
        """Packs those of a batch's slots that are still pending, before the batch changes them."""
        pending = np.empty(found.size, np.int64)
        pending = pending[: take_pending(found, self._cache.slots, pending)]
        if len(pending):
            self._early.update(zip(pending.tolist(), self._cache.pack(pending), strict=True))

    def rows(self, entities_min: int) -> Iterator[tuple[bytes, bytes]]:
        """Keys and blobs of the next entities: at least so many, unless fewer are left; keys ascend."""
        first = last = self._bucket
        while last < len(self._bounds) - 1 and self._bounds[last] - self._bounds[first] < entities_min:
            last += 1
        self._bucket = last
        for bucket in range(first, last):
            yield from self._bucket_rows(self._chosen[self._bounds[bucket] : self._bounds[bucket + 1]])

    def _bucket_rows(self, chosen: Int64) -> Iterator[tuple[bytes, bytes]]:
        slots = self._cache.slots
        chosen = chosen[np.argsort(self._cache.hashes(chosen))]
        waiting = slots[chosen, KIND] & PENDING != 0
        packed = iter(self._cache.pack(chosen[waiting]))
        slots[chosen, KIND] &= ~PENDING
        keys = entity_keys(slots[chosen, KIND] & 255, slots[chosen, KEY].view(np.uint64))
        for slot, key, is_waiting in zip(chosen.tolist(), keys, waiting.tolist(), strict=True):
            yield key, next(packed) if is_waiting else self._early.pop(slot)
