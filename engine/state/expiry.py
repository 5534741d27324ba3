"""Deletion of entities that are past the TTL: a few thousand rows of the database are looked at with each flush.

Deleting is all the same whenever it happens: an event that meets a forgotten entity starts anew, whether its row is
still there or not (features.clock).
"""

import numpy as np

from engine.state.cache import CHECKSUM_BYTES, checksum
from engine.state.keys import ENTITY_KIND_FIRST
from engine.state.store import Store
from features.arena import NEVER
from features.blob import newest_of

ROWS_PER_FLUSH = 4_096


class Expiry:
    """Goes through the entities in the database in key order, again and again."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._next = bytes([ENTITY_KIND_FIRST])

    def expired(self, forgotten_ms: int) -> list[bytes]:
        """Keys, ascending, of the entities among the next rows of which nothing was heard after this time.

        A damaged row is left for the event that needs it to find.
        """
        if forgotten_ms == NEVER:
            return []
        keys: list[bytes] = []
        for looked_at, (key, blob) in enumerate(self._store.scan_from(self._next)):
            if looked_at == ROWS_PER_FLUSH:
                self._next = key
                return keys
            body = blob[:-CHECKSUM_BYTES]
            if checksum(body) == blob[-CHECKSUM_BYTES:] and newest_of(np.frombuffer(body, np.uint8)) <= forgotten_ms:
                keys.append(key)
        self._next = bytes([ENTITY_KIND_FIRST])
        return keys
