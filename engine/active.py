"""The loop of the worker that holds the lease: read a micro-batch, decide, produce, and commit now and then.

poll -> process -> produce --(commit interval)--> progress, outputs and offsets committed -> snapshot of the state
  ^                                                                                               |
  +-------- writes a slice of the snapshot to RocksDB between micro-batches <---------------------+
"""

import threading
from dataclasses import dataclass, field

import numpy as np

from engine.clock import Clock
from engine.config import Config
from engine.emit import Outputs
from engine.events import Records
from engine.flusher import Flusher, Position
from engine.kafka.consume import Input
from engine.kafka.deliver import Delivery
from engine.kafka.journal import Journal
from engine.kafka.lease import Lease
from engine.observe.drift import Tally
from engine.observe.metrics import latencies_s
from engine.pipeline import Pipeline
from engine.progress import Progress, Run, joined, refused_of, runs_of
from engine.reporter import Reporter
from engine.rollout import Rollout
from engine.telemetry import Versions

VECTOR_COMMIT_INTERVAL_S = 3600.0
# A commit that takes longer is waited for: outputs pile up behind it.
ANSWER_S_MAX = 1.0
STATUS_INTERVAL_S = 1.0
VISIBLE_POLL_S, VISIBLE_POLLS_MAX = 0.005, 100


@dataclass(slots=True)
class Stage:
    """What a loop works with; all of it outlasts one tenure."""

    config: Config
    pipeline: Pipeline
    source: Input
    journal: Journal
    lease: Lease
    delivery: Delivery
    flusher: Flusher
    rollout: Rollout
    reporter: Reporter
    clock: Clock


@dataclass(slots=True)
class Uncommitted:
    """What the next commit makes final."""

    runs: list[Run] = field(default_factory=list)
    refused: list[Run] = field(default_factory=list)
    canary: str = ""
    record_times_ms: list[np.ndarray] = field(default_factory=list)
    tallies: dict[Versions, Tally] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.runs)


class Loop:
    """One tenure. `vector`: what is read next, of which `committed` is committed, by the `sequence`-th commit."""

    def __init__(self, stage: Stage, vector: dict[int, int], sequence: int, tenure: int) -> None:
        self._stage = stage
        self._kafka = stage.config.kafka
        self.vector = dict(vector)
        self.committed = dict(vector)
        self.sent = dict(vector)
        self.sequence = sequence
        self.tenure = tenure
        # Commits of ours, and of nobody else, are from here on up to the newest of ours.
        self._progress_offset = stage.journal.position
        # What comes there now is of our own writing.
        stage.journal.stop()
        self._uncommitted = Uncommitted()
        # What was asked for last, as long as it is not answered.
        self._pending: Uncommitted | None = None
        now = stage.clock.monotonic()
        self._commit_at = now + self._kafka.commit_interval_ms / 1000
        self._commit_anyway_at = now + VECTOR_COMMIT_INTERVAL_S
        self._status_at = now
        self._partitions_at = now + self._kafka.partitions_check_s
        self._newest_record_ms = -1
        stage.reporter.begin(stage.pipeline)

    def turn(self) -> Outputs | None:
        """One micro-batch, if any arrived, and what is due after it; returns what the batch put out.

        Raises as `Lease.check`, `Delivery.produce` and `Delivery.commit`.
        """
        stage = self._stage
        stage.lease.check(self.tenure)
        clock = stage.pipeline.metrics.stage_clock()
        records = stage.source.poll(self._kafka.batch_events_max, self._kafka.batch_linger_ms / 1000)
        outputs = None
        if records is not None:
            clock.done("consume")
            outputs = self._decide(records)
        now = stage.clock.monotonic()
        self._commit_due(now)
        stage.rollout.tick(stage.pipeline, may_swap=not self._uncommitted)
        stage.reporter.tick(stage.pipeline)
        if now >= self._status_at:
            self._status(now)
        if now >= self._partitions_at:
            self._find_new_partitions(now)
        clock.restart()
        if stage.pipeline.state.flushing:
            stage.flusher.advance(len(records) if records is not None else 0)
            clock.done("flush")
        return outputs

    def _decide(self, records: Records) -> Outputs:
        stage = self._stage
        if stage.pipeline.state.crowded(len(records)):
            # Dirty entities fill their share of memory: everything so far is committed and goes to disk first.
            self.commit(to_disk=True)
            stage.flusher.whole(self._position())
        outputs = stage.pipeline.process(records)
        clock = stage.pipeline.metrics.stage_clock()
        stage.delivery.produce(outputs)
        clock.done("produce")
        self._uncommitted.runs += runs_of(records)
        self._uncommitted.refused += refused_of(outputs.dead_letters)
        self._uncommitted.canary = outputs.canary or self._uncommitted.canary
        self._uncommitted.record_times_ms.append(outputs.record_times_ms)
        self.vector |= next_offsets(records)
        self._newest_record_ms = int(records.record_times_ms.max())
        return outputs

    def _commit_due(self, now: float) -> None:
        """Notes the end of the last commit, and begins the next one when it is time; waits only where it must."""
        stage = self._stage
        if self._pending is not None and stage.delivery.settled():
            self._note_committed()
        if now < self._commit_at:
            return
        if self._pending is not None or (self._uncommitted and stage.flusher.due()):
            self.commit()
        elif self._uncommitted:
            self._begin_commit(now)
        elif now >= self._commit_anyway_at:
            # An active group forgets offsets of topics that no member subscribes to, unless they are committed anew.
            stage.lease.commit(self.committed, self.tenure)
            self._commit_anyway_at = now + VECTOR_COMMIT_INTERVAL_S

    def _begin_commit(self, now: float) -> None:
        """Asks for what was decided to be committed, and notes so if it is at once."""
        stage = self._stage
        clock = stage.pipeline.metrics.stage_clock()
        self.sent = dict(self.vector)
        self._uncommitted.tallies = stage.reporter.take()
        stage.delivery.begin_commit(self._progress())
        self._pending, self._uncommitted = self._uncommitted, Uncommitted()
        self._commit_at = now + ANSWER_S_MAX
        if stage.delivery.settled():
            self._note_committed()
        clock.done("commit")

    def commit(self, *, to_disk: bool = False) -> None:
        """Commits what was decided, and waits; then, and only then, the state at this vector may go `to_disk`."""
        stage = self._stage
        due = stage.flusher.due()
        if self._pending is not None:
            self._settle()
        if self._uncommitted:
            end = stage.journal.end() if due or to_disk else self._progress_offset
            self._begin_commit(stage.clock.monotonic())
            if self._pending is not None:
                self._settle()
            self._progress_offset = end
        if due:
            clock = stage.pipeline.metrics.stage_clock()
            stage.flusher.begin(self._position())
            clock.done("snapshot")

    def _settle(self) -> None:
        clock = self._stage.pipeline.metrics.stage_clock()
        self._stage.delivery.settle()
        clock.done("commit")
        self._note_committed()

    def _progress(self) -> Progress:
        pipeline = self._stage.pipeline
        return Progress(
            application_id=self._kafka.application_id,
            input=self._kafka.input,
            sequence=self.sequence + 1,
            vector=dict(self.vector),
            runs=joined(self._uncommitted.runs),
            refused=list(self._uncommitted.refused),
            state_fingerprint=pipeline.state.header.fingerprint,
            feature_set=pipeline.feature_set,
            model=pipeline.model.label,
            canary=self._uncommitted.canary,
            policy=pipeline.program.policy.label,
            control=pipeline.lists.control_offset,
        )

    def _note_committed(self) -> None:
        stage, metrics = self._stage, self._stage.pipeline.metrics
        assert self._pending is not None
        self.sequence += 1
        self.committed = self.sent
        metrics.commits += 1
        now_ms = stage.clock.time_ms()
        for record_times_ms in self._pending.record_times_ms:
            metrics.event_to_decision.observe_all(latencies_s(record_times_ms, now_ms))
        stage.reporter.add(self._pending.tallies)
        self._pending = None
        now = stage.clock.monotonic()
        self._commit_at = now + self._kafka.commit_interval_ms / 1000
        self._commit_anyway_at = now + VECTOR_COMMIT_INTERVAL_S

    def _position(self) -> Position:
        """Where the state stands after a commit. Its place in `progress` is the end as it was before that commit, which
        shows that nobody else wrote until then: by now a successor may have, if this process stood still meanwhile.
        """
        return Position(self.committed, self.sequence, self._progress_offset)

    def _status(self, now: float) -> None:
        """Numbers that need not be fresher than a second."""
        stage, metrics = self._stage, self._stage.pipeline.metrics
        metrics.lag_events = stage.source.lag_events(self.vector)
        behind = any(metrics.lag_events.values()) and self._newest_record_ms >= 0
        metrics.lag_seconds = max(0.0, (stage.clock.time_ms() - self._newest_record_ms) / 1000) if behind else 0.0
        stage.flusher.note()
        self._status_at = now + STATUS_INTERVAL_S

    def _find_new_partitions(self, now: float) -> None:
        """Reads partitions that the topic has got since from their beginning, once all before is committed."""
        stage = self._stage
        self._partitions_at = now + self._kafka.partitions_check_s
        if found := stage.source.find_new_partitions():
            self.commit()
            self.vector |= {partition: first for partition, (first, _) in stage.source.bounds(found).items()}
            stage.lease.commit(self.vector, self.tenure)
            self.committed = dict(self.vector)
            stage.source.start(self.vector)

    def drain(self) -> None:
        """Commits what was decided and gives up the lease, so that a standby goes on; then writes the state down."""
        self.commit(to_disk=True)
        self._stage.reporter.end(self._stage.pipeline)
        self._await_visible()
        position = self._position()
        self._stage.lease.release()
        self._stage.flusher.whole(position)

    def _await_visible(self) -> None:
        """Until the last commit can be read, or for half a second.

        A successor would take it for one that is under way, and librdkafka asks every 500 ms whether it is over.
        """
        never = threading.Event()
        for _ in range(VISIBLE_POLLS_MAX):
            if self._stage.journal.end() > self._progress_offset:
                return
            self._stage.clock.wait(never, VISIBLE_POLL_S)


def next_offsets(records: Records) -> dict[int, int]:
    """The next offset to read of each partition in these records."""
    return {
        partition: int(records.offsets[records.partitions == partition].max()) + 1
        for partition in np.unique(records.partitions).tolist()
    }
