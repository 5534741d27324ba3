"""A topic, its committed offsets and a state directory that outlast the worker, and a crash at any step of it.

Every call that touches the outside counts as a step, and any step can be the last one of a process:

    poll -> produce -> [deliver -> ... -> deliver] -> commit offsets -> flush: [rows] -> visible
      1        2            3               4              5               6         7

What was produced but not delivered is lost with the process, as it would be.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import orjson

from engine.config import Config
from engine.emit import Outputs
from engine.events import DeadLetter, Records
from engine.state.header import decode_header
from engine.state.keys import HEADER
from engine.worker import Worker
from tests.memory_store import MemoryFlush, MemoryStore
from tests.pipelines import pipeline_of, records_of

TOPIC, CLUSTER, TOPIC_ID = "in", "cluster", "topic"
DELIVERIES_PER_COMMIT = 3


class Crash(BaseException):
    """The process is gone: no handler, no clean-up of ours."""


@dataclass
class Outside:
    """What outlasts a worker. `log[partition]` are the values, offsets counting up from `first[partition]`."""

    log: dict[int, list[bytes | None]]
    first: dict[int, int] = field(default_factory=dict)
    committed: dict[int, int] = field(default_factory=dict)
    decisions: list[bytes] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    crash_at: int | None = None
    starts: int = 0

    def __post_init__(self) -> None:
        self.store = WatchedStore(self)

    def step(self, name: str) -> None:
        """Something is about to happen, unless the process ends here."""
        if len(self.steps) == self.crash_at:
            raise Crash(name)
        self.steps.append(name)

    def bounds(self) -> dict[int, tuple[int, int]]:
        firsts = {partition: self.first.get(partition, 0) for partition in self.log}
        return {partition: (first, first + len(self.log[partition])) for partition, first in firsts.items()}

    def restart(self, crash_at: int | None = None) -> None:
        """The next process begins, and may crash too."""
        self.steps, self.crash_at = [], crash_at


class WatchedStore(MemoryStore):
    """Refuses, as a test failure, state that is ahead of the committed offsets."""

    def __init__(self, outside: Outside) -> None:
        super().__init__()
        self.outside = outside

    def begin_flush(self) -> MemoryFlush:
        self.outside.step("begin flush")
        return WatchedFlush(self)

    def vector(self) -> dict[int, int] | None:
        """The offset vector on disk."""
        stored = self.rows.get(HEADER)
        return None if stored is None else decode_header(stored).vector


class WatchedFlush(MemoryFlush):
    def __init__(self, store: WatchedStore) -> None:
        super().__init__(store)
        self._outside = store.outside
        self._watched = store

    def finish(self) -> None:
        self._outside.step("flush")
        super().finish()
        vector = self._watched.vector() or {}
        ahead = {
            p: (at, self._outside.committed.get(p))
            for p, at in vector.items()
            if at > self._outside.committed.get(p, -1)
        }
        assert ahead == {}, "state reached the disk before its offsets were committed"
        self._outside.step("flushed")


@dataclass
class ScriptedInput:
    """Stands in for `engine.kafka.consume.Input`; at the end of the topic it asks the worker to stop."""

    outside: Outside
    stop_worker: threading.Event
    # Which partition the n-th poll reads from; by default they take turns.
    order: Callable[[int], int] = lambda poll: poll

    def __post_init__(self) -> None:
        self.topic, self.cluster_id, self.topic_id = TOPIC, CLUSTER, TOPIC_ID
        self.partitions = sorted(self.outside.log)
        self.ends: dict[int, int] = {}
        self._position: dict[int, int] = {}
        self._polls = 0

    def committed(self) -> dict[int, int]:
        return dict(self.outside.committed)

    def bounds(self) -> dict[int, tuple[int, int]]:
        return self.outside.bounds()

    def start(self, vector: dict[int, int]) -> None:
        self.ends, self._position = {}, dict(vector)

    def stop(self) -> None:
        self._position = {}

    def poll(self, events_max: int, _linger_s: float) -> Records | None:
        self.outside.step("poll")
        self._polls += 1
        bounds = self.outside.bounds()
        waiting = [p for p, at in sorted(self._position.items()) if at < bounds[p][1]]
        self.ends |= {p: bounds[p][1] for p in self._position if p not in waiting}
        if not waiting:
            self.stop_worker.set()
            return None
        partition = waiting[self.order(self._polls) % len(waiting)]
        at, (first, end) = self._position[partition], bounds[partition]
        assert at >= first, "asked for what is no longer in the topic"
        # Of many sizes, and cut otherwise by every process, so that a replay does not end where a batch once did.
        size = (5, 3, 8, 4, 6)[(self._polls + self.outside.starts) % 5]
        until = min(at + min(size, events_max), end)
        self._position[partition] = until
        records = records_of(
            self.outside.log[partition][at - first : until - first], partition, range(at, until), TOPIC
        )
        records.record_times_ms[:] = self.outside_times(partition, at, until)
        return records

    def outside_times(self, partition: int, at: int, until: int) -> list[int]:
        """Record timestamps: one a second from 2025 on."""
        return [1_735_689_600_000 + 1_000 * offset for offset in range(at, until)]

    def lag_events(self, vector: dict[int, int]) -> dict[int, int]:
        return {partition: self.outside.bounds()[partition][1] - at for partition, at in vector.items()}

    def commit(self, vector: dict[int, int]) -> None:
        self.outside.step("commit")
        self.outside.committed |= vector
        self.outside.step("committed")


@dataclass
class ScriptedDelivery:
    """Stands in for `engine.kafka.deliver.AtLeastOnce`: what is produced arrives at the next commit, bit by bit."""

    source: ScriptedInput
    pending: list[Outputs] = field(default_factory=list)

    def produce(self, outputs: Outputs) -> None:
        self.source.outside.step("produce")
        self.pending.append(outputs)

    def commit(self, vector: dict[int, int]) -> None:
        outside = self.source.outside
        decisions = [message["value"] for outputs in self.pending for message in outputs.decisions]
        share = -(-len(decisions) // DELIVERIES_PER_COMMIT)
        for start in range(0, len(decisions), share or 1):
            outside.step("deliver")
            outside.decisions += decisions[start : start + share]
        outside.dead_letters += [letter for outputs in self.pending for letter in outputs.dead_letters]
        self.pending.clear()
        self.source.commit(vector)


class Ticks:
    """A clock that moves on by the same step whenever somebody looks."""

    def __init__(self, step_s: float) -> None:
        self._step_s = step_s
        self._now_s = 0.0

    def monotonic(self) -> float:
        self._now_s += self._step_s
        return self._now_s

    def time(self) -> float:
        return self._now_s

    def time_ns(self) -> int:
        return int(self._now_s * 1e9)

    def perf_counter(self) -> float:
        return self._now_s


def start(
    outside: Outside,
    config: Config,
    *,
    accept_cold_state: bool = False,
    order: Callable[[int], int] = lambda poll: poll,
) -> Worker:
    """A new process on what the last one left."""
    outside.starts += 1
    stop = threading.Event()
    source = ScriptedInput(outside, stop, order=order)
    pipeline = pipeline_of(config, outside.store)
    return Worker(config, pipeline, source, ScriptedDelivery(source), stop, accept_cold_state)  # type: ignore[arg-type]


def by_id(decisions: list[bytes]) -> dict[str, bytes]:
    """One decision per id; all that share an id must be equal to the byte."""
    found: dict[str, bytes] = {}
    for decision in decisions:
        known = found.setdefault(orjson.loads(decision)["decision_id"], decision)
        assert known == decision, "an event was decided twice, and not alike"
    return found
