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
from engine.rates import minor_per_major
from engine.state.cache import HotCache, renumbered
from engine.state.dedupe import SEGMENT_ENTRIES, PartitionDedupe, write_changes
from engine.state.expiry import Expiry
from engine.state.header import Header, decode_header, encode_header
from engine.state.keys import ENTITY_KIND_FIRST, HEADER
from engine.state.look import Look, look_at
from engine.state.snapshot import Snapshot
from engine.state.store import FlushFile, Store
from features.arena import LENGTH, NEVER, NEWEST_MS
from features.blob import newest_of
from features.clock import FORGOTTEN_MS, forgotten
from features.dedupe import NEWEST_MS as DEDUPE_NEWEST_MS
from features.event import event_values
from features.kernel import advance
from features.program import compile_program
from features.spec import FeatureSpec

Int64 = NDArray[np.int64]
Int32 = NDArray[np.int32]


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

    def take(self, rows: NDArray[np.intp]) -> "FeatureMatrix":
        """Only these rows, in the given order; copied."""
        return FeatureMatrix(self.values[rows], self.exact_windows[rows], self.exact_all[rows], self.missing[rows])


class LocalState:
    """Answers two questions about a batch: which of its events are new, and what their features are."""

    def __init__(self, config: Config, spec: FeatureSpec, fingerprint: str, store: Store | None) -> None:
        """Reads what the store holds; without a store everything stays in memory.

        `header.fingerprint` may differ from `fingerprint`: whoever opens the state decides what to do then.
        """
        self.spec = spec
        self._config = config
        self.store = store
        self._program = compile_program(spec)
        self._cache = HotCache(
            store,
            self._program,
            config.state.ring_events_max,
            config.ttl_ms,
            config.state.cache_bytes_max,
        )
        self._minor_per_major = float(minor_per_major(config.rates.base_currency))
        self._flush: _Flush | None = None
        self._expiry = Expiry(store) if store is not None else None
        stored = store.get(HEADER) if store is not None else None
        self.header = decode_header(stored) if stored is not None else Header(fingerprint)
        header = self.header
        self._times_ms = np.array([header.first_ms, header.forgotten_ms, header.newest_ms], np.int64)
        self._partitions: dict[int, PartitionDedupe] = {}
        for partition, counters in header.dedupe.items():
            self._partitions[partition] = PartitionDedupe(config.state.dedupe_entries_max, counters)
            if store is not None:
                self._partitions[partition].load(partition, store)
        self._newest_ms = np.full(max(self._partitions, default=-1) + 1, NEVER)
        for partition, dedupe in self._partitions.items():
            self._newest_ms[partition] = dedupe.counters[DEDUPE_NEWEST_MS]
        self._reserve(0)

    def reopened(self) -> "LocalState":
        """The state as it is on disk, without anything that is in memory alone; this one is not used any longer."""
        return LocalState(self._config, self.spec, self.header.fingerprint, self.store)

    def _reserve(self, events: int) -> None:
        self._values = np.empty((events, len(self.spec.names)))
        self._exact_windows = np.empty((events, len(self.spec.entities)), np.uint8)
        self._exact_all = np.empty((events, len(self.spec.entities)), np.uint8)

    def begin_cold(self, first_time_ms: int) -> None:
        """Earlier events exist that this state will never see: flags what reaches back before this event time."""
        self.header.cold_ms = first_time_ms

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
        forgotten_ms = self._forgotten_ms(batch)
        step = self._cache.events_max()
        for start in range(0, events, step):
            self._advance(batch, forgotten_ms, slice(start, min(start + step, events)), missing, compute)
        values = self._values[:events]
        if compute and self.spec.event.names():
            values[:, -len(self.spec.event.names()) :] = event_values(
                self.spec,
                batch.times_ms,
                batch.amounts_minor,
                self._minor_per_major,
                batch.numbers,
                batch.categories,
                batch.flags,
            )
        return FeatureMatrix(values, self._exact_windows[:events], self._exact_all[:events], missing)

    def _forgotten_ms(self, batch: Batch) -> Int64:
        """Up to when entities are forgotten, for each event; the clock goes on with them."""
        partitions_end = int(batch.partitions.max(initial=-1)) + 1
        if partitions_end > len(self._newest_ms):
            missing = np.full(partitions_end - len(self._newest_ms), NEVER)
            self._newest_ms = np.append(self._newest_ms, missing)
        return forgotten(batch.times_ms, batch.partitions, self._newest_ms, self._times_ms, self._cache.ttl_ms)

    def _advance(
        self, batch: Batch, forgotten_ms: Int64, rows: slice, missing: NDArray[np.bool_], compute: bool
    ) -> None:
        events = rows.stop - rows.start
        found = self._find(batch.words[rows])
        missing[rows] = found.min(axis=1) < 0
        done = 0
        while done < events:
            if self._flush is not None:
                self._flush.snapshot.protect(found[done:])
            before = done
            done = self._run(batch, rows, forgotten_ms, found, done, compute=compute)
            if done < events:
                found = renumbered(found, self.make_room(0))
            assert done == events or done > before or before == 0

    def _find(self, words: NDArray[np.uint64]) -> Int32:
        """The slots of a batch, for which room is made first if need be."""
        if not self._cache.has_room(len(words)):
            self.make_room(len(words))
        return self._cache.find(words, self.finish_flush)

    def make_room(self, events: int) -> Int32:
        """Room for a batch of so many events: as `HotCache.make_room`, once the newest snapshot is on disk."""
        self.finish_flush()
        return self._cache.make_room(events)

    def _run(
        self,
        batch: Batch,
        rows: slice,
        forgotten_ms: Int64,
        found: Int32,
        first: int,
        *,
        compute: bool,
        insert_events: bool = True,
    ) -> int:
        """Runs the kernel over these rows from the `first` of them on; returns how many are done."""
        cache = self._cache
        done, cache.heap_top, cache.dirty_count = advance(
            first,
            batch.times_ms[rows],
            batch.amounts_minor[rows],
            batch.words[rows],
            batch.flags[rows],
            forgotten_ms[rows],
            self.header.cold_ms,
            found,
            cache.slots,
            cache.edges,
            cache.heap,
            cache.heap_top,
            cache.block_words_max,
            self._program,
            cache.ring_events_max,
            cache.ttl_ms,
            self._minor_per_major,
            cache.work,
            cache.dirty,
            cache.dirty_count,
            compute,
            insert_events,
            self._values[rows],
            self._exact_windows[rows],
            self._exact_all[rows],
        )
        return int(done)

    def look(self, entity: str, key_hash: int, at_ms: int | None = None) -> Look | None:
        """What is known of one entity, and its features at a time, its newest event's by default, without an event.

        None where nothing is known of it. Changes nothing.
        """
        kind = next(i for i, spec in enumerate(self.spec.entities) if spec.name == entity)
        batch = _blank_batch(self.spec, 1)
        batch.words[0] = 0
        batch.words[0, kind] = key_hash
        found = self._find(batch.words)
        slot = self._cache.slots[found[0, kind]]
        if slot[LENGTH] == 0 or slot[NEWEST_MS] <= self._times_ms[FORGOTTEN_MS]:
            return None
        batch.times_ms[0] = slot[NEWEST_MS] if at_ms is None else at_ms
        self._reserve(max(1, len(self._values)))
        floor_ms = self._times_ms[FORGOTTEN_MS : FORGOTTEN_MS + 1]
        self._run(batch, slice(0, 1), floor_ms, found, 0, compute=True, insert_events=False)
        matrix = FeatureMatrix(self._values[:1], self._exact_windows[:1], self._exact_all[:1], np.zeros(1, np.bool_))
        return look_at(self.spec, kind, slot, self._cache.heap, int(batch.times_ms[0]), matrix.values[0],
                       int(matrix.exact_windows[0, kind]), bool(matrix.exact_all[0, kind]))  # fmt: skip

    def run_rare_kernels(self) -> None:
        """Runs the kernels that only a flush, a miss, a lack of room or growth would run."""
        for dedupe in self._partitions.values():
            dedupe.make_room(SEGMENT_ENTRIES)
        self._cache.dirty_bytes()
        self.entities()
        snapshot = Snapshot(self._cache)
        snapshot.protect(np.zeros((1, 1), np.int32))
        list(snapshot.rows(1))
        self._cache.note_deleted([])
        self.make_room(1)
        self._cache.read_back([], np.empty(0, np.int64))
        newest_of(np.zeros(2, np.uint8))

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
        cache = self._cache
        if cache.has_room(events):
            return False
        left_bytes = max(0, cache.heap.nbytes - 8 * cache.needed_words(events))
        return self.dirty_bytes() > min(self._config.state.dirty_bytes_max, left_bytes)

    def entities(self) -> dict[str, int]:
        """How many entities of each kind are in the database, or will be with the next flush."""
        new = self._cache.new_entities().tolist()
        return {e.name: self.header.entities.get(e.name, 0) + new[i] for i, e in enumerate(self.spec.entities)}

    def newest_values(self, events: int) -> NDArray[np.float64]:
        """The feature rows of the newest batch, which had so many events."""
        return self._values[:events]

    def ring_lengths(self, entity: str, batch: Batch) -> NDArray[np.int64]:
        """How many events the ring of this entity holds, for each event of a batch."""
        kind = next(i for i, spec in enumerate(self.spec.entities) if spec.name == entity)
        return self._cache.ring_lengths(kind, self._find(batch.words))

    @property
    def flushing(self) -> bool:
        """Whether a snapshot is on its way to disk."""
        return self._flush is not None

    def begin_flush(self, vector: dict[int, int]) -> None:
        """Takes the snapshot of the state at this offset vector, which must be the committed one."""
        if self.store is None or self._expiry is None:
            return
        self.finish_flush()
        header = self.header
        header.first_ms, header.forgotten_ms, header.newest_ms = self._times_ms.tolist()
        header.entities = self.entities()
        snapshot = Snapshot(self._cache)
        expired = self._cache.without_pending(self._expiry.expired(header.forgotten_ms))
        for key in expired:
            header.entities[self.spec.entities[key[0] - ENTITY_KIND_FIRST].name] -= 1
        header.sequence += 1
        header.vector = dict(vector)
        header.dedupe = {partition: dedupe.counters.tolist() for partition, dedupe in self._partitions.items()}
        file = self.store.begin_flush()
        file.put(HEADER, encode_header(header))
        write_changes(self._partitions, file)
        self._flush = _Flush(file, snapshot, expired)

    def continue_flush(self, entities: int) -> bool:
        """Writes so many more entities of the snapshot; true once all of it is on disk, for which it does not wait."""
        if self._flush is None:
            return True
        if not self._flush.advance(entities):
            return False
        self._end_flush(self._flush)
        return True

    def finish_flush(self) -> None:
        """Writes whatever is left of a snapshot."""
        if self._flush is not None:
            self._flush.write(len(self._flush.snapshot))
            self._end_flush(self._flush)

    def _end_flush(self, flush: "_Flush") -> None:
        flush.file.finish()
        self._cache.note_deleted(flush.expired)
        self._flush = None


@dataclass(slots=True)
class _Flush:
    """A snapshot and the keys to delete, none of which it writes, on their way to the database; both ascend."""

    file: FlushFile
    snapshot: Snapshot
    expired: list[bytes]
    deleted: int = 0

    def advance(self, entities: int) -> bool:
        """Writes so many more entities; true once the file is complete and ready to be taken in."""
        self.write(entities)
        return self.snapshot.done and self.file.ready()

    def write(self, entities: int) -> None:
        for key, blob in self.snapshot.rows(entities):
            self._delete_before(key)
            self.file.put(key, blob)
        if self.snapshot.done:
            self._delete_before(b"\xff")

    def _delete_before(self, key: bytes) -> None:
        while self.deleted < len(self.expired) and self.expired[self.deleted] < key:
            self.file.delete(self.expired[self.deleted])
            self.deleted += 1


WARM_UP_CACHE_BYTES = 32 * 1024 * 1024


def warm_up(config: Config, spec: FeatureSpec) -> None:
    """Compiles every kernel, or loads it compiled, so that no event ever waits for that."""
    settings = State(
        cache_bytes_max=WARM_UP_CACHE_BYTES,
        dirty_bytes_max=WARM_UP_CACHE_BYTES // 4,
        ring_events_max=config.state.ring_events_max,
        ttl=config.state.ttl,
    )
    state = LocalState(msgspec.structs.replace(config, state=settings), spec, "", store=None)
    batch = _blank_batch(spec, 1)
    state.features(state.accept(batch))
    state.look(spec.entities[0].name, 1)
    state.run_rare_kernels()


def _blank_batch(spec: FeatureSpec, events: int) -> Batch:
    """Events at time 1 whose every key is there."""
    ones = np.ones(events, np.int64)
    return Batch(
        topic="",
        event_ids=[""] * events,
        event_id_hashes=ones.astype(np.uint64),
        times_ms=ones.copy(),
        amounts_minor=ones.copy(),
        currency="",
        keys={entity.name: ["-"] * events for entity in spec.entities},
        words=np.ones((events, len(spec.columns)), np.uint64),
        flags=np.zeros(events, np.int64),
        numbers={name: np.ones(events) for name in spec.types.numbers},
        categories={name: np.ones(events, np.uint64) for name, _ in (*spec.event.one_hot, *spec.event.hashed)},
        partition_keys=["-"] * events,
        partitions=ones.copy(),
        offsets=ones.copy(),
        record_times_ms=ones.copy(),
    )
