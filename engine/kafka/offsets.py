"""The committed offsets of the application's group."""

import time
from collections.abc import Iterable
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


def committed_offsets(consumer: Any, topic: str, partitions: Iterable[int]) -> dict[int, int]:
    """The committed offset of each partition that has one. Waits while the group's coordinator is being elected."""
    asked = [TopicPartition(topic, partition) for partition in partitions]
    give_up_at = time.monotonic() + ANSWER_TIMEOUT_S
    while True:
        try:
            answers = consumer.committed(asked, timeout=ANSWER_TIMEOUT_S)
            errors = [answer.error for answer in answers if answer.error is not None]
        except KafkaException as error:
            answers, errors = [], [error.args[0]]
        if not errors:
            return {answer.partition: answer.offset for answer in answers if answer.offset >= 0}
        if errors[0].code() not in NOT_YET or time.monotonic() > give_up_at:
            raise RetriableError(f"committed offsets cannot be read: {errors[0].str()}")
        time.sleep(ASK_AGAIN_S)  # nothing tells when there is one
