"""The keys of the database: one byte for the kind of record first, then what sorts it within its kind.

0x00                                    the header: offset vector, counters, fingerprint
0x01 partition:u32 segment:u64          a segment of accepted event ids
0x10+entity shard:u8 hash:u64           an entity's ring; shard = hash mod 64
"""

import numpy as np
from numpy.typing import NDArray

HEADER = b"\x00"
DEDUPE = b"\x01"
ENTITY_KIND_FIRST = 0x10
SHARDS = 64
ENTITY_KEY_BYTES = 10
SEGMENT_KEY_BYTES = 13

UInt64 = NDArray[np.uint64]


def segment_key(partition: int, segment: int) -> bytes:
    """The key of one dedupe segment."""
    return DEDUPE + partition.to_bytes(4, "big") + segment.to_bytes(8, "big")


def parsed_segment_key(key: bytes) -> tuple[int, int]:
    """Partition and number of the segment with this key."""
    return int.from_bytes(key[1:5], "big"), int.from_bytes(key[5:], "big")


def partition_prefix(partition: int) -> bytes:
    """The prefix of all dedupe segments of a partition."""
    return DEDUPE + partition.to_bytes(4, "big")


def entity_keys(kinds: NDArray[np.int64], hashes: UInt64) -> list[bytes]:
    """One key per entity; `kinds[n]` are entity numbers, `hashes[n]` key hashes."""
    rows = np.empty((len(hashes), ENTITY_KEY_BYTES), np.uint8)
    rows[:, 0] = kinds + ENTITY_KIND_FIRST
    rows[:, 1] = hashes % SHARDS
    rows[:, 2:] = hashes.astype(">u8").view(np.uint8).reshape(-1, 8)
    joined = rows.tobytes()
    return [joined[at : at + ENTITY_KEY_BYTES] for at in range(0, len(joined), ENTITY_KEY_BYTES)]


def parsed_entity_keys(keys: list[bytes]) -> tuple[NDArray[np.int64], UInt64]:
    """The entity number and the key hash of each of these keys: `entity_keys` the other way round."""
    rows = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, ENTITY_KEY_BYTES)
    hashes = np.ascontiguousarray(rows[:, 2:]).view(">u8").ravel().astype(np.uint64)
    return rows[:, 0].astype(np.int64) - ENTITY_KIND_FIRST, hashes
