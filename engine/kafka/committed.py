"""The committed records of a topic between two offsets of each partition, in no group.

    offset      0    1    2    3    4    5
    partition   r    t1.. r    r    r    |            t1: the first record of a transaction that is still open
                     ^ stable end        ^ end

A committed record behind an open transaction cannot be read before that one ends. Who only looks reads to the stable
end; who must not miss a record reads to the end, and waits.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from engine.errors import ConfigError, FatalError, RetriableError
from engine.kafka.client import Clients, refused_settings

ANSWER_TIMEOUT_S = 10.0
POLL_S = 0.1
# An open transaction of a worker that died is ended by the broker after the worker's transaction timeout.
SILENCE_S_MAX = 90.0

Offsets = dict[int, int]


class CommittedReader:
    """Reads every partition. `read_to`: by partition, the offset after what was read so far."""

    def __init__(self, topic: str, settings: Mapping[str, Any], clients: Clients) -> None:
        """Raises ConfigError without the topic or for a setting that is refused, RetriableError without a broker."""
        self.topic = topic
        self.read_to: Offsets = {}
        self._left: set[int] = set()
        try:
            self._consumer = clients.consumer(settings)
            # Only to ask for ends: those that the other one is told are the stable ones.
            self._asker = clients.consumer({**settings, "isolation.level": "read_uncommitted"})
        except KafkaException as error:
            raise refused_settings(error) from error
        self._partitions = self.partitions_of(topic)

    def partitions_of(self, topic: str) -> list[int]:
        """The partitions of any topic. Raises ConfigError where there is no such topic, RetriableError as above."""
        try:
            found = self._asker.list_topics(topic, timeout=ANSWER_TIMEOUT_S).topics[topic]
        except KafkaException as error:
            raise RetriableError(f"no Kafka broker answers: {error.args[0].str()}") from error
        if found.error is not None:
            raise ConfigError(f"topic {topic!r}: {found.error.str()}")
        return sorted(found.partitions)

    def stable_bounds(self) -> tuple[Offsets, Offsets]:
        """The first offsets that are still there, and the stable ends. Raises RetriableError without an answer."""
        bounds = self._bounds(self._consumer)
        return {at: first for at, (first, _) in bounds.items()}, {at: end for at, (_, end) in bounds.items()}

    def ends(self) -> Offsets:
        """The ends, whether the records before them are committed or not. Raises RetriableError without an answer."""
        return {at: end for at, (_, end) in self._bounds(self._asker).items()}

    def _bounds(self, consumer: Any) -> dict[int, tuple[int, int]]:
        try:
            return {
                partition: consumer.get_watermark_offsets(
                    TopicPartition(self.topic, partition), timeout=ANSWER_TIMEOUT_S
                )
                for partition in self._partitions
            }
        except KafkaException as error:
            raise RetriableError(f"{self.topic}: its offsets cannot be read: {error.args[0].str()}") from error

    def since(self, time_ms: int) -> Offsets:
        """By partition, the first record with this timestamp or a later one; partitions without any are left out.

        Raises RetriableError without an answer.
        """
        asked = [TopicPartition(self.topic, partition, time_ms) for partition in self._partitions]
        try:
            places = self._asker.offsets_for_times(asked, timeout=ANSWER_TIMEOUT_S)
        except KafkaException as error:
            raise RetriableError(f"{self.topic}: its timestamps cannot be read: {error.args[0].str()}") from error
        if failed := next((place.error for place in places if place.error is not None), None):
            raise RetriableError(f"{self.topic}: its timestamps cannot be read: {failed.str()}")
        return {place.partition: place.offset for place in places if place.offset >= 0}

    def read(self, starts: Mapping[int, int], ends: Mapping[int, int]) -> Iterator[Message]:
        """The committed records from starts to ends; waits for open transactions that stand before the ends."""
        self._left = left = {partition for partition, end in ends.items() if starts[partition] < end}
        self.read_to = self.read_to | dict(starts)
        self._consumer.assign([TopicPartition(self.topic, partition, starts[partition]) for partition in sorted(left)])
        silence_s = 0.0
        while left:
            message = self._consumer.poll(POLL_S)
            is_record = message is not None and message.error() is None
            if message is None or not (is_record or self._is_end(message.error())):
                silence_s += POLL_S
                if silence_s > SILENCE_S_MAX:
                    raise RetriableError(self._silent(left, ends))
                continue
            silence_s, partition = 0.0, message.partition()
            if partition not in left:
                continue
            # Behind the last record there may be marks of transactions, which only the end's offset tells of, or a
            # later record, which is left to whoever reads on from here.
            self.read_to[partition] = min(message.offset() + is_record, ends[partition])
            if is_record and message.offset() < ends[partition]:
                yield message
            if self.read_to[partition] >= ends[partition]:
                left.discard(partition)
        self._consumer.unassign()

    def leave(self, partition: int) -> None:
        """No more records of this partition are wanted from the `read` that goes on."""
        self._left.discard(partition)
        self._consumer.pause([TopicPartition(self.topic, partition)])

    def _is_end(self, error: KafkaError) -> bool:
        """Whether this is news of a partition's end; False for what mends itself."""
        if error.code() == KafkaError._PARTITION_EOF:
            return True
        if error.fatal() or not error.retriable():
            raise FatalError(f"{self.topic}: {error.str()}")
        return False

    def _silent(self, left: set[int], ends: Mapping[int, int]) -> str:
        places = ", ".join(f"{partition} at {self.read_to[partition]} of {ends[partition]}" for partition in left)
        return (
            f"{self.topic}: nothing more could be read for {SILENCE_S_MAX:g} s, of partition {places}: "
            "the broker does not answer, or a transaction of a worker that died is still open; try again"
        )

    def close(self) -> None:
        """Leaves; nothing is committed."""
        self._consumer.close()
        self._asker.close()
