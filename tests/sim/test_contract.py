"""What the engine relies on in Kafka, shown for the simulated cluster and for the real broker by the same tests."""

import logging
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from confluent_kafka import OFFSET_INVALID, KafkaError, KafkaException, TopicPartition

from tests.sim.worlds import RealWorld, SimulatedWorld, World, unique

ANSWER_TIMEOUT_S = 15.0
SESSION_S = 6.0
LEASE = {
    "session__timeout__ms": int(SESSION_S * 1_000),
    "heartbeat__interval__ms": 300,
    "partition__assignment__strategy": "cooperative-sticky",
    "auto__offset__reset": "earliest",
}


@pytest.fixture(params=["simulated", pytest.param("real", marks=pytest.mark.broker)])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "simulated":
        yield SimulatedWorld()
        return
    real = RealWorld(request.getfixturevalue("kafka_bootstrap"), request.getfixturevalue("topic_factory"))
    yield real
    real.close()


class Failure(NamedTuple):
    """What decides about an error."""

    code: int
    fatal: bool = False
    retriable: bool = False
    abort: bool = False


def failure_of(error: KafkaError) -> Failure:
    return Failure(error.code(), error.fatal(), error.retriable(), error.txn_requires_abort())


def failure(call: Callable[[], Any]) -> Failure:
    """How the call fails."""
    with pytest.raises(KafkaException) as raised:
        call()
    return failure_of(raised.value.args[0])


def raised_by_poll(producer: Any) -> Failure | None:
    try:
        producer.poll(0)
    except KafkaException as error:
        return failure_of(error.args[0])
    return None


class Lines(logging.Handler):
    """What a client says to its `logger`."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []
        self.logger = logging.Logger("tests.contract")
        self.logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


FENCED = Failure(KafkaError._FENCED, fatal=True)
RESUMABLE = Failure(KafkaError._TIMED_OUT, retriable=True)
CONFLICT = Failure(KafkaError._CONFLICT, retriable=True)
WRONG_STATE = Failure(KafkaError._STATE)


def reader(world: World, topic: str, offset: int = 0, **settings: Any) -> Any:
    """A consumer of partition 0 from this offset on."""
    consumer = world.consumer(unique("reader"), **settings)
    consumer.assign([TopicPartition(topic, 0, offset)])
    return consumer


def read(consumer: Any, end: int) -> list[tuple[int, bytes]]:
    """Offsets and values up to the event that says that the partition ends at `end`."""
    found = []
    while True:
        message = consumer.poll(ANSWER_TIMEOUT_S)
        assert message is not None, f"the partition does not end at {end}; before it: {found}"
        if message.error() is None:
            found.append((message.offset(), message.value()))
        elif message.offset() == end:
            assert message.error().code() == KafkaError._PARTITION_EOF
            return found


def spin(world: World, consumers: list[Any], until: Callable[[], bool], limit_s: float = ANSWER_TIMEOUT_S) -> float:
    """Polls them in turn until something holds; returns how long that took."""
    began_s = world.now_s()
    while not until():
        assert world.now_s() < began_s + limit_s, "it did not happen"
        for consumer in consumers:
            consumer.poll(0.02)
    return world.now_s() - began_s


def ready(world: World, transactional_id: str, **settings: Any) -> Any:
    """A producer whose transaction has begun."""
    producer = world.producer(transactional_id, **settings)
    producer.init_transactions(ANSWER_TIMEOUT_S)
    producer.begin_transaction()
    return producer


def put(producer: Any, topic: str, *values: bytes) -> None:
    for value in values:
        producer.produce(topic, value, partition=0)
    assert producer.flush(ANSWER_TIMEOUT_S) == 0


class Holder:
    """A consumer of a lease topic and what it was told."""

    def __init__(self, world: World, group: str, topic: str) -> None:
        self.told: list[tuple[str, list[int]]] = []
        self.consumer = world.consumer(group, **LEASE)
        self.consumer.subscribe(
            [topic], on_assign=self._note("assign"), on_revoke=self._note("revoke"), on_lost=self._note("lost")
        )

    def _note(self, what: str) -> Callable[[Any, list[TopicPartition]], None]:
        return lambda _consumer, partitions: self.told.append((what, [tp.partition for tp in partitions]))

    @property
    def holds(self) -> bool:
        return bool(self.consumer.assignment())

    @property
    def metadata(self) -> Any:
        return self.consumer.consumer_group_metadata()


def holder_of(world: World, group: str, topic: str) -> Holder:
    """The first member, which gets the lease."""
    holder = Holder(world, group, topic)
    spin(world, [holder.consumer], lambda: holder.holds)
    return holder


def standby_of(world: World, holder: Holder, group: str, topic: str) -> Holder:
    """One more member, once the group has settled with it."""
    standby = Holder(world, group, topic)
    before = len(holder.told)
    spin(world, [holder.consumer, standby.consumer], lambda: len(holder.told) > before and bool(standby.told))
    return standby


def committed(consumer: Any, topic: str) -> int:
    return int(consumer.committed([TopicPartition(topic, 0)], timeout=ANSWER_TIMEOUT_S)[0].offset)


def commit(consumer: Any, topic: str, offset: int) -> int:
    answers = consumer.commit(offsets=[TopicPartition(topic, 0, offset)], asynchronous=False)
    return int(answers[0].offset)


def send_offset(producer: Any, topic: str, offset: int, metadata: Any) -> None:
    producer.send_offsets_to_transaction([TopicPartition(topic, 0, offset)], metadata, ANSWER_TIMEOUT_S)


# --- what a read_committed consumer sees


def test_an_open_transaction_is_invisible_and_holds_the_stable_offset(world: World) -> None:
    topic = world.topic()
    producer = ready(world, unique("writer"))
    put(producer, topic, b"a", b"b")
    consumer = reader(world, topic)
    assert read(consumer, end=0) == []
    at = TopicPartition(topic, 0)
    assert consumer.get_watermark_offsets(at, timeout=ANSWER_TIMEOUT_S) == (0, 0)
    assert consumer.get_watermark_offsets(at, cached=True) == (0, 2), "from the cache comes the high watermark"
    assert read(reader(world, topic, isolation__level="read_uncommitted"), end=2) == [(0, b"a"), (1, b"b")]
    producer.abort_transaction(ANSWER_TIMEOUT_S)


def test_aborted_records_are_invisible_and_markers_take_offsets(world: World) -> None:
    topic = world.topic()
    producer = ready(world, unique("writer"))
    put(producer, topic, b"aborted")
    producer.abort_transaction(ANSWER_TIMEOUT_S)
    producer.begin_transaction()
    put(producer, topic, b"committed")
    producer.commit_transaction(ANSWER_TIMEOUT_S)
    consumer = reader(world, topic)
    assert read(consumer, end=4) == [(2, b"committed")]
    assert consumer.position([TopicPartition(topic, 0)])[0].offset == 4
    assert consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=ANSWER_TIMEOUT_S) == (0, 4)


def test_a_transaction_hides_what_others_wrote_after_its_beginning(world: World) -> None:
    topic = world.topic()
    producer = ready(world, unique("writer"))
    put(producer, topic, b"open")
    put(world.producer(), topic, b"plain")
    consumer = reader(world, topic)
    assert read(consumer, end=0) == []
    producer.commit_transaction(ANSWER_TIMEOUT_S)
    assert read(consumer, end=3) == [(0, b"open"), (1, b"plain")]


def test_the_end_of_a_partition_is_told_once_and_again_after_new_records(world: World) -> None:
    topic = world.topic()
    producer = world.producer()
    put(producer, topic, b"a")
    consumer = reader(world, topic)
    assert read(consumer, end=1) == [(0, b"a")]
    assert consumer.poll(0.3) is None
    put(producer, topic, b"b")
    assert read(consumer, end=2) == [(1, b"b")]


def test_consume_waits_for_the_whole_timeout_unless_it_is_full(world: World) -> None:
    topic = world.topic()
    put(world.producer(), topic, b"a", b"b", b"c")
    consumer = reader(world, topic)
    read(consumer, end=3)
    consumer.assign([TopicPartition(topic, 0, 0)])
    began_s = world.now_s()
    assert len(consumer.consume(2, ANSWER_TIMEOUT_S)) == 2
    assert world.now_s() - began_s < ANSWER_TIMEOUT_S / 2
    began_s = world.now_s()
    assert len(consumer.consume(10, 0.4)) == 2, "a record and the end"
    assert world.now_s() - began_s >= 0.39


def test_a_consumer_that_never_resets_says_that_a_position_is_gone(world: World) -> None:
    topic = world.topic()
    put(world.producer(), topic, b"a", b"b", b"c")
    world.delete_before(topic, 2)
    for offset, told in ((99, 99), (0, 0), (OFFSET_INVALID, None)):
        message = reader(world, topic, offset).poll(ANSWER_TIMEOUT_S)
        assert failure_of(message.error()) == Failure(KafkaError._AUTO_OFFSET_RESET)
        assert message.offset() == told
    assert read(reader(world, topic, 2), end=3) == [(2, b"c")]


def test_a_partition_or_topic_that_is_not_there_is_silent(world: World) -> None:
    topic = world.topic()
    consumer = world.consumer(unique("reader"))
    consumer.assign([TopicPartition(topic, 7, 0)])
    assert consumer.poll(1.0) is None
    for at in (TopicPartition(topic, 7), TopicPartition(unique("none"), 0)):
        asked = failure(lambda at=at: consumer.get_watermark_offsets(at, timeout=ANSWER_TIMEOUT_S))
        assert asked == Failure(KafkaError._UNKNOWN_PARTITION)
        assert consumer.get_watermark_offsets(at, cached=True) == (OFFSET_INVALID, OFFSET_INVALID)
    missing = unique("none")
    told = consumer.list_topics(missing, timeout=ANSWER_TIMEOUT_S).topics[missing]
    assert failure_of(told.error) == Failure(KafkaError.UNKNOWN_TOPIC_OR_PART)
    assert told.partitions == {}
    there = consumer.list_topics(topic, timeout=ANSWER_TIMEOUT_S).topics[topic]
    assert (there.error, sorted(there.partitions)) == (None, [0])


def test_a_closed_consumer_refuses_everything_but_close(world: World) -> None:
    consumer = world.consumer(unique("reader"))
    consumer.close()
    consumer.close()
    for call in (consumer.memberid, lambda: consumer.poll(0), lambda: consumer.committed([], timeout=1)):
        with pytest.raises(RuntimeError, match="Consumer closed"):
            call()


# --- producing


def test_a_full_queue_takes_a_part_of_a_batch_and_says_so_in_the_others(world: World) -> None:
    topic = world.topic()
    producer = world.producer(queue__buffering__max__messages=5, linger__ms=2_000)
    messages: list[dict[str, Any]] = [{"value": b"%d" % number} for number in range(8)]
    assert producer.produce_batch(topic, messages) == 5
    assert ["_error" in message for message in messages] == [False] * 5 + [True] * 3
    assert failure_of(messages[5]["_error"]) == Failure(KafkaError._QUEUE_FULL)
    with pytest.raises(BufferError):
        producer.produce(topic, b"x")
    assert producer.flush(ANSWER_TIMEOUT_S) == 0
    assert len(read(reader(world, topic), end=5)) == 5


def test_a_message_that_is_too_large_is_refused_at_once(world: World) -> None:
    topic = world.topic()
    producer = world.producer()
    large = b"x" * 2_000_000
    assert failure(lambda: producer.produce(topic, large)) == Failure(KafkaError.MSG_SIZE_TOO_LARGE)
    messages: list[dict[str, Any]] = [{"value": large}, {"value": b"small"}]
    assert producer.produce_batch(topic, messages) == 1
    assert failure_of(messages[0]["_error"]) == Failure(KafkaError.MSG_SIZE_TOO_LARGE)
    assert producer.flush(ANSWER_TIMEOUT_S) == 0


def test_a_report_is_called_from_poll_or_flush(world: World) -> None:
    topic = world.topic()
    told: list[tuple[int | None, int]] = []
    producer = world.producer()
    producer.produce(topic, b"x", partition=0, on_delivery=lambda why, message: told.append((why, message.offset())))
    producer.produce(topic, b"y", partition=7, on_delivery=lambda why, message: told.append((why.code(), -1)))
    assert told == []
    assert producer.flush(ANSWER_TIMEOUT_S) == 0
    assert sorted(told, key=str) == [(KafkaError._UNKNOWN_PARTITION, -1), (None, 0)]


def test_a_producer_without_a_transactional_id_has_no_transactions(world: World) -> None:
    producer = world.producer()
    for call in (producer.begin_transaction, lambda: producer.init_transactions(1)):
        assert failure(call) == Failure(KafkaError._NOT_CONFIGURED)


# --- the states of a transaction


def test_calls_out_of_order_are_refused_and_change_nothing(world: World) -> None:
    topic = world.topic()
    producer = world.producer(unique("writer"))
    assert failure(producer.begin_transaction) == WRONG_STATE
    producer.init_transactions(ANSWER_TIMEOUT_S)
    for call in (
        lambda: producer.init_transactions(ANSWER_TIMEOUT_S),
        lambda: producer.produce(topic, b"x"),
        lambda: producer.commit_transaction(ANSWER_TIMEOUT_S),
        lambda: producer.abort_transaction(ANSWER_TIMEOUT_S),
    ):
        assert failure(call) == WRONG_STATE
    producer.begin_transaction()
    assert failure(producer.begin_transaction) == WRONG_STATE
    put(producer, topic, b"a")
    producer.commit_transaction(ANSWER_TIMEOUT_S)
    assert read(reader(world, topic), end=2) == [(0, b"a")]


def test_an_empty_transaction_asks_nobody_and_does_not_notice_that_it_is_fenced(world: World) -> None:
    name = unique("writer")
    old = ready(world, name)
    world.producer(name).init_transactions(ANSWER_TIMEOUT_S)
    old.commit_transaction(ANSWER_TIMEOUT_S)
    old.begin_transaction()
    old.abort_transaction(ANSWER_TIMEOUT_S)


def test_init_transactions_aborts_what_the_predecessor_left_open(world: World) -> None:
    topic, name = world.topic(), unique("writer")
    put(ready(world, name), topic, b"left open")
    began_s = world.now_s()
    world.producer(name).init_transactions(ANSWER_TIMEOUT_S)
    assert world.now_s() - began_s >= 0.4, "librdkafka asks again only after half a second"
    assert read(reader(world, topic), end=2) == []


@pytest.mark.parametrize("call", ["commit", "abort", "offsets"])
def test_a_fenced_producer_is_dead_at_its_next_request(world: World, call: str) -> None:
    topic, name = world.topic(), unique("writer")
    old = ready(world, name)
    put(old, topic, b"old")
    new = ready(world, name)
    consumer = world.consumer(unique("group"))
    calls: dict[str, Callable[[], None]] = {
        "commit": lambda: old.commit_transaction(ANSWER_TIMEOUT_S),
        "abort": lambda: old.abort_transaction(ANSWER_TIMEOUT_S),
        "offsets": lambda: send_offset(old, topic, 1, consumer.consumer_group_metadata()),
    }
    assert failure(calls[call]) == FENCED
    for again in (*calls.values(), old.begin_transaction, lambda: old.init_transactions(1)):
        assert failure(again) == FENCED
    assert failure(lambda: old.produce(topic, b"x")) == Failure(KafkaError._FATAL)
    raised = [raised_by_poll(old) for _ in range(3)]
    assert raised == [FENCED, None, None] or (isinstance(world, RealWorld) and raised == [None] * 3), (
        "polling raises it too, once; librdkafka has been seen not to, on a loaded machine"
    )
    put(new, topic, b"new")
    new.commit_transaction(ANSWER_TIMEOUT_S)
    assert read(reader(world, topic), end=4) == [(2, b"new")]


@pytest.mark.parametrize("begun", [True, False])
def test_a_fenced_producer_cannot_write(world: World, begun: bool) -> None:
    topic, name = world.topic(), unique("writer")
    old = ready(world, name)
    if begun:
        put(old, topic, b"old")
    world.producer(name).init_transactions(ANSWER_TIMEOUT_S)
    old.produce(topic, b"zombie", partition=0)
    assert failure(lambda: old.flush(ANSWER_TIMEOUT_S)) == FENCED
    assert failure(lambda: old.commit_transaction(ANSWER_TIMEOUT_S)) == FENCED
    put(world.producer(), topic, b"after")
    end = 3 if begun else 1
    assert read(reader(world, topic), end=end) == [(end - 1, b"after")]


@pytest.mark.slow
def test_a_transaction_that_is_over_its_time_is_aborted_and_its_producer_fenced(world: World) -> None:
    topic = world.topic()
    settings = {"transaction__timeout__ms": 1_000, "message__timeout__ms": 1_000}
    producers = [ready(world, unique("writer"), **settings) for _ in range(2)]
    for producer in producers:
        put(producer, topic, b"late")
    world.sleep(13.0)
    assert read(reader(world, topic), end=4) == []
    assert failure(lambda: producers[0].commit_transaction(ANSWER_TIMEOUT_S)) == FENCED
    assert failure(lambda: producers[1].abort_transaction(ANSWER_TIMEOUT_S)) == FENCED


# --- an EndTxn that arrives late (KIP-890)


def test_a_late_commit_commits_the_next_transaction_too_early(world: World) -> None:
    topic, name = world.topic(), unique("writer")
    producer = ready(world, name, debug="eos")
    put(producer, topic, b"first")
    producer.commit_transaction(ANSWER_TIMEOUT_S)
    consumer = reader(world, topic)
    assert read(consumer, end=2) == [(0, b"first")]
    assert world.late_end(name, commit=True) == 0, "between two transactions it is a repetition"
    producer.begin_transaction()
    put(producer, topic, b"half")
    assert world.late_end(name, commit=True) == 0
    assert read(consumer, end=4) == [(2, b"half")]


def test_a_commit_is_repeated_silently_and_only_the_log_tells(world: World) -> None:
    topic = world.topic()
    lines = Lines()
    producer = world.fragile_producer(
        unique("writer"), logger=lines.logger, error_cb=lambda _error: pytest.fail("another call tells it too")
    )
    producer.init_transactions(ANSWER_TIMEOUT_S)
    producer.begin_transaction()
    put(producer, topic, b"first")
    producer.poll(0)
    lines.said.clear()
    world.hold_next_end()
    began_s = world.now_s()
    producer.commit_transaction(ANSWER_TIMEOUT_S)
    assert world.now_s() - began_s > 0.05, "connecting anew takes its time"
    assert lines.said == [], "what happened meanwhile is told by the next poll"
    producer.poll(0)
    assert [line for line in lines.said if "FAIL" in line and "TxnCoordinator" in line and "Disconnected" in line]
    producer.begin_transaction()
    put(producer, topic, b"half")
    consumer = reader(world, topic)
    assert read(consumer, end=2) == [(0, b"first")]
    world.release_end()
    assert read(consumer, end=4) == [(2, b"half")]


def test_after_a_late_commit_the_producer_may_still_add_offsets_and_commit(world: World) -> None:
    topic, name = world.topic(), unique("writer")
    producer = ready(world, name, debug="eos")
    put(producer, topic, b"half")
    assert world.late_end(name, commit=True) == 0
    assert read(reader(world, topic), end=2) == [(0, b"half")]
    group = unique("group")
    send_offset(producer, topic, 1, world.consumer(group).consumer_group_metadata())
    producer.commit_transaction(ANSWER_TIMEOUT_S)
    assert committed(world.consumer(group), topic) == 1


def test_after_a_late_commit_records_for_the_same_partition_are_refused(world: World) -> None:
    topic, name = world.topic(), unique("writer")
    producer = ready(world, name, debug="eos")
    put(producer, topic, b"half")
    assert world.late_end(name, commit=True) == 0
    read(reader(world, topic), end=2)
    told: list[KafkaError | None] = []
    producer.produce(topic, b"other half", partition=0, on_delivery=lambda why, _message: told.append(why))
    producer.flush(ANSWER_TIMEOUT_S)
    assert [why.code() for why in told if why is not None] == [KafkaError.INVALID_TXN_STATE]
    assert failure(lambda: producer.commit_transaction(ANSWER_TIMEOUT_S)).abort


def test_a_late_abort_takes_the_next_transaction_along_and_its_commit_is_fatal(world: World) -> None:
    topic, name = world.topic(), unique("writer")
    producer = ready(world, name, debug="eos")
    put(producer, topic, b"lost")
    assert world.late_end(name, commit=False) == 0
    assert read(reader(world, topic), end=2) == []
    commit_it = failure(lambda: producer.commit_transaction(ANSWER_TIMEOUT_S))
    assert commit_it == Failure(KafkaError.INVALID_TXN_STATE, fatal=True)


def test_an_end_of_an_older_epoch_is_refused(world: World) -> None:
    topic, name = world.topic(), unique("writer")
    old = ready(world, name, debug="eos")
    put(old, topic, b"old")
    new = ready(world, name, debug="eos")
    put(new, topic, b"new")
    assert failure(lambda: old.commit_transaction(ANSWER_TIMEOUT_S)) == FENCED
    new.commit_transaction(ANSWER_TIMEOUT_S)
    assert read(reader(world, topic), end=4) == [(2, b"new")]


# --- offsets


def test_offsets_of_a_transaction_appear_with_its_commit(world: World) -> None:
    topic, group = world.topic(), unique("group")
    consumer = world.consumer(group)
    assert committed(consumer, topic) == OFFSET_INVALID
    producer = ready(world, unique("writer"))
    put(producer, topic, b"a")
    send_offset(producer, topic, 3, consumer.consumer_group_metadata())
    waiting = failure(lambda: consumer.committed([TopicPartition(topic, 0)], timeout=0.5))
    assert waiting == Failure(KafkaError._TIMED_OUT), "an offset that is not decided yet is waited for"
    producer.commit_transaction(ANSWER_TIMEOUT_S)
    assert committed(consumer, topic) == 3
    producer.begin_transaction()
    send_offset(producer, topic, 4, consumer.consumer_group_metadata())
    producer.abort_transaction(ANSWER_TIMEOUT_S)
    assert committed(consumer, topic) == 3


def test_a_consumer_of_no_group_may_commit_only_while_nobody_is_a_member(world: World) -> None:
    topic, lease, group = world.topic(), world.topic(), unique("group")
    outsider = world.consumer(group)
    assert outsider.memberid() is None
    assert commit(outsider, topic, 1) == 1
    holder_of(world, group, lease)
    assert failure(lambda: commit(outsider, topic, 2)) == Failure(KafkaError.UNKNOWN_MEMBER_ID)
    assert committed(outsider, topic) == 1


def test_a_trap_metadata_of_no_member_fences_nobody_in_a_transaction(world: World) -> None:
    topic, lease, group = world.topic(), world.topic(), unique("group")
    holder_of(world, group, lease)
    outsider = world.consumer(group)
    producer = ready(world, unique("writer"))
    send_offset(producer, topic, 7, outsider.consumer_group_metadata())
    producer.commit_transaction(ANSWER_TIMEOUT_S)
    assert committed(outsider, topic) == 7


def test_a_trap_a_standby_may_commit_as_the_holder_may(world: World) -> None:
    topic, lease, group = world.topic(), world.topic(), unique("group")
    holder = holder_of(world, group, lease)
    standby = standby_of(world, holder, group, lease)
    assert commit(standby.consumer, topic, 1) == 1
    assert commit(holder.consumer, topic, 2) == 2
    producer = ready(world, unique("writer"))
    send_offset(producer, topic, 3, standby.metadata)
    producer.commit_transaction(ANSWER_TIMEOUT_S)
    assert committed(holder.consumer, topic) == 3


def test_metadata_of_an_older_generation_makes_the_transaction_abort(world: World) -> None:
    topic, lease, group = world.topic(), world.topic(), unique("group")
    holder = holder_of(world, group, lease)
    old = holder.metadata
    standby_of(world, holder, group, lease)
    producer = ready(world, unique("writer"))
    put(producer, topic, b"a")
    refused = Failure(KafkaError.ILLEGAL_GENERATION, abort=True)
    assert failure(lambda: send_offset(producer, topic, 1, old)) == refused
    assert failure(lambda: producer.commit_transaction(ANSWER_TIMEOUT_S)) == refused
    assert failure(producer.begin_transaction) == refused
    assert failure(lambda: producer.produce(topic, b"b")) == WRONG_STATE
    producer.abort_transaction(ANSWER_TIMEOUT_S)
    producer.begin_transaction()
    send_offset(producer, topic, 1, holder.metadata)
    producer.commit_transaction(ANSWER_TIMEOUT_S)
    assert committed(holder.consumer, topic) == 1


def test_metadata_of_a_member_that_left_makes_the_transaction_abort(world: World) -> None:
    topic, lease, group = world.topic(), world.topic(), unique("group")
    holder = holder_of(world, group, lease)
    standby = standby_of(world, holder, group, lease)
    old = holder.metadata
    holder.consumer.close()
    spin(world, [standby.consumer], lambda: standby.holds)
    producer = ready(world, unique("writer"))
    refused = Failure(KafkaError.UNKNOWN_MEMBER_ID, abort=True)
    assert failure(lambda: send_offset(producer, topic, 1, old)) == refused
    producer.abort_transaction(ANSWER_TIMEOUT_S)


def test_an_asynchronous_commit_is_answered_by_a_later_poll(world: World) -> None:
    topic, lease, group = world.topic(), world.topic(), unique("group")
    told: list[tuple[int | None, list[int]]] = []

    def on_commit(why: KafkaError | None, offsets: list[TopicPartition]) -> None:
        told.append((None if why is None else why.code(), [tp.offset for tp in offsets]))

    outsider = world.consumer(group, on_commit=on_commit)
    outsider.commit(offsets=[TopicPartition(topic, 0, 5)], asynchronous=True)
    assert told == []
    spin(world, [outsider], lambda: bool(told))
    holder_of(world, group, lease)
    outsider.commit(offsets=[TopicPartition(topic, 0, 6)], asynchronous=True)
    spin(world, [outsider], lambda: len(told) == 2)
    assert told == [(None, [5]), (KafkaError.UNKNOWN_MEMBER_ID, [6])]
    assert committed(outsider, topic) == 5


# --- the lease


def test_the_holder_keeps_the_lease_when_another_joins(world: World) -> None:
    lease, group = world.topic(), unique("group")
    holder = holder_of(world, group, lease)
    member = holder.consumer.memberid()
    standby = standby_of(world, holder, group, lease)
    assert holder.told == [("assign", [0]), ("assign", [])], "told of the rebalance, and nothing taken"
    assert standby.told == [("assign", [])]
    assert (holder.holds, standby.holds) == (True, False)
    assert holder.consumer.memberid() == member != standby.consumer.memberid()


def test_the_lease_moves_at_once_when_its_holder_closes(world: World) -> None:
    lease, group = world.topic(), unique("group")
    holder = holder_of(world, group, lease)
    standby = standby_of(world, holder, group, lease)
    holder.consumer.close()
    assert holder.told[-1] == ("revoke", [0])
    assert spin(world, [standby.consumer], lambda: standby.holds) < SESSION_S / 2
    assert world.members(group) == 1


def test_a_trap_a_standby_that_closes_does_not_leave_and_delays_the_next_holder(world: World) -> None:
    lease, group = world.topic(), unique("group")
    holder = holder_of(world, group, lease)
    standby = standby_of(world, holder, group, lease)
    standby.consumer.close()
    assert world.members(group) == 2, "it said nothing"
    holder.consumer.close()
    third = Holder(world, group, lease)
    took_s = spin(world, [third.consumer], lambda: third.holds)
    assert SESSION_S / 2 < took_s < 2 * SESSION_S


def test_a_standby_leaves_by_unsubscribing(world: World) -> None:
    lease, group = world.topic(), unique("group")
    holder = holder_of(world, group, lease)
    standby = standby_of(world, holder, group, lease)
    standby.consumer.unsubscribe()
    spin(world, [holder.consumer], lambda: world.members(group) == 1)
    standby.consumer.close()
    holder.consumer.close()
    third = Holder(world, group, lease)
    assert spin(world, [third.consumer], lambda: third.holds) < SESSION_S / 2


# --- a broker that does not answer


def test_a_commit_that_timed_out_can_only_be_made_again(world: World) -> None:
    topic, group = world.topic(), unique("group")
    producer = ready(world, unique("writer"))
    consumer = world.consumer(group)
    put(producer, topic, b"a")
    send_offset(producer, topic, 1, consumer.consumer_group_metadata())
    with world.outage():
        assert failure(lambda: producer.commit_transaction(0.5)) == RESUMABLE
        assert failure(lambda: producer.commit_transaction(0.5)) == RESUMABLE
        assert failure(lambda: producer.abort_transaction(0.5)) == CONFLICT
        assert failure(producer.begin_transaction) == CONFLICT
        assert failure(lambda: producer.produce(topic, b"b")) == WRONG_STATE
    producer.commit_transaction(ANSWER_TIMEOUT_S)
    assert committed(consumer, topic) == 1
    assert read(reader(world, topic), end=2) == [(0, b"a")]


def test_an_abort_or_an_init_that_timed_out_can_only_be_made_again(world: World) -> None:
    topic = world.topic()
    producer = ready(world, unique("writer"))
    put(producer, topic, b"a")
    fresh = world.producer(unique("writer"))
    with world.outage():
        assert failure(lambda: producer.abort_transaction(0.5)) == RESUMABLE
        assert failure(lambda: producer.commit_transaction(0.5)) == CONFLICT
        assert failure(lambda: fresh.init_transactions(0.5)) == RESUMABLE
        assert failure(fresh.begin_transaction) == CONFLICT
    producer.abort_transaction(ANSWER_TIMEOUT_S)
    assert read(reader(world, topic), end=2) == []
    fresh.init_transactions(ANSWER_TIMEOUT_S)


def test_an_outage_longer_than_a_session_takes_the_lease_away_and_gives_it_back(world: World) -> None:
    topic, lease, group = world.topic(), world.topic(), unique("group")
    holder = holder_of(world, group, lease)
    before = holder.consumer.memberid()
    with world.outage():
        spin(world, [holder.consumer], lambda: not holder.holds)
        assert holder.told[-1] == ("lost", [0])
        assert holder.consumer.memberid() is None
        old = holder.metadata
    assert spin(world, [holder.consumer], lambda: holder.holds) < 2 * SESSION_S
    assert holder.consumer.memberid() not in (None, before)
    producer = ready(world, unique("writer"))
    refused = Failure(KafkaError.UNKNOWN_MEMBER_ID, abort=True)
    assert failure(lambda: send_offset(producer, topic, 1, old)) == refused, "it names a generation, and nobody"
    producer.abort_transaction(ANSWER_TIMEOUT_S)


def test_questions_of_a_consumer_time_out_and_are_not_called_retriable(world: World) -> None:
    topic = world.topic()
    consumer = reader(world, topic)
    read(consumer, end=0)
    at = TopicPartition(topic, 0)
    with world.outage():
        for call in (
            lambda: consumer.committed([at], timeout=0.5),
            lambda: consumer.get_watermark_offsets(at, timeout=0.5),
            lambda: consumer.list_topics(topic, timeout=0.5),
        ):
            assert failure(call) == Failure(KafkaError._TIMED_OUT)
        assert consumer.poll(0.2) is None


def test_what_cannot_be_sent_stays_in_the_queue_and_a_commit_waits_for_it(world: World) -> None:
    topic = world.topic()
    producer = ready(world, unique("writer"))
    put(producer, topic, b"a")
    with world.outage():
        producer.produce(topic, b"b", partition=0)
        assert producer.flush(0.5) == 1
        assert len(producer) == 1
        assert failure(lambda: producer.commit_transaction(0.5)) == RESUMABLE
    producer.commit_transaction(ANSWER_TIMEOUT_S)
    assert read(reader(world, topic), end=3) == [(0, b"a"), (1, b"b")]


def test_a_message_that_times_out_makes_the_transaction_abort(world: World) -> None:
    topic = world.topic()
    producer = ready(world, unique("writer"), message__timeout__ms=1_000)
    put(producer, topic, b"a")
    told: list[int] = []
    with world.outage():
        producer.produce(topic, b"b", partition=0, on_delivery=lambda why, _message: told.append(why.code()))
        assert producer.flush(5.0) == 0
    assert told == [KafkaError._MSG_TIMED_OUT]
    must_abort = Failure(KafkaError._TIMED_OUT, abort=True)
    assert failure(lambda: producer.commit_transaction(ANSWER_TIMEOUT_S)) == must_abort
    producer.abort_transaction(ANSWER_TIMEOUT_S)
    producer.begin_transaction()
    put(producer, topic, b"c")
    producer.commit_transaction(ANSWER_TIMEOUT_S)
    values = [value for _offset, value in read_all(world, topic)]
    assert values == [b"c"]


def read_all(world: World, topic: str) -> list[tuple[int, bytes]]:
    """Everything that is visible, wherever it ends."""
    consumer = reader(world, topic)
    spin(world, [], lambda: True)
    end = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=ANSWER_TIMEOUT_S)[1]
    return read(consumer, end)
