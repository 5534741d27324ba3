"""The simulated cluster itself: what it does to processes, and that a seed decides all of it."""

import logging
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from engine.errors import FatalError
from tests.sim.clients import SimClients
from tests.sim.cluster import Cluster
from tests.sim.consumer import SimConsumer
from tests.sim.faults import Crash, Faults
from tests.sim.process import Process
from tests.sim.producer import SimProducer
from tests.sim.store import Disk, SimStore

RATES = {
    "crash": 0.004,
    "stall": 0.002,
    "lost request": 0.01,
    "late request": 0.02,
    "lost reply": 0.01,
    "repeated request": 0.05,
    "disconnect": 0.05,
    "moved": 0.05,
    "abortable": 0.05,
    "late produce": 0.05,
    "failed produce": 0.01,
    "slow markers": 0.1,
    "slow fetch": 0.1,
}
LEASE = {
    "group.id": "app",
    "session.timeout.ms": 6_000,
    "heartbeat.interval.ms": 300,
    "partition.assignment.strategy": "cooperative-sticky",
    "auto.offset.reset": "earliest",
}


class Worker:
    """A process with the clients that a worker has."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.process: Process = cluster.process(name)
        self.clients = SimClients(cluster, self.process)
        self.lease: SimConsumer = self.clients.consumer(LEASE)
        self.lease.subscribe(["lease"])

    def producer(self, **settings: Any) -> SimProducer:
        return self.clients.producer({"transactional.id": "app", **settings})

    def begun(self, *values: bytes) -> SimProducer:
        """A producer with these in an open transaction."""
        producer = self.producer()
        producer.init_transactions(10)
        producer.begin_transaction()
        for value in values:
            producer.produce("out", value)
        assert producer.flush(10) == 0
        return producer

    def send_offset(self, producer: SimProducer, offset: int) -> None:
        producer.send_offsets_to_transaction([TopicPartition("in", 0, offset)], self.lease.consumer_group_metadata(), 5)

    @property
    def holds(self) -> bool:
        return bool(self.lease.assignment())


def cluster_of(seed: int = 0, rates: dict[str, float] | None = None) -> Cluster:
    cluster = Cluster(Faults(seed, rates or {}))
    for topic in ("in", "out", "lease"):
        cluster.create_topic(topic)
    return cluster


def settled(cluster: Cluster, *names: str) -> list[Worker]:
    """Workers of which the first holds the lease."""
    workers = []
    for name in names:
        workers.append(Worker(cluster, name))
        for _ in range(20):
            for worker in workers:
                worker.lease.poll(0.1)
    assert [worker.holds for worker in workers] == [True] + [False] * (len(names) - 1)
    return workers


def visible(cluster: Cluster, topic: str = "out") -> list[bytes | None]:
    records, _ = cluster.log(topic, 0).read(0, 1_000, committed_only=True)
    return [record.value for record in records]


def failure_code(call: Any) -> int:
    with pytest.raises(KafkaException) as raised:
        call()
    return int(raised.value.args[0].code())


# --- one seed, one run


def busy_run(seed: int) -> str:
    """A worker that commits one transaction after the other, and begins anew after whatever goes wrong."""
    cluster = cluster_of(seed, dict(RATES))
    for life in range(6):
        try:
            worker = Worker(cluster, f"worker-{life}")
            producer = worker.begun()
            for number in range(30):
                worker.lease.poll(0.05)
                producer.produce("out", b"%d" % number)
                producer.flush(1)
                worker.send_offset(producer, number)
                producer.commit_transaction(5)
                producer.begin_transaction()
        except (Crash, KafkaException, AssertionError):
            cluster.clock.advance(1.0)
    return cluster.trace_hash()


def test_the_same_seed_gives_the_same_trace_and_another_one_another() -> None:
    assert [busy_run(seed) for seed in range(5)] == [busy_run(seed) for seed in range(5)]
    assert len({busy_run(seed) for seed in range(5)}) == 5


# --- processes


def test_a_killed_process_makes_no_call_and_its_lease_moves_when_its_session_is_over() -> None:
    cluster = cluster_of()
    first, second = settled(cluster, "a", "b")
    producer = first.begun(b"open")
    killed_s = cluster.clock.now_s
    first.process.kill()
    for call in (lambda: producer.commit_transaction(5), lambda: first.lease.poll(0)):
        with pytest.raises(Crash):
            call()
    while not second.holds:
        second.lease.poll(0.1)
    assert 5.5 < cluster.clock.now_s - killed_s < 6.5
    assert visible(cluster) == []
    second.begun(b"next").commit_transaction(5)
    cluster.clock.advance(1.0)
    assert visible(cluster) == [b"next"]


def test_a_paused_process_loses_the_lease_and_learns_of_it_when_it_goes_on() -> None:
    cluster = cluster_of()
    first, second = settled(cluster, "a", "b")
    producer = first.begun(b"zombie")
    first.process.pause()
    while not second.holds:
        second.lease.poll(0.1)
    first.process.resume()
    assert first.lease.memberid() is None
    assert first.holds, "what it was given, it keeps until it polls"
    assert failure_code(lambda: first.send_offset(producer, 5)) == KafkaError.UNKNOWN_MEMBER_ID
    first.lease.poll(0)
    assert not first.holds
    for _ in range(10):
        first.lease.poll(0.1)
        second.lease.poll(0.1)
    assert first.lease.memberid() is not None
    assert (first.holds, second.holds) == (False, True)


def test_a_short_pause_costs_nothing() -> None:
    cluster = cluster_of()
    first, second = settled(cluster, "a", "b")
    first.process.pause()
    for _ in range(40):
        second.lease.poll(0.1)
    first.process.resume()
    for _ in range(100):
        first.lease.poll(0.1)
        second.lease.poll(0.1)
    assert (first.holds, second.holds) == (True, False)


def test_a_process_that_does_not_poll_keeps_the_lease_only_for_max_poll_interval() -> None:
    cluster = cluster_of()
    first, second = settled(cluster, "a", "b")
    for _ in range(2_900):
        second.lease.poll(0.1)
    assert not second.holds, "its heartbeats go on"
    while not second.holds:
        second.lease.poll(0.1)
    assert cluster.clock.now_s < 320
    message = first.lease.poll(0)
    assert message is not None
    assert message.error().code() == KafkaError._MAX_POLL_EXCEEDED
    assert not first.holds


def test_a_crash_can_be_put_at_any_step() -> None:
    for crash_at in range(200):
        cluster = cluster_of()
        worker = settled(cluster, "a")[0]
        worker.process.crash_at = worker.process.steps + crash_at
        try:
            worker.begun(b"x").commit_transaction(5)
        except Crash:
            assert not worker.process.alive
            cluster.clock.advance(80.0)
            assert visible(cluster) in ([], [b"x"])
        else:
            assert crash_at > 10
            return
    pytest.fail("there is no end of steps")


def test_others_go_on_while_a_process_stands_still() -> None:
    cluster = cluster_of()
    first, second = settled(cluster, "a", "b")
    producer = first.begun(b"zombie")
    cluster.meanwhile = lambda _waiting: None if second.process in cluster.waiting else second.lease.poll(0.1) and None
    cluster.faults.force("stall", "a send_offsets")
    assert failure_code(lambda: first.send_offset(producer, 1)) == KafkaError.UNKNOWN_MEMBER_ID
    assert second.holds


# --- what goes wrong with one request


def test_a_repeated_commit_hits_the_next_transaction_and_only_the_log_tells() -> None:
    cluster = cluster_of()
    worker = settled(cluster, "a")[0]
    lines: list[str] = []
    logger = logging.Logger("test")
    logger.addHandler(_Lines(lines))
    producer = worker.producer(logger=logger, error_cb=lambda _error: pytest.fail("it is told to nobody else"))
    producer.init_transactions(5)
    producer.begin_transaction()
    producer.produce("out", b"first")
    cluster.faults.force("repeated request", "a EndTxn commit")
    producer.commit_transaction(5)
    assert lines == []
    producer.poll(0)
    assert ["FAIL" in line and "TxnCoordinator" in line for line in lines] == [True]
    producer.begin_transaction()
    producer.produce("out", b"half")
    producer.flush(5)
    cluster.clock.advance(cluster.faults.late_s)
    assert visible(cluster) == [b"first", b"half"]


class _Lines(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(record.getMessage())


@pytest.mark.parametrize(
    ("kind", "at_once", "later"),
    [("lost request", [], []), ("late request", [], [b"x"]), ("lost reply", [b"x"], [b"x"])],
)
def test_a_commit_without_an_answer_leaves_its_outcome_open(
    kind: str, at_once: list[bytes], later: list[bytes]
) -> None:
    cluster = cluster_of()
    worker = settled(cluster, "a")[0]
    producer = worker.begun(b"x")
    cluster.faults.force(kind, "a EndTxn commit")
    assert failure_code(lambda: producer.commit_transaction(5)) == KafkaError._TIMED_OUT
    assert visible(cluster) == at_once
    cluster.clock.advance(3.0)
    assert visible(cluster) == later


def test_whoever_inits_after_a_commit_without_an_answer_settles_it_for_good() -> None:
    for kind in ("lost request", "late request", "lost reply"):
        cluster = cluster_of()
        worker = settled(cluster, "a")[0]
        cluster.faults.force(kind, "a EndTxn commit")
        assert failure_code(lambda worker=worker: worker.begun(b"x").commit_transaction(5)) == KafkaError._TIMED_OUT
        worker.producer().init_transactions(5)
        settled_as = visible(cluster)
        cluster.clock.advance(200.0)
        assert visible(cluster) == settled_as


def test_a_poll_may_fail_with_system_error_where_the_producer_is_fenced() -> None:
    cluster = cluster_of()
    worker = settled(cluster, "a")[0]
    producer = worker.begun(b"x")
    worker.producer().init_transactions(5)
    producer.produce("out", b"y")
    cluster.faults.force("system error", "a")
    with pytest.raises(SystemError):
        producer.flush(5)
    assert producer.poll(0) == 0
    assert failure_code(lambda: producer.commit_transaction(5)) == KafkaError._FENCED


def test_markers_arrive_one_by_one() -> None:
    cluster = cluster_of(rates={"slow markers": 1.0})
    worker = settled(cluster, "a")[0]
    producer = worker.begun(b"x")
    worker.send_offset(producer, 7)
    producer.commit_transaction(5)
    group = cluster.group("app")
    seen = set()
    for _ in range(40):
        seen.add((visible(cluster) == [b"x"], group.offsets.get(("in", 0)) == 7))
        cluster.clock.advance(0.1)
    assert (False, False) in seen
    assert (True, True) in seen
    assert len(seen) == 3, "for a while only one of the two could be seen"


def test_a_failed_message_makes_the_transaction_abort() -> None:
    cluster = cluster_of()
    worker = settled(cluster, "a")[0]
    producer = worker.begun()
    cluster.faults.force("failed produce", "a Produce")
    told: list[int] = []
    producer.produce("out", b"x", on_delivery=lambda why, _message: told.append(why.code()))
    assert producer.flush(5) == 0
    assert told == [KafkaError._MSG_TIMED_OUT]
    assert failure_code(lambda: producer.commit_transaction(5)) == KafkaError._TIMED_OUT
    producer.abort_transaction(5)
    assert visible(cluster) == []


def test_a_late_message_holds_back_those_behind_it() -> None:
    cluster = cluster_of()
    worker = settled(cluster, "a")[0]
    producer = worker.begun()
    cluster.faults.force("late produce", "a Produce")
    producer.produce("out", b"1")
    assert producer.flush(0.1) == 1
    producer.produce("out", b"2")
    assert producer.flush(0.1) == 2
    producer.commit_transaction(5)
    cluster.clock.advance(0.1)
    assert visible(cluster) == [b"1", b"2"]


def test_what_was_produced_at_least_once_may_be_there_after_a_crash_or_not() -> None:
    found = set()
    for seed in range(30):
        cluster = cluster_of(seed)
        process = cluster.process("a")
        producer = SimClients(cluster, process).producer({})
        for number in range(3):
            producer.produce("out", b"%d" % number)
        process.kill()
        found.add(len(visible(cluster)))
    assert found == {0, 1, 2, 3}


def test_a_coordinator_that_moved_is_an_error_only_where_librdkafka_gives_it_on() -> None:
    cluster = cluster_of()
    worker = settled(cluster, "a")[0]
    cluster.faults.force("moved", "a committed")
    asked = [TopicPartition("in", 0)]
    assert failure_code(lambda: worker.lease.committed(asked, timeout=5)) == KafkaError.NOT_COORDINATOR
    assert worker.lease.committed(asked, timeout=5)[0].offset < 0
    cluster.faults.force("moved", "a EndTxn")
    worker.begun(b"x").commit_transaction(5)


def test_an_outage_ends_the_session_and_the_lease_comes_back_after_it() -> None:
    cluster = cluster_of()
    first, second = settled(cluster, "a", "b")
    cluster.outage(20.0)
    for _ in range(40):
        first.lease.poll(0.1)
        second.lease.poll(0.1)
    assert not first.holds
    while not (first.holds or second.holds):
        first.lease.poll(0.1)
        second.lease.poll(0.1)
    assert cluster.clock.now_s < 45
    assert first.holds != second.holds


def test_a_short_outage_delays_a_commit_and_changes_nothing() -> None:
    cluster = cluster_of()
    worker = settled(cluster, "a")[0]
    producer = worker.begun(b"x")
    cluster.outage(3.0)
    producer.commit_transaction(10)
    cluster.clock.advance(1.0)
    assert visible(cluster) == [b"x"]
    assert worker.holds


# --- the disk


def test_a_torn_flush_leaves_all_or_nothing() -> None:
    found = set()
    for seed in range(20):
        cluster, disk = cluster_of(seed), Disk()
        process = cluster.process("a")
        cluster.faults.force("torn flush", "a")
        flush = SimStore(disk, process).begin_flush()
        flush.put(b"1", b"x")
        flush.put(b"2", b"y")
        with pytest.raises(Crash):
            flush.finish()
        reopened = SimStore(disk, cluster.process("b"))
        found.add(tuple(sorted(reopened.rows)))
    assert found == {(), (b"1", b"2")}


def test_a_crash_before_a_flush_leaves_nothing_and_a_full_disk_says_so() -> None:
    cluster, disk = cluster_of(), Disk()
    process = cluster.process("a")
    store = SimStore(disk, process)
    store.begin_flush().put(b"1", b"x")
    process.kill()
    assert disk.rows == {}
    store = SimStore(disk, cluster.process("b"))
    cluster.faults.force("full disk", "b flush")
    flush = store.begin_flush()
    flush.put(b"1", b"x")
    with pytest.raises(FatalError, match="no space"):
        flush.finish()
    with pytest.raises(FatalError, match="no space"):
        store.begin_flush()
    disk.full = False
    flush = store.begin_flush()
    flush.put(b"1", b"x")
    flush.finish()
    assert disk.rows == {b"1": b"x"}
