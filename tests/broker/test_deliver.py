"""The order of an at-least-once commit: outputs acknowledged by the broker first, then the offsets they came from."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import engine.kafka.deliver
from engine.emit import Message, Outputs
from engine.errors import FatalError
from engine.events import DeadLetter
from engine.kafka.deliver import LETTER_BYTES_MAX, AtLeastOnce
from tests.broker.application import Application, new_application
from tests.conftest import TopicFactory

pytestmark = pytest.mark.broker

# So long that whatever has not been flushed is not there yet.
NEVER_BY_ITSELF = {"kafka.client__linger.ms": 200_000}


class Source:
    """Notes what the outputs held when the offsets were committed."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self.commits: list[tuple[dict[int, int], int, int]] = []

    def commit(self, vector: dict[int, int]) -> None:
        decisions = len(self._application.read_all(self._application.decisions))
        letters = len(self._application.read_all(self._application.dead_letters))
        self.commits.append((vector, decisions, letters))


@pytest.fixture
def application(kafka_bootstrap: str, tmp_path: Path, topic_factory: TopicFactory) -> Application:
    return new_application(kafka_bootstrap, tmp_path, topic_factory)


@pytest.fixture
def open_delivery(application: Application) -> Callable[..., tuple[AtLeastOnce, Source]]:
    def opened(**settings: str | int | float | bool) -> tuple[AtLeastOnce, Source]:
        source = Source(application)
        return AtLeastOnce(application.config(**settings), source), source  # type: ignore[arg-type]

    return opened


def outputs_of(count: int, size: int = 20, letters: int = 0) -> Outputs:
    messages: list[Message] = [{"key": b"k%d" % n, "value": b"%d " % n + b"x" * size} for n in range(count)]
    return Outputs(messages, [], [DeadLetter(b"y" * size, "oversize", "so", "in", 0, n) for n in range(letters)])


def test_offsets_are_committed_once_every_output_is_acknowledged(
    open_delivery: Callable[..., tuple[AtLeastOnce, Source]],
) -> None:
    delivery, source = open_delivery(**NEVER_BY_ITSELF)
    with closing(delivery):
        delivery.produce(outputs_of(500, letters=3))
        delivery.produce(outputs_of(250))
        delivery.commit({0: 750})
        delivery.produce(outputs_of(1))
        delivery.commit({0: 751})
    assert source.commits == [({0: 750}, 750, 3), ({0: 751}, 751, 3)]


def test_what_was_not_committed_is_dropped_on_closing(
    application: Application, open_delivery: Callable[..., tuple[AtLeastOnce, Source]]
) -> None:
    delivery, source = open_delivery(**NEVER_BY_ITSELF)
    with closing(delivery):
        delivery.produce(outputs_of(5))
    assert source.commits == []
    assert application.read_all(application.decisions) == []


def test_an_output_that_the_broker_refuses_ends_the_run_before_its_offsets_are_committed(
    open_delivery: Callable[..., tuple[AtLeastOnce, Source]],
) -> None:
    delivery, source = open_delivery()
    with closing(delivery):
        delivery.produce(outputs_of(1, letters=1))
        delivery.produce(outputs_of(1, size=5_000_000))
        with pytest.raises(FatalError, match=r"a message could not be delivered: test-decisions-.*too large"):
            delivery.commit({0: 2})
    assert source.commits == []


def test_a_dead_letter_larger_than_its_topic_takes_is_cut_and_says_so(
    application: Application, open_delivery: Callable[..., tuple[AtLeastOnce, Source]]
) -> None:
    """Otherwise one such record would stop the stream, now and at every restart."""
    size = 10_000_000
    delivery, _ = open_delivery()
    with closing(delivery):
        delivery.produce(outputs_of(0, size=size, letters=1))
        delivery.commit({0: 1})
    (letter,) = application.read_all(application.dead_letters)
    assert letter.value() == b"y" * LETTER_BYTES_MAX
    assert dict(letter.headers())["tidegate.cut_from_bytes"] == b"%d" % size


def test_more_outputs_than_the_queue_holds_wait_for_room(
    open_delivery: Callable[..., tuple[AtLeastOnce, Source]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.kafka.deliver, "QUEUE_MESSAGES_MAX", 100)
    delivery, source = open_delivery()
    with closing(delivery):
        for _ in range(10):
            delivery.produce(outputs_of(60, letters=1))
        delivery.commit({0: 600})
    assert source.commits == [({0: 600}, 600, 10)]


def test_a_batch_that_the_queue_takes_in_part_arrives_whole_once_and_in_order(
    application: Application, open_delivery: Callable[..., tuple[AtLeastOnce, Source]]
) -> None:
    """By its bytes a queue can be full long before it is by its number."""
    delivery, source = open_delivery(**{"kafka.client__queue.buffering.max.kbytes": 1_024})
    with closing(delivery):
        delivery.produce(outputs_of(3_000, size=1_000, letters=5))
        delivery.commit({0: 3_000})
    assert source.commits == [({0: 3_000}, 3_000, 5)]
    values = [message.value() for message in application.read_all(application.decisions)]
    assert [int(value.split()[0]) for value in values] == list(range(3_000))
