"""Windowed state of the local topology: every entity and every partition in this process.

The state runs ahead in memory and follows on disk: `accept` and `features` change memory only; `begin_flush` takes a
snapshot at a committed offset vector, `continue_flush` writes it bit by bit between micro-batches, and the last bit
makes it visible whole.
"""

from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.config import Config, State
from engine.events import Batch
from engine.rates import minor_digits
from engine.state.cache import HotCache
from engine.state.dedupe import SEGMENT_ENTRIES, PartitionDedupe, write_changes
from engine.state.header import Header, decode_header, encode_header
from engine.state.keys import HEADER
from engine.state.snapshot import Snapshot
from engine.state.store import FlushFile, Store
from features.kernel import Seen, advance
from features.program import compile_program
from features.spec import FeatureSpec

Int64 = NDArray[np.int64]


@dataclass(slots=True)
class FeatureMatrix:
    """Features of n accepted events: `values[n, columns]`, NaN for null.

    `exact_windows[n, E]`: how many of each entity's windows, shortest first, are exact; `exact_all[n, E]`: whether its
    windowless values are; `missing[n]`: an entity key was absent. The arrays are views that the next batch overwrites.
    """

    values: NDArray[np.float64]
    exact_windows: NDArray[np.uint8]
    exact_all: NDArray[np.uint8]
    missing: NDArray[np.bool_]


class LocalState:
    """Answers two questions about a batch: which of its events are new, and what their features are."""

    def __init__(self, config: Config, spec: FeatureSpec, fingerprint: str, store: Store | None) -> None:
        """Reads what the store holds; without a store everything stays in memory.

        `header.fingerprint` may differ from `fingerprint`: whoever opens the state decides what to do then.
        """
        self._spec = spec
        self._config = config
        self._store = store
        self._program = compile_program(spec)
        self._cache = HotCache(
            store, self._program.distinct_counts, config.state.ring_events_max, config.state.cache_bytes_max
        )
        self._seen = Seen(self._program.distinct_hash.shape[1], config.state.ring_events_max)
        self._minor_per_major = 10.0 ** (minor_digits(config.rates.base_currency) or 0)
        self._flush: _Flush | None = None
        stored = store.get(HEADER) if store is not None else None
        self.header = decode_header(stored) if stored is not None else Header(fingerprint)
        self._cache.floor_ms = self.header.floor_ms
        self._partitions: dict[int, PartitionDedupe] = {}
        for partition, counters in self.header.dedupe.items():
            self._partitions[partition] = PartitionDedupe(config.state.dedupe_entries_max, counters)
            if store is not None:
                self._partitions[partition].load(partition, store)
        self._reserve(0)

    def _reserve(self, events: int) -> None:
        self._values = np.empty((events, len(self._spec.names)))
        self._exact_windows = np.empty((events, len(self._spec.entities)), np.uint8)
        self._exact_all = np.empty((events, len(self._spec.entities)), np.uint8)

    def begin_cold(self, first_time_ms: int) -> None:
        """Earlier events exist that this state will never see: flags what reaches back before this event time."""
        self.header.floor_ms = self._cache.floor_ms = first_time_ms

    def accept(self, batch: Batch) -> Batch:
        """The events that were not accepted before, in order, with `late` set."""
        accepted = np.zeros(len(batch), np.bool_)
        batch.late = np.zeros(len(batch), np.bool_)
        for partition in np.unique(batch.partitions).tolist():
            if partition not in self._partitions:
                self._partitions[partition] = PartitionDedupe(self._config.state.dedupe_entries_max)
            self._partitions[partition].accept(
                np.flatnonzero(batch.partitions == partition),
                batch,
                self._config.state.dedupe_horizon_ms,
                self._config.mapping.late_after_ms,
                accepted,
                batch.late,
            )
        return batch if accepted.all() else batch.take(np.flatnonzero(accepted))

    def features(self, batch: Batch, *, compute: bool = True) -> FeatureMatrix:
        """Reads each accepted event's features and then inserts it, one event after another.

        With `compute` off, as in a replay, events are only inserted and the matrix means nothing.
        """
        events = len(batch)
        if events > len(self._values):
            self._reserve(events)
        missing = np.empty(events, np.bool_)
        step = self._cache.events_max()
        for start in range(0, events, step):
            self._advance(batch, slice(start, min(start + step, events)), missing, compute)
        values = self._values[:events]
        if compute:
            for name in self._spec.event_features:
                values[:, self._spec.names.index(f"event.{name}")] = self._event_feature(name, batch)
        return FeatureMatrix(values, self._exact_windows[:events], self._exact_all[:events], missing)

    def _advance(self, batch: Batch, rows: slice, missing: NDArray[np.bool_], compute: bool) -> None:
        cache, seen = self._cache, self._seen
        if not cache.has_room(rows.stop - rows.start):
            self.finish_flush()
            cache.make_room(rows.stop - rows.start)
        hashes = batch.hashes[rows]
        found = cache.find(hashes)
        missing[rows] = found.min(axis=1) < 0
        if self._flush is not None:
            self._flush.snapshot.protect(found)
        cache.heap_top, cache.dirty_count = advance(
            batch.times_ms[rows],
            batch.amounts_minor[rows],
            hashes,
            found,
            cache.slots,
            cache.heap,
            cache.heap_top,
            self._program,
            cache.ring_events_max,
            self._minor_per_major,
            seen.keys,
            seen.stamps,
            seen.counts,
            seen.stamp,
            cache.dirty,
            cache.dirty_count,
            compute,
            self._values[rows],
            self._exact_windows[rows],
            self._exact_all[rows],
        )

    def _event_feature(self, name: str, batch: Batch) -> NDArray[np.float64]:
        if name == "amount":
            return batch.amounts_minor / self._minor_per_major
        return (batch.times_ms // 3_600_000 % 24).astype(np.float64)

    def run_rare_kernels(self) -> None:
        """Runs the kernels that only a flush, a miss, a lack of room or growth would run."""
        for dedupe in self._partitions.values():
            dedupe.make_room(SEGMENT_ENTRIES)
        self._cache.dirty_bytes()
        snapshot = Snapshot(self._cache)
        snapshot.protect(np.zeros((1, 1), np.int32))
        list(snapshot.rows(1))
        self._cache.make_room(1)
        self._cache.read_back([], np.empty(0, np.int64))

    def dirty_bytes(self) -> int:
        """Size of what the next flush would write of entities."""
        return self._cache.dirty_bytes()

    @property
    def cache_hits(self) -> int:
        """Entity look-ups that found the entity in memory."""
        return self._cache.hits

    @property
    def cache_misses(self) -> int:
        """Entity look-ups that did not."""
        return self._cache.misses

    def crowded(self, events: int) -> bool:
        """Whether a batch of so many events needs room that only a flush can make."""
        return not self._cache.has_room(events) and self.dirty_bytes() > self._config.state.dirty_bytes_max

    def entities(self) -> dict[str, int]:
        """How many entities of each kind the state has seen."""
        new = self._cache.new_entities.tolist()
        return {e.name: self.header.entities.get(e.name, 0) + new[i] for i, e in enumerate(self._spec.entities)}

    def newest_values(self, events: int) -> NDArray[np.float64]:
        """The feature rows of the newest batch, which had so many events."""
        return self._values[:events]

    def ring_lengths(self, entity: str, batch: Batch) -> NDArray[np.int64]:
        """How many events the ring of this entity holds, for each event of a batch."""
        kind = next(i for i, spec in enumerate(self._spec.entities) if spec.name == entity)
        return self._cache.ring_lengths(kind, self._cache.find(batch.hashes))

    @property
    def flushing(self) -> bool:
        """Whether a snapshot is on its way to disk."""
        return self._flush is not None

    def begin_flush(self, vector: dict[int, int]) -> None:
        """Takes the snapshot of the state at this offset vector, which must be the committed one."""
        if self._store is None:
            return
        self.finish_flush()
        counters = {partition: dedupe.counters.tolist() for partition, dedupe in self._partitions.items()}
        self.header.entities = self.entities()
        self._cache.new_entities[:] = 0
        self.header.sequence += 1
        self.header.vector = dict(vector)
        self.header.dedupe = counters
        file = self._store.begin_flush()
        file.put(HEADER, encode_header(self.header))
        write_changes(self._partitions, file)
        self._flush = _Flush(file, Snapshot(self._cache))

    def continue_flush(self, entities_min: int) -> bool:
        """Writes so many entities of the snapshot, or a few more; true once all of it is on disk."""
        if self._flush is None:
            return True
        if not self._flush.advance(entities_min):
            return False
        self._flush = None
        return True

    def finish_flush(self) -> None:
        """Writes whatever is left of a snapshot."""
        if self._flush is not None:
            self.continue_flush(len(self._flush.snapshot))


@dataclass(slots=True)
class _Flush:
    file: FlushFile
    snapshot: Snapshot

    def advance(self, entities_min: int) -> bool:
        for key, blob in self.snapshot.rows(entities_min):
            self.file.put(key, blob)
        if not self.snapshot.done:
            return False
        self.file.finish()
        return True


WARM_UP_CACHE_BYTES = 32 * 1024 * 1024


def warm_up(config: Config, spec: FeatureSpec) -> None:
    """Compiles every kernel, or loads it compiled, so that no event ever waits for that."""
    settings = State(
        cache_bytes_max=WARM_UP_CACHE_BYTES,
        dirty_bytes_max=WARM_UP_CACHE_BYTES // 4,
        ring_events_max=config.state.ring_events_max,
    )
    state = LocalState(msgspec.structs.replace(config, state=settings), spec, "", store=None)
    one = np.ones(1, np.int64)
    batch = Batch(
        topic="",
        event_ids=[""],
        event_id_hashes=one.astype(np.uint64),
        times_ms=one,
        amounts_minor=one,
        currency=config.rates.base_currency,
        keys={entity.name: ["-"] for entity in spec.entities},
        hashes=np.ones((1, len(spec.hash_columns)), np.uint64),
        partition_keys=["-"],
        partitions=one,
        offsets=one,
        record_times_ms=one,
    )
    state.features(state.accept(batch))
    state.run_rare_kernels()
