"""A client that has no answer about its topic, or says it is missing, is not asked again: another one is."""

from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from engine.errors import MissingTopicError, RetriableError
from engine.kafka.consume import Input
from engine.kafka.tail import Tail
from tests.pipelines import profile

TOPIC = "transactions"


class Consumer:
    """Answers as long as it is not `lost`, or knows of no topic."""

    def __init__(self) -> None:
        self.lost = self.closed = False
        self.unknown: KafkaError | None = None
        self.assigned: list[Any] = []

    def _ask(self) -> None:
        assert not self.closed
        if self.lost:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))

    def list_topics(self, topic: str, timeout: float) -> Any:
        self._ask()
        return SimpleNamespace(topics={topic: SimpleNamespace(error=self.unknown, partitions={0: None, 1: None})})

    def get_watermark_offsets(self, *_: Any, **__: Any) -> tuple[int, int]:
        self._ask()
        if self.unknown is not None:
            raise KafkaException(self.unknown)
        return 0, 7

    def assign(self, places: list[Any]) -> None:
        self.assigned = places

    def unassign(self) -> None:
        self.assigned = []

    def close(self) -> None:
        self.closed = True


class Clients:
    def __init__(self) -> None:
        self.made: list[Consumer] = []

    def consumer(self, _settings: Any) -> Consumer:
        self.made.append(Consumer())
        return self.made[-1]

    def identity(self, *_: Any) -> tuple[None, None]:
        return None, None


NEWS = (
    (None, RetriableError),
    (KafkaError(KafkaError.LEADER_NOT_AVAILABLE, retriable=True), RetriableError),
    (KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART), MissingTopicError),
)


@pytest.mark.parametrize(("unknown", "error"), NEWS)
def test_the_input_finds_its_partitions_with_another_client(unknown: KafkaError | None, error: type[Exception]) -> None:
    clients = Clients()
    source = Input(profile(), clients)  # type: ignore[arg-type]
    source.start({0: 5, 1: 6})
    clients.made[0].lost, clients.made[0].unknown = unknown is None, unknown
    with pytest.raises(error):
        source.find_new_partitions()
    assert source.find_new_partitions() == []
    assert [client.closed for client in clients.made] == [True, False]
    source.start({0: 5, 1: 6})
    assert [place.offset for place in clients.made[1].assigned] == [5, 6]


@pytest.mark.parametrize(("unknown", "error"), NEWS)
def test_a_tail_reads_on_where_it_was_with_another_client(unknown: KafkaError | None, error: type[Exception]) -> None:
    clients = Clients()
    tail = Tail(TOPIC, {}, clients)  # type: ignore[arg-type]
    tail.start(4)
    clients.made[0].lost, clients.made[0].unknown = unknown is None, unknown
    with pytest.raises(error):
        tail.bounds()
    assert tail.bounds() == (0, 7)
    assert [client.closed for client in clients.made] == [True, False]
    assert [place.offset for place in clients.made[1].assigned] == [4]


def test_a_tail_that_was_stopped_is_asked_for_its_end_alone() -> None:
    clients = Clients()
    tail = Tail(TOPIC, {}, clients)  # type: ignore[arg-type]
    tail.start(4)
    tail.stop()
    assert (clients.made[0].assigned, tail.position, tail.bounds()) == ([], 4, (0, 7))
    clients.made[0].lost = True
    with pytest.raises(RetriableError):
        tail.bounds()
    assert (clients.made[1].assigned, tail.position) == ([], 4)
    tail.start(5)
    assert [place.offset for place in clients.made[1].assigned] == [5]
