"""The embedded broker carries messages. It proves nothing else, so no test here says more."""

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from engine.errors import RetriableError
from engine.kafka.embedded import PARTITIONS, RETAINED_BYTES, EmbeddedBroker
from engine.kafka.topics import TopicSpec, apply, cluster_identity, plan

ANSWER_TIMEOUT_S = 5.0


def reader(bootstrap: str) -> Consumer:
    return Consumer({"bootstrap.servers": bootstrap, "group.id": "test", "auto.offset.reset": "error"})


def test_messages_pass_through_every_partition() -> None:
    sent = {(partition, f"{partition}-{n}".encode()) for partition in range(PARTITIONS) for n in range(3)}
    with EmbeddedBroker() as broker:
        broker.create_topics(["transactions"])
        producer = Producer({"bootstrap.servers": broker.bootstrap})
        for partition, value in sorted(sent):
            producer.produce("transactions", value, key=b"k", partition=partition)
        assert producer.flush(ANSWER_TIMEOUT_S) == 0

        consumer = reader(broker.bootstrap)
        consumer.assign([TopicPartition("transactions", partition, 0) for partition in range(PARTITIONS)])
        messages = consumer.consume(len(sent), ANSWER_TIMEOUT_S)
        consumer.close()
        producer.close()

    assert [message.error() for message in messages] == [None] * len(sent)
    assert {(message.partition(), message.value()) for message in messages} == sent
    assert {message.key() for message in messages} == {b"k"}


def test_creating_a_topic_twice_keeps_it() -> None:
    with EmbeddedBroker() as broker:
        broker.create_topics(["lease"])
        consumer = reader(broker.bootstrap)
        consumer.assign([TopicPartition("lease", 0)])
        consumer.commit(offsets=[TopicPartition("lease", 0, 7)], asynchronous=False)
        broker.create_topics(["lease", "progress"])
        assert [place.offset for place in consumer.committed([TopicPartition("lease", 0)])] == [7]
        consumer.close()
        assert plan({"bootstrap.servers": broker.bootstrap}, [TopicSpec("lease", PARTITIONS, 1)]) == []


def test_it_has_no_identity_and_answers_no_admin() -> None:
    with EmbeddedBroker() as broker:
        conf = {"bootstrap.servers": broker.bootstrap}
        broker.create_topics(["transactions"])
        assert cluster_identity(conf, "transactions") == (None, None)
        with pytest.raises(RetriableError, match="no Kafka broker answers"):
            apply(conf, [TopicSpec("more", 1, 1)], timeout_s=0.2)


def test_it_forgets_what_was_never_read() -> None:
    """Whoever runs a demo on it has to read as fast as is written."""
    with EmbeddedBroker() as broker:
        broker.create_topics(["transactions"])
        producer = Producer({"bootstrap.servers": broker.bootstrap, "linger.ms": 5})
        count = 2 * RETAINED_BYTES // 10_000
        for _ in range(count):
            producer.produce("transactions", bytes(10_000), partition=0)
        assert producer.flush(ANSWER_TIMEOUT_S) == 0

        consumer = reader(broker.bootstrap)
        consumer.assign([TopicPartition("transactions", 0, 0)])
        (answer,) = consumer.consume(1, ANSWER_TIMEOUT_S)
        low, high = consumer.get_watermark_offsets(TopicPartition("transactions", 0), ANSWER_TIMEOUT_S)
        consumer.close()
        producer.close()

    assert answer.error().code() == KafkaError._AUTO_OFFSET_RESET
    assert high == count
    assert 0.8 * RETAINED_BYTES < (high - low) * 10_000 <= RETAINED_BYTES


def test_two_brokers_do_not_meet() -> None:
    with EmbeddedBroker() as one, EmbeddedBroker() as other:
        assert one.bootstrap != other.bootstrap
        one.create_topics(["only-here"])
        spec = TopicSpec("only-here", PARTITIONS, 1)
        assert plan({"bootstrap.servers": one.bootstrap}, [spec]) == []
        assert [c.kind for c in plan({"bootstrap.servers": other.bootstrap}, [spec])] == ["missing"]
