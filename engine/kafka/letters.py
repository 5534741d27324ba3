"""Reads the topic of dead letters as it is committed: from its beginning, or from where reading stopped before."""

from collections.abc import Iterator, Sequence

from confluent_kafka import Message

from engine.closing import Closing
from engine.config import Config
from engine.kafka.client import KAFKA, Clients, journal_settings
from engine.kafka.committed import CommittedReader, Offsets
from engine.letters import Filter, Letter, Survey, read_letter, read_mark


class LetterTopic(Closing):
    """A consumer of every partition, in no group."""

    def __init__(self, config: Config, clients: Clients = KAFKA) -> None:
        """Raises ConfigError without the topic or for a setting that is refused, RetriableError without a broker."""
        self.topic = config.kafka.topics.dead_letters
        # Letters may pass their retention while they are read: then reading goes on with the first that is left.
        self._reader = CommittedReader(self.topic, journal_settings(config), clients)

    def partitions_of(self, topic: str) -> list[int]:
        """The partitions of any topic. Raises ConfigError where there is no such topic, RetriableError as above."""
        return self._reader.partitions_of(topic)

    def survey(self, wanted: Filter) -> Survey:
        """What can be read now: marks, and the letters that are wanted, oldest first, without their values."""
        survey = Survey()
        for message in self._reader.read(*self._reader.stable_bounds()):
            self._note(message, survey, wanted)
        survey.letters.sort(key=lambda letter: (letter.time_ms, letter.place))
        return survey

    def catch_up(self, survey: Survey) -> None:
        """Takes in every mark that was written since the survey, and no letter.

        Raises RetriableError where a transaction that began before stays open.
        """
        for message in self._reader.read(self._reader.read_to, self._reader.ends()):
            mark = read_mark(message.value() or b"", headers_of(message))
            if mark is not None:
                survey.ledger.note(message.partition(), mark)

    def values(self, letters: Sequence[Letter]) -> Iterator[tuple[Letter, bytes | None, bytes | None]]:
        """Each of these letters that is still there, with key and value; those of one partition in their order."""
        wanted = {letter.place: letter for letter in letters}
        starts: Offsets = {}
        ends: Offsets = {}
        for partition, offset in wanted:
            starts[partition] = min(offset, starts.get(partition, offset))
            ends[partition] = max(offset + 1, ends.get(partition, 0))
        for message in self._reader.read(starts, ends):
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

    def close(self) -> None:
        """Leaves; nothing is committed."""
        self._reader.close()


def headers_of(message: Message) -> dict[str, bytes]:
    """A record's headers by name."""
    return {name: value or b"" for name, value in message.headers() or ()}
