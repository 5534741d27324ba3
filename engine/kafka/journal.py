"""The `progress` topic as a reader sees it: committed records of one application and input, in order."""

from confluent_kafka import Message

from engine.closing import Closing
from engine.config import Config
from engine.kafka.client import KAFKA, Clients, journal_settings
from engine.kafka.tail import Tail
from engine.progress import Progress, decode_progress


class Journal(Closing):
    """Reads on from an offset."""

    def __init__(self, config: Config, clients: Clients = KAFKA) -> None:
        """ConfigError where the settings are refused."""
        self._tail = Tail(config.kafka.topics.progress, journal_settings(config), clients)
        self._key = config.kafka.application_id.encode()
        self._input = config.kafka.input

    @property
    def position(self) -> int:
        """The offset after the last record that was read or passed over."""
        return self._tail.position

    def start(self, offset: int) -> None:
        """Reads on from here; from the first record there is where those before are gone."""
        self._tail.start(offset)

    def stop(self) -> None:
        """Reads nothing more until `start`; `position` stays, and `end` is answered at once."""
        self._tail.stop()

    def end(self) -> int:
        """The offset of the next record to be committed; raises as `bounds`."""
        return self.bounds()[1]

    def bounds(self) -> tuple[int, int]:
        """The first offset that is still there, and `end`; raises as `Tail.bounds`."""
        return self._tail.bounds()

    def poll(self, timeout_s: float) -> list[Progress]:
        """What has been committed meanwhile; waits for something for so long at most."""
        return self._ours(self._tail.poll(timeout_s))

    def read_to(self, end: int) -> list[Progress]:
        """Everything before an offset that `end` gave; RetriableError where it does not come."""
        return self._ours(self._tail.read_to(end))

    def has_reached(self, end: int) -> bool:
        """Whether nothing before that offset is left: it may be markers of transactions that are there."""
        return self._tail.has_reached(end)

    def _ours(self, messages: list[Message]) -> list[Progress]:
        records = [decode_progress(m.value(), m.offset()) for m in messages if m.key() == self._key]
        return [record for record in records if record.input == self._input]

    def close(self) -> None:
        """Leaves."""
        self._tail.close()
