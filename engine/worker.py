"""One worker from start to end: it follows what others decide until it holds the lease, and then decides itself.

    prepare --> stand by --(lease)--> settle, replay up to C --> decide ... --(stop)--> drain
       ^                                        |                   |
       +------ everything not committed is dropped <----------------+   no answer, doubt, lease lost

There is one way back from everything that does not end well: drop the state in memory, open the one on disk, which
never is ahead of the committed offsets, and take from the input what lies between.
"""

import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from engine.active import Loop, Stage
from engine.clock import SYSTEM_CLOCK, Clock
from engine.config import Config
from engine.crashpoints import reached
from engine.errors import FatalError, FencedError, MissingTopicError, RetriableError
from engine.flusher import Flusher, Position
from engine.follow import Follower
from engine.kafka.consume import Input
from engine.kafka.deliver import Delivery
from engine.kafka.journal import Journal
from engine.kafka.lease import Lease, LeaseLostError
from engine.kafka.transaction import DoubtError
from engine.pipeline import Pipeline
from engine.recovery import Origin, Plan, plan_recovery, wrong_origin
from engine.reporter import Reporter
from engine.rollout import Rollout
from engine.state.checkpoints import Checkpoints

_log = logging.getLogger("tidegate.worker")

# How long a standby with nothing to do waits for news: what a hand-over costs at most.
IDLE_S = 0.02
BACKOFF_S = 0.2
# For so long a topic may be unknown to a worker that has read it before.
MISSING_S = 30.0
STATUS_INTERVAL_S = 1.0


@dataclass(slots=True)
class Worker:
    """`stop` may be set by any thread or signal handler. `loop` is there while it decides."""

    config: Config
    pipeline: Pipeline
    source: Input
    journal: Journal
    lease: Lease
    delivery: Delivery
    rollout: Rollout
    reporter: Reporter
    stop: threading.Event
    clock: Clock = SYSTEM_CLOCK
    checkpoints: Checkpoints | None = None
    accept_cold_state: bool = False
    ready: bool = False
    loop: Loop | None = None
    follower: Follower = field(init=False)
    flusher: Flusher = field(init=False)
    _expected: tuple[int, list[dict[int, int]]] | None = None
    _status_at: float = 0.0
    _missing_since: float | None = None
    # Where `progress` ended when following began: before that was read, it is not known what is committed.
    _journal_end: int = 0

    def __post_init__(self) -> None:
        self.flusher = Flusher(self.pipeline, self.config.state, self.clock, self.checkpoints)
        self.follower = Follower(
            self.pipeline,
            self.source,
            self.journal,
            confirmed_by_next=self.config.kafka.delivery == "at_least_once",
            batch_events_max=self.config.kafka.batch_events_max,
        )

    def run(self) -> None:
        """Works until told to stop; ends with everything committed and the state on disk."""
        for _ in self.turns():
            pass
        _log.info("stopped", extra={"events": self.pipeline.metrics.events})

    def turns(self) -> Iterator[None]:
        """The same in small steps.

        Raises RetriableError only where it has never been ready, MissingTopicError also where a topic stays away.
        """
        has_been_ready = False
        prepared = False
        while not self.stop.is_set():
            try:
                if not prepared:
                    self._prepare()
                    prepared = True
                for _ in self._tenure():
                    if self.ready:
                        has_been_ready, self._missing_since = True, None
                    yield
            except (RetriableError, MissingTopicError) as error:
                if not has_been_ready or (isinstance(error, MissingTopicError) and self._is_gone_for_good()):
                    raise
                self._step_back(error)
                prepared = False
                yield

    def _is_gone_for_good(self) -> bool:
        """A broker that has just started knows of no topic for a moment; said for longer, it is true."""
        now = self.clock.monotonic()
        if self._missing_since is None:
            self._missing_since = now
        return now - self._missing_since > MISSING_S

    def _prepare(self) -> None:
        """Finds where the state on disk stands in the input, and begins to follow from there."""
        self.pipeline.metrics.role = "starting"
        # What it has heard of the broker is told when it is polled; as long as nobody answers, nothing else polls it.
        self.lease.poll()
        state = self.pipeline.state
        self._check_origin()
        # Others may have read partitions that were not there when this process began.
        self.source.find_new_partitions()
        committed, bounds = self.lease.committed(self.source.partitions), self.source.bounds()
        # A commit is answered before everybody can see its offsets: who is ahead is judged once nothing is pending.
        stored = state.header.vector
        plan = self._plan({p: max(offset, stored.get(p, 0)) for p, offset in committed.items()}, bounds)
        if plan.cold:
            self._begin_cold(bounds)
        position = plan.begin | {partition: start for partition, (start, _) in plan.replay.items()}
        (first, end), commits, offset = self.journal.bounds(), state.header.commits, state.header.progress_offset
        if not first <= offset <= end:
            # Made anew, or retention took what follows: the numbers are those of the first record that there is.
            _log.warning("progress is not there", extra={"offset": offset, "first": first, "end": end})
            commits, offset = 0, first
        self._journal_end = end
        self.follower.start(position, commits, offset)

    def _plan(self, committed: dict[int, int], bounds: dict[int, tuple[int, int]]) -> Plan:
        header = self.pipeline.state.header
        return plan_recovery(
            header.vector, committed, bounds, loaded=header.loaded, accept_cold_state=self.accept_cold_state
        )

    def _check_origin(self) -> None:
        header, source = self.pipeline.state.header, self.source
        here = Origin(source.cluster_id, source.topic, source.topic_id)
        if wrong := wrong_origin(header, here):
            raise FatalError(f"{wrong}; name another state.dir")
        header.cluster_id, header.topic, header.topic_id = here

    def _begin_cold(self, bounds: dict[int, tuple[int, int]]) -> None:
        """Flags what reaches back before the oldest record that is left, in the partition where that is newest."""
        unseen = {partition: first for partition, (first, end) in bounds.items() if first < end}
        unknown_until_ms = -1
        self.source.start(unseen)
        while unseen and not self.stop.is_set():
            records = self.source.poll(self.config.kafka.batch_events_max, self.config.kafka.batch_linger_ms / 1000)
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

    def _tenure(self) -> Iterator[None]:
        """Until the lease is held, and then as long as it is."""
        yield from self._stand_by()
        if self.stop.is_set():
            self._end_standby()
            return
        self.rollout.settle(self.pipeline)
        yield from self._take_over()
        if self.loop is None:
            return
        _log.info("active", extra={"topic": self.source.topic, "partitions": len(self.loop.vector)})
        self.pipeline.metrics.role, self.ready = "active", True
        while not self.stop.is_set():
            self.loop.turn()
            yield
        self.pipeline.metrics.role, self.ready = "stopping", False
        self.loop.drain()

    def _stand_by(self) -> Iterator[None]:
        """Follows what the active one commits."""
        self.lease.join()
        while not self.stop.is_set() and not self.lease.poll():
            busy = self.follower.remaining > 0
            self.follower.hear(0.0 if busy else IDLE_S)
            taken = self.follower.take(IDLE_S)
            self.ready = self.follower.remaining == 0 and self.journal.has_reached(self._journal_end)
            self._keep(taken)
            self._note_standby("standby" if self.ready else "replaying")
            self.rollout.tick(self.pipeline, may_swap=True)
            yield

    def _note_standby(self, role: str) -> None:
        metrics, now = self.pipeline.metrics, self.clock.monotonic()
        metrics.role, metrics.replay_remaining = role, self.follower.remaining
        if now >= self._status_at:
            self.flusher.note()
            self._status_at = now + STATUS_INTERVAL_S

    def _keep(self, taken: int) -> None:
        """Writes state down while following, as far as it is needed."""
        state = self.pipeline.state
        if state.crowded(self.config.kafka.batch_events_max):
            self.flusher.whole(self._followed())
        elif self.flusher.due() and self.follower.sequence > state.header.commits:
            self.flusher.begin(self._followed())
        self.flusher.advance(taken)

    def _followed(self) -> Position:
        """Where the follower stands; within a commit, the one that is behind it for sure."""
        header, follower = self.pipeline.state.header, self.follower
        if follower.settled:
            return Position(follower.position, follower.sequence, self.journal.position)
        return Position(follower.position, header.commits, header.progress_offset)

    def _take_over(self) -> Iterator[None]:
        """Settles what the predecessor left, takes what is committed, and begins."""
        metrics, tenure = self.pipeline.metrics, self.lease.tenure
        self.loop = None
        metrics.role, self.ready = "replaying", False
        self.delivery.open(tenure)
        reached("settled")
        self.source.find_new_partitions()
        committed, bounds = self.lease.committed(self.source.partitions), self.source.bounds()
        self._check_nobody_else_committed(committed, tenure)
        # Who is ahead is refused now; what retention has taken since was followed before.
        self._plan(committed, {partition: (0, end) for partition, (_, end) in bounds.items()})
        self.follower.hear_to(self.journal.end())
        # If this process stood still meanwhile, a successor has written what the offsets that were read do not hold.
        self.lease.prove(tenure)
        self.follower.take_rest(committed)
        _log.info("replaying into the state", extra={"events": self.follower.remaining})
        while not self.follower.settled:
            if self.stop.is_set():
                return
            self.lease.check(tenure)
            self._keep(self.follower.take(IDLE_S))
            metrics.replay_remaining = self.follower.remaining
            yield
        metrics.replay_remaining = 0
        vector = {partition: first for partition, (first, _) in bounds.items()} | self.follower.position
        # Before anything goes to disk, for state without a committed offset is refused.
        self.lease.commit(vector, tenure)
        reached("begin")
        self._end_of_loading(vector)
        self.source.start(vector)
        stage = Stage(
            self.config,
            self.pipeline,
            self.source,
            self.journal,
            self.lease,
            self.delivery,
            self.flusher,
            self.rollout,
            self.reporter,
            self.clock,
        )
        self.loop = Loop(stage, vector, max(self.follower.sequence, self.pipeline.state.header.commits), tenure)

    def _check_nobody_else_committed(self, committed: dict[int, int], tenure: int) -> None:
        """FencedError where the offsets moved in a tenure of ours, and not by us."""
        if self._expected is None or self._expected[0] != tenure:
            return
        if committed not in self._expected[1]:
            raise FencedError("the committed offsets were changed by somebody else while this worker held the lease")

    def _end_of_loading(self, vector: dict[int, int]) -> None:
        """From here on there are committed offsets, and a state made of history is like any other."""
        header = self.pipeline.state.header
        if header.loaded:
            header.loaded = False
            self.flusher.whole(Position(vector, self.follower.sequence, self.journal.position))

    def _step_back(self, error: RetriableError | MissingTopicError) -> None:
        """Drops what was not committed: the state is again what is on disk."""
        metrics, loop = self.pipeline.metrics, self.loop
        if isinstance(error, DoubtError):
            metrics.doubts += 1
        metrics.aborts += 1
        # Whoever decides now knows it.
        metrics.lag_events, metrics.lag_seconds = {}, 0.0
        metrics.role, self.ready = "starting", False
        _log.warning("going back to what is committed", extra={"why": str(error)})
        if loop is not None:
            self._expected = (loop.tenure, [loop.committed, loop.sent])
        self.loop = None
        self.reporter.end(self.pipeline)
        self.pipeline.state = self.pipeline.state.reopened()
        if not isinstance(error, LeaseLostError):
            self.clock.wait(self.stop, BACKOFF_S)

    def _end_standby(self) -> None:
        """What was followed goes to disk, so that the next start has less to replay."""
        self.pipeline.metrics.role, self.ready = "stopping", False
        self.lease.release()
        if self.follower.sequence > self.pipeline.state.header.commits:
            self.flusher.whole(self._followed())
