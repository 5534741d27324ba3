"""The loop of one worker: read a micro-batch, decide, produce, and commit now and then; one thread does it all.

poll -> process -> produce --(commit interval)--> flush outputs -> commit offsets -> snapshot of the state
  ^                                                                                        |
  +---- writes a slice of the snapshot to RocksDB between micro-batches <------------------+
"""

import logging
import threading
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.config import Config
from engine.emit import Outputs
from engine.errors import FatalError
from engine.events import Records
from engine.kafka.consume import Input
from engine.kafka.deliver import AtLeastOnce
from engine.observe.metrics import latencies_s
from engine.pipeline import Pipeline
from engine.recovery import Origin, Plan, plan_recovery, wrong_origin

_log = logging.getLogger("tidegate.worker")

VECTOR_COMMIT_INTERVAL_S = 3600.0
STATUS_INTERVAL_S = 1.0
# A flush writes at least this many entities between two micro-batches, and more than a batch can make dirty, so that
# it ends before the next one is due.
FLUSH_SLICE_ENTITIES = 256


@dataclass(slots=True)
class Worker:
    """Owns the input from `run` on; `stop` may be set by any thread or signal handler."""

    config: Config
    pipeline: Pipeline
    source: Input
    delivery: AtLeastOnce
    stop: threading.Event
    accept_cold_state: bool = False
    ready: bool = False

    def run(self) -> None:
        """Recovers, then decides until told to stop; ends with everything committed and the state on disk."""
        vector = self.recover()
        if vector is None:
            return
        loop = Loop(self, vector)
        self.pipeline.metrics.role = "active"
        self.ready = True
        _log.info("active", extra={"topic": self.source.topic, "partitions": len(vector)})
        while not self.stop.is_set():
            loop.turn()
        self.ready = False
        self.pipeline.metrics.role = "stopping"
        loop.drain()
        _log.info("stopped", extra={"events": self.pipeline.metrics.events})

    def recover(self) -> dict[int, int] | None:
        """Brings the state up to the committed offsets and returns them; None where it was told to stop meanwhile."""
        state = self.pipeline.state
        self._check_origin()
        bounds = self.source.bounds()
        loaded = state.header.loaded
        plan = plan_recovery(
            state.header.vector,
            self.source.committed(),
            bounds,
            loaded=loaded,
            accept_cold_state=self.accept_cold_state,
        )
        if plan.cold:
            self._begin_cold(bounds)
        # Before anything goes to disk, for state without a committed offset is refused.
        self.source.commit(plan.begin)
        # From here on there are committed offsets, and the state is like any other.
        state.header.loaded = False
        if plan.replay:
            self.pipeline.metrics.role = "replaying"
            _log.info("replaying into the state", extra={"events": plan.events})
            if not self._replay(plan):
                return None
        if loaded or state.header.vector != plan.begin:
            state.begin_flush(plan.begin)
            state.finish_flush()
        self.source.start(plan.begin)
        return plan.begin

    def poll(self) -> Records | None:
        """The next records."""
        kafka = self.config.kafka
        return self.source.poll(kafka.batch_events_max, kafka.batch_linger_ms / 1000)

    def _begin_cold(self, bounds: dict[int, tuple[int, int]]) -> None:
        """Flags what reaches back before the oldest record that is left, in the partition where that is newest."""
        unseen = {partition: first for partition, (first, end) in bounds.items() if first < end}
        unknown_until_ms = -1
        self.source.start(unseen)
        while unseen and not self.stop.is_set():
            records = self.poll()
            if records is None:
                # Nothing but transaction markers may be left of a partition.
                unseen = {p: first for p, first in unseen.items() if p not in self.source.ends}
                continue
            for partition in np.unique(records.partitions).tolist():
                if unseen.pop(partition, None) is not None:
                    oldest = int(np.argmax(records.partitions == partition))
                    unknown_until_ms = max(unknown_until_ms, int(records.record_times_ms[oldest]))
        self.source.stop()
        self.pipeline.state.begin_cold(unknown_until_ms + self.config.mapping.horizon_future_ms)

    def _check_origin(self) -> None:
        header, source = self.pipeline.state.header, self.source
        here = Origin(source.cluster_id, source.topic, source.topic_id)
        if wrong := wrong_origin(header, here):
            raise FatalError(f"{wrong}; name another state.dir")
        header.cluster_id, header.topic, header.topic_id = here

    def _replay(self, plan: Plan) -> bool:
        """Absorbs [from, to) of each partition, output suppressed; false where it was told to stop before the end."""
        metrics, state, source = self.pipeline.metrics, self.pipeline.state, self.source
        until = {partition: to for partition, (_, to) in plan.replay.items()}
        position = {partition: start for partition, (start, _) in plan.replay.items()}
        source.start(position)
        while not self.stop.is_set():
            metrics.replay_remaining = sum(max(0, until[p] - position[p]) for p in until)
            # A partition can end before `to` where transaction markers take up offsets.
            if all(position[p] >= until[p] or source.ends.get(p, -1) >= until[p] for p in until):
                source.stop()
                return True
            records = self.poll()
            if records is None:
                continue
            position |= next_offsets(records)
            replayed = select(records, records.offsets < np.array([until[p] for p in records.partitions.tolist()]))
            self.pipeline.absorb(replayed)
            metrics.replayed_events += len(replayed)
            if state.crowded(self.config.kafka.batch_events_max):
                state.begin_flush({**plan.begin, **{p: min(position[p], until[p]) for p in until}})
                state.finish_flush()
        return False


class Loop:
    """What the loop remembers between turns."""

    def __init__(self, worker: Worker, vector: dict[int, int]) -> None:
        self._worker = worker
        self._kafka = worker.config.kafka
        self._vector = vector
        self._uncommitted: list[Outputs] = []
        now = time.monotonic()
        self._commit_at = now + self._kafka.commit_interval_ms / 1000
        self._commit_anyway_at = now + VECTOR_COMMIT_INTERVAL_S
        self._flush_at = now + worker.config.state.flush_interval_s
        self._status_at = now
        self._newest_record_ms = -1

    def turn(self) -> Outputs | None:
        """One micro-batch, if any arrived, and what is due after it; returns what the batch put out."""
        worker = self._worker
        clock = worker.pipeline.metrics.stage_clock()
        records = worker.poll()
        outputs = None
        if records is not None:
            clock.done("consume")
            if worker.pipeline.state.crowded(len(records)):
                self._make_room()
                clock.restart()
            outputs = worker.pipeline.process(records)
            clock.restart()
            worker.delivery.produce(outputs)
            clock.done("produce")
            self._uncommitted.append(outputs)
            self._vector |= next_offsets(records)
            self._newest_record_ms = int(records.record_times_ms.max())
        now = time.monotonic()
        if (self._uncommitted and now >= self._commit_at) or now >= self._commit_anyway_at:
            self.commit(now)
        if now >= self._status_at:
            self._status(now)
        if worker.pipeline.state.flushing:
            clock.restart()
            events = len(records) if records is not None else 0
            slice_entities = FLUSH_SLICE_ENTITIES + events
            if worker.pipeline.state.continue_flush(slice_entities):
                worker.pipeline.metrics.flushes += 1
            clock.done("flush")
        return outputs

    def _make_room(self) -> None:
        """Dirty entities fill their share of memory: everything so far is committed and goes to disk first."""
        self.commit(time.monotonic())
        self._worker.pipeline.state.begin_flush(self._vector)
        self._worker.pipeline.state.finish_flush()

    def commit(self, now: float) -> None:
        """Commits; then, and only then, the state at this vector may go to disk."""
        worker, state = self._worker, self._worker.pipeline.state
        clock = worker.pipeline.metrics.stage_clock()
        worker.delivery.commit(self._vector)
        clock.done("commit")
        metrics = worker.pipeline.metrics
        metrics.commits += 1
        now_ms = time.time_ns() // 1_000_000
        for outputs in self._uncommitted:
            metrics.event_to_decision.observe(latencies_s(outputs.record_times_ms, now_ms))
        self._uncommitted.clear()
        self._commit_at = now + self._kafka.commit_interval_ms / 1000
        self._commit_anyway_at = now + VECTOR_COMMIT_INTERVAL_S
        over = metrics.dirty_bytes > worker.config.state.dirty_bytes_max
        if (over or now >= self._flush_at) and not state.flushing:
            state.begin_flush(self._vector)
            self._flush_at = now + worker.config.state.flush_interval_s
            clock.done("snapshot")

    def _status(self, now: float) -> None:
        """Numbers that need not be fresher than a second."""
        metrics, state = self._worker.pipeline.metrics, self._worker.pipeline.state
        metrics.lag_events = self._worker.source.lag_events(self._vector)
        behind = any(metrics.lag_events.values()) and self._newest_record_ms >= 0
        metrics.lag_seconds = max(0.0, time.time() - self._newest_record_ms / 1000) if behind else 0.0
        metrics.state_entities = state.entities()
        metrics.dirty_bytes = state.dirty_bytes()
        metrics.cache_hits, metrics.cache_misses = state.cache_hits, state.cache_misses
        self._status_at = now + STATUS_INTERVAL_S

    def drain(self) -> None:
        """Commits what was decided and writes the state down."""
        now = time.monotonic()
        self.commit(now)
        state = self._worker.pipeline.state
        state.begin_flush(self._vector)
        state.finish_flush()


def next_offsets(records: Records) -> dict[int, int]:
    """The next offset to read of each partition in these records."""
    return {
        partition: int(records.offsets[records.partitions == partition].max()) + 1
        for partition in np.unique(records.partitions).tolist()
    }


def select(records: Records, wanted: NDArray[np.bool_]) -> Records:
    """The records of these rows."""
    if wanted.all():
        return records
    rows = np.flatnonzero(wanted)
    at = rows.tolist()
    return Records(
        records.topic,
        [records.values[row] for row in at],
        records.partitions[rows],
        records.offsets[rows],
        records.record_times_ms[rows],
        [records.keys[row] for row in at] if records.keys else [],
    )
