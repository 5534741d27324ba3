"""The committed offsets of the application's group."""

from collections.abc import Callable, Iterable
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from engine.errors import RetriableError

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
