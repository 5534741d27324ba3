"""A Kafka cluster in memory: one thread, a fake clock, one seed; the same seed gives the same trace.

Nothing happens between two calls of a client. What takes time in the real cluster (a request, a heartbeat, a session, a
marker on its way) is a timer of the clock, and time passes only inside of calls that wait. `meanwhile` is called then,
so that other processes go on while one waits or stands still.
"""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Callable
from typing import TypeVar

from tests.sim.clock import Clock
from tests.sim.errors import NoAnswerError
from tests.sim.faults import Crash, Faults
from tests.sim.groups import Group
from tests.sim.log import Log, Stored
from tests.sim.process import Process
from tests.sim.transactions import Coordinator, Place

LATENCY_S = 0.0005
# A client asks again after this long without an answer (socket.timeout.ms), or after being told to (retry.backoff.ms).
REQUEST_TIMEOUT_S = 60.0
RETRY_S = 0.1

T = TypeVar("T")


class Cluster:
    """Topics, groups, transactions, and the processes that use them."""

    def __init__(self, faults: Faults | None = None, cluster_id: str = "simulated") -> None:
        self.clock = Clock()
        self.faults = faults if faults is not None else Faults()
        self.cluster_id = cluster_id
        self.topics: dict[str, list[Log]] = {}
        self.topic_ids: dict[str, str] = {}
        self.groups: dict[str, Group] = {}
        self.coordinator = Coordinator(self)
        self.trace: list[str] = []
        self.down = False
        # Lets the others take a step while this process waits; may let time pass, must not call for one of `waiting`.
        self.meanwhile: Callable[[Process], None] | None = None
        self.waiting: list[Process] = []
        self._on_up: list[Callable[[], object]] = []
        self._on_down: list[tuple[Process, Callable[[], object]]] = []

    # --- what a test does to it

    def process(self, name: str) -> Process:
        return Process(self, name)

    def create_topic(self, name: str, partitions: int = 1) -> None:
        """A topic, or more partitions for one that is there."""
        logs = self.topics.setdefault(name, [])
        self.topic_ids.setdefault(name, f"id-of-{name}")
        logs += [Log() for _ in range(partitions - len(logs))]

    def append(
        self,
        topic: str,
        partition: int,
        value: bytes | None,
        key: bytes | None = None,
        timestamp_ms: int | None = None,
    ) -> int:
        """A record of somebody outside of the simulation; returns its offset."""
        at_ms = self.now_ms() if timestamp_ms is None else timestamp_ms
        return self.log(topic, partition).append(Stored(0, key, value, None, at_ms))

    def stop_broker(self) -> None:
        """From now on nothing is answered."""
        self.note("broker down")
        self.down = True
        for process, listener in self._on_down:
            if process.alive:
                listener()

    def start_broker(self) -> None:
        self.note("broker up")
        self.down = False
        waiting, self._on_up = self._on_up, []
        for listener in waiting:
            listener()

    def outage(self, seconds: float) -> None:
        """The broker is away for so long."""
        self.stop_broker()
        self.clock.after(seconds, self.start_broker)

    # --- what its parts ask

    def note(self, text: str) -> None:
        self.trace.append(f"{self.clock.now_s:.4f} {text}")

    def trace_hash(self) -> str:
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()

    def now_ms(self) -> int:
        return int(self.clock.time() * 1_000)

    def log(self, topic: str, partition: int) -> Log:
        return self.topics[topic][partition]

    def has(self, topic: str, partition: int) -> bool:
        return 0 <= partition < len(self.topics.get(topic, []))

    def partition_of(self, topic: str, key: bytes | None, count: int) -> int:
        """The partition of a key; without one they take turns."""
        partitions = len(self.topics[topic])
        return (zlib.crc32(key) if key is not None else count) % partitions

    def group(self, name: str) -> Group:
        if name not in self.groups:
            self.groups[name] = Group(self, name)
        return self.groups[name]

    def write_marker(self, place: Place, writer: int, *, commit: bool) -> None:
        """The end of a transaction reaches a partition, or a group's offsets."""
        if isinstance(place, str):
            self.group(place).end_pending(writer, commit=commit)
        else:
            self.log(*place).end_transaction(writer, commit=commit, timestamp_ms=self.now_ms())

    def when_up(self, listener: Callable[[], object]) -> None:
        """Calls it once, when the broker is back; at once where it is not away."""
        if self.down:
            self._on_up.append(listener)
        else:
            listener()

    def when_down(self, process: Process, listener: Callable[[], object]) -> None:
        """Calls it at every outage, while the process lives."""
        self._on_down.append((process, listener))

    # --- time and requests

    def wait(self, process: Process, until_s: float, done: Callable[[], bool] = lambda: False) -> None:
        """Lets time pass until then, or until `done`. Raises Crash where the process is killed meanwhile."""
        while self.clock.now_s < until_s and not done():
            if self.meanwhile is not None:
                self.waiting.append(process)
                self.meanwhile(process)
                self.waiting.pop()
            next_s = self.clock.next_s()
            self.clock.advance_to(until_s if next_s is None else min(until_s, next_s))
            if not process.alive:
                raise Crash(f"{process.name} was killed while it waited")

    def request(self, process: Process, name: str, until_s: float, arrive: Callable[[], T]) -> T:
        """Sends a request, again and again as librdkafka does, until it is answered.

        Raises NoAnswerError when it is too late; whether it has taken effect is then unknown. Refusals pass through.
        """
        while True:
            process.step(name)
            step = f"{process.name} {name}"
            if not self.down and self.faults.hit("outage", step):
                self.outage(self.faults.random.uniform(0, self.faults.outage_s))
            if self.faults.hit("lost request", step):
                self._await_retry(process, until_s)
                continue
            if self.down:
                self.wait(process, min(until_s, self.clock.now_s + REQUEST_TIMEOUT_S), lambda: not self.down)
                if self.down and self.clock.now_s >= until_s:
                    raise NoAnswerError
                continue
            answer = arrive()
            self.clock.advance(LATENCY_S)
            if self.faults.hit("lost reply", step):
                self._await_retry(process, until_s)
                continue
            return answer

    def _await_retry(self, process: Process, until_s: float) -> None:
        retry_at_s = self.clock.now_s + REQUEST_TIMEOUT_S
        self.wait(process, min(until_s, retry_at_s))
        if until_s <= retry_at_s:
            raise NoAnswerError

    def deadline(self, timeout_s: float | None) -> float:
        """When a call with this timeout ends; without one, or with a negative one, never."""
        return math.inf if timeout_s is None or timeout_s < 0 else self.clock.now_s + timeout_s
