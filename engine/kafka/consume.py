"""The input topic: every partition assigned by hand and polled as columns."""

import numpy as np
from confluent_kafka import OFFSET_INVALID, KafkaError, KafkaException, Message, TopicPartition

from engine.closing import Closing
from engine.config import Config
from engine.errors import ConfigError, FatalError, MissingTopicError, RetriableError
from engine.events import Records
from engine.kafka.client import KAFKA, Clients, admin_settings, consumer_settings, refused_settings
from engine.kafka.offsets import committed_offsets
from engine.kafka.tail import NO_SUCH_TOPIC

ANSWER_TIMEOUT_S = 10.0


class Input(Closing):
    """One consumer over all partitions of the input topic."""

    def __init__(self, config: Config, clients: Clients = KAFKA) -> None:
        """Connects; RetriableError without a broker, MissingTopicError, ConfigError for a setting that is refused."""
        self._config = config
        self.topic = config.kafka.input
        self.ends: dict[int, int] = {}
        self.cluster_id, self.topic_id = clients.identity(admin_settings(config), self.topic)
        self._assigned: set[int] = set()
        self._paused: set[int] = set()
        self._clients = clients
        try:
            self._consumer = clients.consumer(consumer_settings(config))
        except KafkaException as error:
            raise refused_settings(error) from error
        self.partitions = self._find_partitions()

    def _find_partitions(self) -> list[int]:
        try:
            found = self._consumer.list_topics(self.topic, timeout=ANSWER_TIMEOUT_S).topics[self.topic]
        except KafkaException as error:
            raise RetriableError(
                f"no Kafka broker answers at {self._config.kafka.bootstrap}: {error.args[0].str()}"
            ) from error
        if found.error is not None:
            said = f"kafka.input: topic {self.topic!r}: {found.error.str()}"
            if found.error.code() in NO_SUCH_TOPIC:
                raise MissingTopicError(f"{said}; `tidegate topics apply` creates it")
            raise (RetriableError if found.error.retriable() else ConfigError)(said)
        return sorted(found.partitions)

    def committed(self) -> dict[int, int]:
        """The committed offset of each partition that has one; waits while a transaction is open that may change it."""
        return committed_offsets(self._consumer, self.topic, self.partitions, self._consumer.poll)

    def bounds(self, partitions: list[int] | None = None) -> dict[int, tuple[int, int]]:
        """The first offset that is still there and the next one to be written, per partition, or of these."""
        try:
            return {
                partition: self._consumer.get_watermark_offsets(
                    TopicPartition(self.topic, partition), timeout=ANSWER_TIMEOUT_S
                )
                for partition in (self.partitions if partitions is None else partitions)
            }
        except KafkaException as error:
            raise RetriableError(f"topic offsets cannot be read: {error.args[0].str()}") from error

    def start(self, vector: dict[int, int]) -> None:
        """Reads on from these offsets, whatever was read before."""
        self.ends = {}
        self._assigned, self._paused = set(vector), set()
        self._consumer.assign(
            [TopicPartition(self.topic, partition, offset) for partition, offset in sorted(vector.items())]
        )

    def stop(self) -> None:
        """Reads nothing more until `start`."""
        self._assigned, self._paused = set(), set()
        self._consumer.unassign()

    def poll(self, events_max: int, linger_s: float) -> Records | None:
        """The next records: what arrives within the linger, or None.

        Raises FatalError where records that were still to be read are gone from the topic, MissingTopicError where that
        is gone itself.
        """
        messages = self._consumer.consume(events_max, linger_s)
        if not messages:
            return None
        messages = [message for message in messages if message.error() is None or self._is_record(message)]
        if not messages:
            return None
        return Records(
            self.topic,
            [message.value() for message in messages],
            np.array([message.partition() for message in messages], np.int64),
            np.array([message.offset() for message in messages], np.int64),
            np.array([message.timestamp()[1] for message in messages], np.int64),
            [message.key() for message in messages],
        )

    def _is_record(self, message: Message) -> bool:
        """False for news that are no record: a partition's end is noted, what mends itself is passed over."""
        error = message.error()
        if error.code() == KafkaError._PARTITION_EOF:
            self.ends[message.partition()] = message.offset()
            return False
        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise FatalError(
                f"{self.topic} partition {message.partition()}: the next record to read is no longer in the topic "
                f"({error.str()}); its retention is shorter than this worker was behind"
            )
        if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise MissingTopicError(f"topic {self.topic!r} does not exist")
        if error.fatal() or not error.retriable():
            raise FatalError(f"{self.topic}: {error.str()}")
        return False

    def lag_events(self, vector: dict[int, int]) -> dict[int, int]:
        """Records between the vector and each partition's end, as far as the last fetch knows.

        Markers of a producer's transactions take up offsets as records do, but for those at a partition's end.
        """
        lag = {}
        for partition, offset in vector.items():
            _, end = self._consumer.get_watermark_offsets(TopicPartition(self.topic, partition), cached=True)
            read_to = max(offset, self.ends.get(partition, 0))
            lag[partition] = max(0, end - read_to) if end != OFFSET_INVALID else 0
        return lag

    def pause(self, partitions: set[int]) -> None:
        """Reads of these partitions nothing more until they are left out; of all others what there is."""
        partitions &= self._assigned
        for places, change in (
            (partitions - self._paused, self._consumer.pause),
            (self._paused - partitions, self._consumer.resume),
        ):
            if places:
                change([TopicPartition(self.topic, partition) for partition in sorted(places)])
        self._paused = partitions

    def find_new_partitions(self) -> list[int]:
        """The partitions that the topic has got since.

        RetriableError without an answer, MissingTopicError where the broker knows of no such topic, perhaps for a
        moment: nothing is read any more before `start`.
        """
        before = set(self.partitions)
        try:
            self.partitions = self._find_partitions()
        except (RetriableError, MissingTopicError):
            self._renew()
            raise
        return [partition for partition in self.partitions if partition not in before]

    def _renew(self) -> None:
        """A client may not find back to a broker that was away (docs/delivery-findings.md): the next is another one."""
        self._consumer.close()
        self._assigned, self._paused = set(), set()
        self._consumer = self._clients.consumer(consumer_settings(self._config))

    def close(self) -> None:
        """Leaves; commits nothing."""
        self._consumer.close()
