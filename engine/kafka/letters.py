"""Reads the topic of dead letters as it is committed: from its beginning, or from where reading stopped before.

    offset      0    1    2    3    4    5
    partition   L    t1.. L    M    L    |            t1: the first record of a transaction that is still open
                     ^ stable end        ^ end

A committed record behind an open transaction cannot be read before that one ends. Who only looks reads to the stable
end; who must not miss a mark reads to the end, and waits.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from engine.config import Config
from engine.errors import ConfigError, FatalError, RetriableError
from engine.kafka.client import KAFKA, Clients, journal_settings, refused_settings
from engine.letters import Filter, Letter, Survey, read_letter, read_mark

ANSWER_TIMEOUT_S = 10.0
POLL_S = 0.1
# An open transaction of a worker that died is ended by the broker after the worker's transaction timeout.
SILENCE_S_MAX = 90.0

Ends = dict[int, int]


class LetterTopic:
    """A consumer of every partition, in no group."""

    def __init__(self, config: Config, clients: Clients = KAFKA) -> None:
        """Raises ConfigError without the topic or for a setting that is refused, RetriableError without a broker."""
        self.topic = config.kafka.topics.dead_letters
        # Letters may pass their retention while they are read: then reading goes on with the first that is left.
        settings = journal_settings(config)
        try:
            self._consumer = clients.consumer(settings)
            # Only to ask for ends: those that the other one is told are the stable ones.
            self._asker = clients.consumer({**settings, "isolation.level": "read_uncommitted"})
        except KafkaException as error:
            raise refused_settings(error) from error
        self._partitions = self.partitions_of(self.topic)
        self._read_to: Ends = {}

    def partitions_of(self, topic: str) -> list[int]:
        """The partitions of any topic. Raises ConfigError where there is no such topic, RetriableError as above."""
        try:
            found = self._asker.list_topics(topic, timeout=ANSWER_TIMEOUT_S).topics[topic]
        except KafkaException as error:
            raise RetriableError(f"no Kafka broker answers: {error.args[0].str()}") from error
        if found.error is not None:
            raise ConfigError(f"topic {topic!r}: {found.error.str()}")
        return sorted(found.partitions)

    def survey(self, wanted: Filter) -> Survey:
        """What can be read now: marks, and the letters that are wanted, oldest first, without their values."""
        survey = Survey()
        bounds = self._bounds(self._consumer)
        starts = {partition: first for partition, (first, _) in bounds.items()}
        for message in self._read(starts, {partition: end for partition, (_, end) in bounds.items()}):
            self._note(message, survey, wanted)
        survey.letters.sort(key=lambda letter: (letter.time_ms, letter.place))
        return survey

    def catch_up(self, survey: Survey) -> None:
        """Takes in every mark that was written since the survey, and no letter.

        Raises RetriableError where a transaction that began before stays open.
        """
        ends = {partition: end for partition, (_, end) in self._bounds(self._asker).items()}
        for message in self._read(self._read_to, ends):
            mark = read_mark(message.value() or b"", headers_of(message))
            if mark is not None:
                survey.ledger.note(message.partition(), mark)

    def values(self, letters: Sequence[Letter]) -> Iterator[tuple[Letter, bytes | None, bytes | None]]:
        """Each of these letters that is still there, with key and value; those of one partition in their order."""
        wanted = {letter.place: letter for letter in letters}
        starts: Ends = {}
        ends: Ends = {}
        for partition, offset in wanted:
            starts[partition] = min(offset, starts.get(partition, offset))
            ends[partition] = max(offset + 1, ends.get(partition, 0))
        for message in self._read(starts, ends):
            letter = wanted.get((message.partition(), message.offset()))
            if letter is not None:
                yield letter, message.key(), message.value()

    def _note(self, message: Message, survey: Survey, wanted: Filter) -> None:
        value, headers = message.value() or b"", headers_of(message)
        mark = read_mark(value, headers)
        if mark is not None:
            survey.ledger.note(message.partition(), mark)
            return
        letter = read_letter(message.partition(), message.offset(), message.timestamp()[1], len(value), headers)
        if letter is None:
            survey.foreign += 1
        elif wanted.admits(letter):
            survey.letters.append(letter)

    def _bounds(self, consumer: Any) -> dict[int, tuple[int, int]]:
        """First offset and end of each partition; the end is stable or not, as the consumer's isolation has it."""
        try:
            return {
                partition: consumer.get_watermark_offsets(
                    TopicPartition(self.topic, partition), timeout=ANSWER_TIMEOUT_S
                )
                for partition in self._partitions
            }
        except KafkaException as error:
            raise RetriableError(f"{self.topic}: its offsets cannot be read: {error.args[0].str()}") from error

    def _read(self, starts: Mapping[int, int], ends: Mapping[int, int]) -> Iterator[Message]:
        """The committed records from starts to ends; waits for open transactions that stand before the ends."""
        left = {partition for partition, end in ends.items() if starts[partition] < end}
        self._read_to = self._read_to | dict(starts)
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
            # Behind the last record there may be marks of transactions, which only the end's offset tells of.
            self._read_to[partition] = message.offset() + is_record
            if is_record and message.offset() < ends[partition]:
                yield message
            if self._read_to[partition] >= ends[partition]:
                left.discard(partition)
        self._consumer.unassign()

    def _is_end(self, error: KafkaError) -> bool:
        """Whether this is news of a partition's end; False for what mends itself."""
        if error.code() == KafkaError._PARTITION_EOF:
            return True
        if error.fatal() or not error.retriable():
            raise FatalError(f"{self.topic}: {error.str()}")
        return False

    def _silent(self, left: set[int], ends: Mapping[int, int]) -> str:
        places = ", ".join(f"{partition} at {self._read_to[partition]} of {ends[partition]}" for partition in left)
        return (
            f"{self.topic}: nothing more could be read for {SILENCE_S_MAX:g} s, of partition {places}: "
            "the broker does not answer, or a transaction of a worker that died is still open; try again"
        )

    def close(self) -> None:
        """Leaves; nothing is committed."""
        self._consumer.close()
        self._asker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def headers_of(message: Message) -> dict[str, bytes]:
    """A record's headers by name."""
    return {name: value or b"" for name, value in message.headers() or ()}
