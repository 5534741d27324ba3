"""Accepted event ids per source partition, in memory and as segments in the database."""

import numpy as np
from numpy.typing import NDArray

from engine.events import Batch
from engine.state.damage import WAY_OUT, DamageError
from engine.state.keys import parsed_segment_key, partition_prefix, segment_key
from engine.state.store import FlushFile, Store
from features.arena import NEVER
from features.dedupe import FIRST, NEXT, accept, rebuild

SEGMENT_ENTRIES = 4_096
# Hash and clock.
ENTRY_BYTES = 16


class PartitionDedupe:
    """One partition's FIFO. Its arrays double until they hold `entries_max`."""

    def __init__(self, entries_max: int, counters: list[int] | None = None) -> None:
        self._entries_max = entries_max
        self.counters = np.array(counters or [0, 0, NEVER], np.int64)
        self._reserve(self._places(0))
        self._flushed_next = int(self.counters[NEXT])
        self._flushed_first = int(self.counters[FIRST])

    def _reserve(self, places: int) -> None:
        self.hashes = np.zeros(places, np.uint64)
        self.clocks_ms = np.zeros(places, np.int64)
        self.table = np.zeros(2 * places, np.int32)

    def _places(self, more: int) -> int:
        """The smallest power of two that holds the live entries and so many more, within the bound."""
        live = int(self.counters[NEXT] - self.counters[FIRST])
        return 1 << (max(SEGMENT_ENTRIES, min(live + more, self._entries_max)) - 1).bit_length()

    def make_room(self, more: int) -> None:
        """Doubles the arrays until so many more entries fit, or the bound is reached."""
        places = self._places(more)
        if places <= len(self.hashes):
            return
        entries = np.arange(self.counters[FIRST], self.counters[NEXT])
        hashes = self.hashes[entries & (len(self.hashes) - 1)]
        clocks_ms = self.clocks_ms[entries & (len(self.clocks_ms) - 1)]
        self._reserve(places)
        self.hashes[entries & (places - 1)] = hashes
        self.clocks_ms[entries & (places - 1)] = clocks_ms
        rebuild(self.hashes, self.table, self.counters)

    def accept(
        self,
        rows: NDArray[np.int64],
        batch: Batch,
        horizon_ms: int,
        late_after_ms: int,
        accepted: NDArray[np.bool_],
        late: NDArray[np.bool_],
    ) -> None:
        """Decides for these rows of the batch; writes `accepted` and `late`."""
        self.make_room(len(rows))
        accept(
            rows, batch.event_id_hashes, batch.times_ms, self.hashes, self.clocks_ms, self.table, self.counters,
            self._entries_max, horizon_ms, late_after_ms, accepted, late,
        )  # fmt: skip

    def changes(self, partition: int) -> tuple[list[bytes], list[tuple[bytes, bytes]]]:
        """What a flush writes: keys of expired segments, then keys and bytes of segments that have grown."""
        first, following = int(self.counters[FIRST]), int(self.counters[NEXT])
        expired = range(self._flushed_first // SEGMENT_ENTRIES, first // SEGMENT_ENTRIES)
        grown = (
            range(max(first, self._flushed_next) // SEGMENT_ENTRIES, -(-following // SEGMENT_ENTRIES))
            if following > self._flushed_next
            else range(0)
        )
        rows = []
        for segment in grown:
            entries = np.arange(segment * SEGMENT_ENTRIES, min((segment + 1) * SEGMENT_ENTRIES, following))
            places = entries & (len(self.hashes) - 1)
            columns = np.concatenate((self.hashes[places], self.clocks_ms[places].view(np.uint64)))
            rows.append((segment_key(partition, segment), columns.tobytes()))
        self._flushed_first, self._flushed_next = first, following
        return [segment_key(partition, segment) for segment in expired], rows

    def load(self, partition: int, store: Store) -> None:
        """Reads the live segments back; DamageError where entries are missing."""
        loaded = 0
        for key, value in store.scan(partition_prefix(partition)):
            _, segment = parsed_segment_key(key)
            entries, columns = segment_entries(segment, value), np.frombuffer(value, np.uint64)
            live = (entries >= self.counters[FIRST]) & (entries < self.counters[NEXT])
            loaded += int(np.count_nonzero(live))
            places = entries[live] & (len(self.hashes) - 1)
            self.hashes[places] = columns[: len(entries)][live]
            self.clocks_ms[places] = columns[len(entries) :].view(np.int64)[live]
        wanted = int(self.counters[NEXT] - self.counters[FIRST])
        if loaded != wanted:
            raise DamageError(
                f"the state has {loaded} of the {wanted} event ids that partition {partition} remembers; {WAY_OUT}"
            )
        rebuild(self.hashes, self.table, self.counters)


def segment_entries(segment: int, value: bytes) -> NDArray[np.int64]:
    """The numbers of a segment's entries; DamageError where the value cannot be one."""
    count, rest = divmod(len(value), ENTRY_BYTES)
    if rest or not 0 < count <= SEGMENT_ENTRIES:
        raise DamageError(f"segment {segment} of the event ids has {len(value)} bytes; {WAY_OUT}")
    return np.arange(count) + segment * SEGMENT_ENTRIES


def write_changes(partitions: dict[int, PartitionDedupe], file: FlushFile) -> None:
    """Adds the changes of all partitions to a flush, keys ascending."""
    for partition in sorted(partitions):
        expired, grown = partitions[partition].changes(partition)
        for key in expired:
            file.delete(key)
        for key, value in grown:
            file.put(key, value)
