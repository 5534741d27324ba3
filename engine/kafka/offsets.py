"""The committed offsets of the application's group."""

from collections.abc import Callable, Iterable
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from engine.config import Config
from engine.errors import RetriableError
from engine.kafka.client import KAFKA, Clients, consumer_settings

ANSWER_TIMEOUT_S = 10.0
# What a broker answers for a moment: after its start, whenever coordinators move, and, to those who read committed
# offsets alone, while a transaction is open that would change them.
NOT_YET = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.UNSTABLE_OFFSET_COMMIT,
)
ASK_AGAIN_S = 0.1
ATTEMPTS = 100


def ask_committed(config: Config, *, settled: bool, clients: Clients = KAFKA) -> dict[int, int]:
    """The committed offsets of the application's input, asked for by somebody who is no member of its group.

    `settled`: waits while a transaction is open that would change them. Raises as `committed_offsets`, and
    RetriableError where nobody knows the topic's partitions.
    """
    isolation = "read_committed" if settled else "read_uncommitted"
    consumer = clients.consumer(consumer_settings(config) | {"isolation.level": isolation})
    try:
        found = consumer.list_topics(config.kafka.input, timeout=ANSWER_TIMEOUT_S).topics[config.kafka.input]
        return committed_offsets(consumer, config.kafka.input, found.partitions, consumer.poll)
    except KafkaException as error:
        raise RetriableError(f"committed offsets cannot be read: {error.args[0].str()}") from error
    finally:
        consumer.close()


def committed_offsets(
    consumer: Any, topic: str, partitions: Iterable[int], wait: Callable[[float], object]
) -> dict[int, int]:
    """The committed offset of each partition that has one; RetriableError without an answer.

    Where it can be had in a moment only, `wait` is called and asked again: nothing tells when.
    """
    asked = [TopicPartition(topic, partition) for partition in partitions]
    for left in reversed(range(ATTEMPTS)):
        try:
            answers = consumer.committed(asked, timeout=ANSWER_TIMEOUT_S)
            errors = [answer.error for answer in answers if answer.error is not None]
        except KafkaException as error:
            answers, errors = [], [error.args[0]]
        if not errors:
            break
        if errors[0].code() not in NOT_YET or left == 0:
            raise RetriableError(f"committed offsets cannot be read: {errors[0].str()}")
        wait(ASK_AGAIN_S)
    return {answer.partition: answer.offset for answer in answers if answer.offset >= 0}
