"""The only partition of a topic of ours, as a reader sees it that knows how far it has come: `progress`, `control`."""

from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from engine.closing import Closing
from engine.errors import FatalError, MissingTopicError, RetriableError
from engine.kafka.client import Clients, refused_settings

PARTITION = 0
ANSWER_TIMEOUT_S = 10.0
RECORDS_MAX = 500
POLL_S, POLLS_MAX = 0.05, 200
NO_SUCH_TOPIC = (KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION, KafkaError.UNKNOWN_TOPIC_OR_PART)


class Tail(Closing):
    """Reads on from an offset. `position`: the offset after the last record that was read."""

    def __init__(self, topic: str, settings: dict[str, Any], clients: Clients) -> None:
        """ConfigError where the settings are refused."""
        self.topic = topic
        self.position = 0
        self._end_seen = -1
        self._reading = False
        self._settings = settings
        self._clients = clients
        try:
            self._consumer = clients.consumer(settings)
        except KafkaException as error:
            raise refused_settings(error) from error

    def start(self, offset: int) -> None:
        """Reads on from here; from the first record there is where those before are gone."""
        self.position, self._end_seen, self._reading = offset, -1, True
        self._consumer.assign([TopicPartition(self.topic, PARTITION, offset)])

    def stop(self) -> None:
        """Reads nothing more until `start`; `bounds` is answered at once then, and not behind a fetch."""
        self._reading = False
        self._consumer.unassign()

    def bounds(self) -> tuple[int, int]:
        """The first offset that is still there, and that of the next record to be committed.

        RetriableError without an answer, MissingTopicError where there is no such topic.
        """
        place = TopicPartition(self.topic, PARTITION)
        try:
            first, end = self._consumer.get_watermark_offsets(place, timeout=ANSWER_TIMEOUT_S)
        except KafkaException as error:
            self._renew()
            if error.args[0].code() in NO_SUCH_TOPIC:
                raise self._missing() from error
            raise RetriableError(f"the end of topic {self.topic!r} is not known: {error.args[0].str()}") from error
        return int(first), int(end)

    def _renew(self) -> None:
        """Another client reads on, for one may not find back to a broker that was away, nor to a topic that the broker
        did not know as it started (docs/delivery-findings.md).
        """
        self._consumer.close()
        self._consumer = self._clients.consumer(self._settings)
        if self._reading:
            self.start(self.position)

    def poll(self, timeout_s: float) -> list[Message]:
        """What has been committed meanwhile; waits for something for so long at most."""
        found = []
        for message in self._consumer.consume(RECORDS_MAX, timeout_s):
            if message.error() is not None:
                self._note(message)
                continue
            self.position = message.offset() + 1
            found.append(message)
        return found

    def read_to(self, end: int) -> list[Message]:
        """Everything before an offset that `bounds` gave; RetriableError where it does not come."""
        found, left = [], POLLS_MAX
        while not self.has_reached(end):
            before = self.position, self._end_seen
            found += self.poll(POLL_S)
            left = POLLS_MAX if (self.position, self._end_seen) != before else left - 1
            if left == 0:
                raise RetriableError(f"topic {self.topic!r} cannot be read up to offset {end}")
        return found

    def has_reached(self, end: int) -> bool:
        """Whether nothing before that offset is left: it may be markers of transactions that are there."""
        return max(self.position, self._end_seen) >= end

    def _note(self, message: Message) -> None:
        error = message.error()
        if error.code() == KafkaError._PARTITION_EOF:
            self._end_seen = message.offset()
        elif error.code() in NO_SUCH_TOPIC:
            raise self._missing()
        elif error.fatal():
            raise FatalError(f"{self.topic}: {error.str()}")

    def _missing(self) -> MissingTopicError:
        return MissingTopicError(f"topic {self.topic!r} does not exist; `tidegate topics apply` creates it")

    def close(self) -> None:
        """Leaves."""
        self._consumer.close()
