"""The smallest exactly-once application on the simulated cluster: it copies a topic, and must neither lose nor repeat.

It shows that the cluster is hard enough to find what is wrong (each mistake below is found) and fair enough that what
is right gets to the end.
"""

import logging
from dataclasses import dataclass, field
from typing import Any

import pytest
from confluent_kafka import KafkaException, TopicPartition

from tests.sim.clients import SimClients
from tests.sim.cluster import Cluster
from tests.sim.consumer import SimConsumer
from tests.sim.faults import Crash, Faults
from tests.sim.process import Process
from tests.sim.producer import SimProducer

RATES = {
    "crash": 0.003,
    "stall": 0.003,
    "lost request": 0.005,
    "late request": 0.02,
    "lost reply": 0.01,
    "repeated request": 0.03,
    "disconnect": 0.02,
    "moved": 0.02,
    "abortable": 0.02,
    "late produce": 0.02,
    "failed produce": 0.01,
    "slow markers": 0.1,
    "slow fetch": 0.05,
    "rebalance": 0.01,
    "outage": 0.002,
}
LEASE = {
    "group.id": "app",
    "session.timeout.ms": 6_000,
    "heartbeat.interval.ms": 300,
    "partition.assignment.strategy": "cooperative-sticky",
    "auto.offset.reset": "earliest",
}
INPUT = {"group.id": "app", "auto.offset.reset": "error", "enable.auto.commit": False}
RECORDS = 400
STEPS_MAX = 3_000


class DoubtError(Exception):
    """Nobody knows what became of the transaction."""


class _Lines(logging.Handler):
    """Counts the lines that tell of a connection that broke."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += 1


@dataclass
class Copier:
    """One worker. `mistakes` are what it does wrong on purpose."""

    cluster: Cluster
    name: str
    mistakes: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.process: Process = self.cluster.process(self.name)
        self._clients = SimClients(self.cluster, self.process)
        self._lease: SimConsumer | None = None
        self._input: SimConsumer | None = None
        self._producer: SimProducer | None = None
        self._lines = _Lines()
        self._lost = False

    def step(self) -> None:
        """Follows, takes over, or copies a few records in one transaction."""
        if self._lease is None:
            self._lease = self._clients.consumer(LEASE)
            self._lease.subscribe(["lease"], on_lost=self._on_lost, on_revoke=self._on_lost)
            self._input = self._clients.consumer(INPUT)
            self._unstable = self._clients.consumer({**INPUT, "isolation.level": "read_uncommitted"})
        self._lease.poll(0.02)
        if self._lost or not self._lease.assignment():
            self._producer, self._lost = None, False
            return
        try:
            if self._producer is None:
                self._take_over()
            self._copy()
        except (KafkaException, DoubtError, BufferError):
            self._producer = None

    def _on_lost(self, _consumer: Any, _partitions: list[TopicPartition]) -> None:
        self._lost = True

    def _take_over(self) -> None:
        """Settles what the last producer left, and only then asks how far it came."""
        assert self._input is not None
        logger = logging.Logger(self.name)
        self._lines = _Lines()
        logger.addHandler(self._lines)
        producer = self._clients.producer(
            {"transactional.id": "app", "transaction.timeout.ms": 10_000, "logger": logger}
        )
        early = self._committed(self._unstable) if "reads unstable offsets before init" in self.mistakes else None
        producer.init_transactions(10)
        offset = self._committed(self._input) if early is None else early
        if not ("skipped rewind" in self.mistakes and self._input.assignment()):
            self._input.assign([TopicPartition("in", 0, offset)])
        self._producer = producer

    def _committed(self, consumer: SimConsumer) -> int:
        return max(0, consumer.committed([TopicPartition("in", 0)], timeout=5)[0].offset)

    def _copy(self) -> None:
        assert self._producer is not None
        assert self._input is not None
        assert self._lease is not None
        records = self._input.consume(5, 0.02)
        if not records:
            return
        self._producer.begin_transaction()
        for record in records:
            self._producer.produce("out", record.value(), partition=0)
        if self._producer.flush(5):
            raise DoubtError
        self._send_offsets(records[-1].offset() + 1)
        self._producer.commit_transaction(2)
        self._producer.poll(0)
        if self._lines.count and "log not read" not in self.mistakes:
            raise DoubtError

    def _send_offsets(self, offset: int) -> None:
        assert self._producer is not None
        assert self._lease is not None
        offset += "off by one" in self.mistakes
        owner = self._input if "outsider's metadata" in self.mistakes else self._lease
        assert owner is not None
        self._producer.send_offsets_to_transaction(
            [TopicPartition("in", 0, offset)], owner.consumer_group_metadata(), 5
        )


def visible(cluster: Cluster) -> list[bytes | None]:
    records, _ = cluster.log("out", 0).read(0, 100_000, committed_only=True)
    return [record.value for record in records]


def run(seed: int, *mistakes: str) -> Cluster:
    """Two copiers, faults for a while, then calm until all is copied. Raises AssertionError where it is wrong."""
    cluster = Cluster(Faults(seed, dict(RATES)))
    for topic in ("in", "out", "lease"):
        cluster.create_topic(topic)
    wanted = [b"%d" % cluster.append("in", 0, b"%d" % number) for number in range(RECORDS)]
    copiers = [Copier(cluster, f"copier-{number}", set(mistakes)) for number in range(2)]

    def step(index: int) -> None:
        try:
            copiers[index].step()
        except Crash:
            copiers[index] = Copier(cluster, f"copier-{index}", set(mistakes))

    def meanwhile(_waiting: Process) -> None:
        idle = [index for index, copier in enumerate(copiers) if copier.process not in cluster.waiting]
        if idle:
            step(cluster.faults.random.choice(idle))

    cluster.meanwhile = meanwhile
    for number in range(STEPS_MAX):
        step(cluster.faults.random.randrange(2))
        copied = visible(cluster)
        assert copied == wanted[: len(copied)], f"seed {seed}: lost, repeated or out of order"
        if number == STEPS_MAX // 10:
            cluster.faults.calm()
        if copied == wanted and number > STEPS_MAX // 10:
            return cluster
    raise AssertionError(f"seed {seed}: it does not get to the end: {len(copied)} of {RECORDS}")


@pytest.mark.parametrize("seed", range(20))
def test_two_copiers_lose_and_repeat_nothing(seed: int) -> None:
    first = run(seed)
    assert run(seed).trace_hash() == first.trace_hash()


@pytest.mark.parametrize(
    "mistake",
    ["reads unstable offsets before init", "skipped rewind", "log not read", "off by one"],
)
def test_a_mistake_is_found(mistake: str) -> None:
    assert any(fails(seed, mistake) for seed in range(200)), "no seed shows what is wrong"


def fails(seed: int, mistake: str) -> bool:
    try:
        run(seed, mistake)
    except AssertionError:
        return True
    return False
