"""The topic of decisions as it is committed when reading begins, from those on that may have been made at a time."""

from collections.abc import Iterator

from confluent_kafka import Message

from engine.closing import Closing
from engine.config import Config
from engine.kafka.client import KAFKA, Clients, consumer_settings
from engine.kafka.committed import CommittedReader

# The clocks of workers and brokers differ by less.
CLOCKS_APART_MS_MAX = 3_600_000


class DecisionTopic(Closing):
    """Every partition, in no group. `offsets`: how many there are to be read."""

    def __init__(self, config: Config, from_ms: int | None = None, clients: Clients = KAFKA) -> None:
        """Raises ConfigError without the topic or for a setting that is refused, RetriableError without a broker.

        A record is written after its decision was made, so that all that were made at `from_ms` or later stand behind
        the first record with such a timestamp, but for clocks that differ. Others are among them.
        """
        self.topic = config.kafka.topics.decisions
        self._reader = CommittedReader(self.topic, consumer_settings(config), clients)
        self._starts, self._ends = self._reader.stable_bounds()
        if from_ms is not None:
            since = self._reader.since(max(0, from_ms - CLOCKS_APART_MS_MAX))
            self._starts = {
                partition: max(first, since.get(partition, self._ends[partition]))
                for partition, first in self._starts.items()
            }
        self.offsets = sum(max(0, end - self._starts[partition]) for partition, end in self._ends.items())

    def read(self) -> Iterator[Message]:
        """The records, those of each partition in their order.

        Raises FatalError where some are deleted before they were read, RetriableError where the broker is silent.
        """
        return self._reader.read(self._starts, self._ends)

    def leave(self, partition: int) -> None:
        """No more of this partition is wanted."""
        self._reader.leave(partition)

    def offsets_read(self) -> int:
        """How many of `offsets` are done."""
        return sum(read_to - self._starts[partition] for partition, read_to in self._reader.read_to.items())

    def close(self) -> None:
        """Leaves; nothing is committed."""
        self._reader.close()
