"""A commit, in both ways: outputs are there before the offsets they came from, whole, once and in order."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

import engine.kafka.outbox
import engine.kafka.transaction
from engine.emit import Message, Outputs
from engine.errors import FatalError, RetriableError
from engine.events import DeadLetter
from engine.kafka.deliver import Delivery, delivery_of
from engine.kafka.lease import Lease
from engine.kafka.outbox import LETTER_BYTES_MAX
from engine.kafka.transaction import ExactlyOnce
from engine.progress import Progress
from tests.broker.application import GIVE_UP_S, Application, new_application
from tests.conftest import TopicFactory

pytestmark = pytest.mark.broker

DELIVERIES = ("exactly_once", "at_least_once")
# So long that whatever has not been flushed is not there yet.
NEVER_BY_ITSELF = {"kafka.client__linger.ms": 20_000}
Opened = Callable[..., AbstractContextManager[Delivery]]


@pytest.fixture
def application(kafka_bootstrap: str, tmp_path: Path, topic_factory: TopicFactory) -> Application:
    return new_application(kafka_bootstrap, tmp_path, topic_factory)


@pytest.fixture(params=DELIVERIES)
def opened(application: Application, request: pytest.FixtureRequest) -> Opened:
    @contextmanager
    def open_delivery(**settings: str | int | float | bool) -> Iterator[Delivery]:
        config = application.config(kafka__delivery=request.param, **settings)
        with Lease(config) as lease, delivery_of(config, lease) as delivery:
            give_up_at = time.monotonic() + GIVE_UP_S
            lease.join()
            while not lease.poll(0.05):
                assert time.monotonic() < give_up_at
            delivery.open(lease.tenure)
            yield delivery

    return open_delivery


def progress_of(application: Application, offset: int, sequence: int = 1) -> Progress:
    return Progress(
        application_id=application.application_id,
        input=application.input,
        sequence=sequence,
        vector={0: offset},
        runs=[(0, 0, offset)],
        state_fingerprint="",
        feature_set="",
        model="",
        policy="",
    )


def commit(delivery: Delivery, progress: Progress) -> None:
    delivery.begin_commit(progress)
    delivery.settle()


def outputs_of(count: int, size: int = 20, letters: int = 0) -> Outputs:
    messages: list[Message] = [{"key": b"k%d" % n, "value": b"%d " % n + b"x" * size} for n in range(count)]
    return Outputs(messages, [], [DeadLetter(b"y" * size, "oversize", "so", "in", 0, n) for n in range(letters)])


def test_outputs_and_offsets_are_there_together(application: Application, opened: Opened) -> None:
    with opened(**NEVER_BY_ITSELF) as delivery:
        for first, count, letters in ((0, 750, 3), (750, 1, 0)):
            delivery.produce(outputs_of(count, letters=letters))
            commit(delivery, progress_of(application, first + count))
            assert application.committed() == {0: first + count}
            assert len(application.read_all(application.decisions)) == first + count
    assert len(application.read_all(application.dead_letters)) == 3
    assert [m.key() for m in application.read_all(application.progress)] == [application.application_id.encode()] * 2


@pytest.mark.parametrize("opened", ["at_least_once"], indirect=True)
def test_at_least_once_nobody_has_to_wait_for_a_commit(application: Application, opened: Opened) -> None:
    """What is produced meanwhile is not waited for, and is there all the same."""
    with opened() as delivery:
        delivery.produce(outputs_of(750, letters=3))
        delivery.begin_commit(progress_of(application, 750))
        assert not delivery.settled()
        give_up_at = time.monotonic() + GIVE_UP_S
        produced = 0
        while not delivery.settled():
            assert time.monotonic() < give_up_at
            delivery.produce(outputs_of(1))
            produced += 1
        assert application.committed() == {0: 750}
        commit(delivery, progress_of(application, 750 + produced, 2))
    assert application.committed() == {0: 750 + produced}
    assert len(application.read_all(application.decisions)) == 750 + produced


@contextmanager
def overtaken(application: Application, monkeypatch: pytest.MonkeyPatch) -> Iterator[Delivery]:
    """A delivery whose next offsets name the generation that there was before another worker joined."""
    told: list[Lease] = []
    got = Lease._got

    def note(lease: Lease, *arguments: Any) -> None:
        told.append(lease)
        got(lease, *arguments)

    def poll_until(holds: Callable[[], bool]) -> None:
        give_up_at = time.monotonic() + GIVE_UP_S
        while not holds():
            assert time.monotonic() < give_up_at
            for each in (lease, other):
                each.poll(0.05)

    monkeypatch.setattr(Lease, "_got", note)
    config = application.config()
    with Lease(config) as lease, Lease(config) as other, ExactlyOnce(config, lease) as delivery:
        lease.join()
        poll_until(lambda: lease.held)
        delivery.open(lease.tenure)
        old = [lease.metadata(lease.tenure)]
        other.join()
        poll_until(lambda: told.count(lease) > 1)
        metadata = lease.metadata
        monkeypatch.setattr(lease, "metadata", lambda tenure: old.pop() if old else metadata(tenure))
        yield delivery
        assert not old


def test_a_transaction_is_written_anew_where_another_worker_joined(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    with overtaken(application, monkeypatch) as delivery:
        for first in (0, 750):
            delivery.produce(outputs_of(700, letters=3))
            delivery.produce(outputs_of(50))
            commit(delivery, progress_of(application, first + 750))
    assert application.committed() == {0: 1500}
    assert len(application.read_all(application.decisions)) == 1500
    assert len(application.read_all(application.dead_letters)) == 6
    assert len(application.read_all(application.progress)) == 2


def test_a_transaction_of_too_many_outputs_is_not_written_anew(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.kafka.transaction, "KEPT_MESSAGES_MAX", 702)
    with overtaken(application, monkeypatch) as delivery:
        delivery.produce(outputs_of(700, letters=3))
        with pytest.raises(RetriableError, match="must be aborted"):
            commit(delivery, progress_of(application, 700))
    assert application.committed() == {}


def test_what_was_not_committed_is_dropped_on_closing(application: Application, opened: Opened) -> None:
    with opened(**NEVER_BY_ITSELF) as delivery:
        delivery.produce(outputs_of(5))
    assert application.committed() == {}
    with opened() as delivery:  # which settles what was left open
        pass
    assert application.read_all(application.decisions) == []


def test_an_output_that_the_broker_refuses_ends_the_run_before_its_offsets_are_committed(
    application: Application, opened: Opened
) -> None:
    def produce_and_commit(delivery: Delivery) -> None:
        """A fast broker may have answered while the output is queued."""
        delivery.produce(outputs_of(1, size=5_000_000))
        commit(delivery, progress_of(application, 2))

    with opened() as delivery:
        delivery.produce(outputs_of(1, letters=1))
        with pytest.raises(FatalError, match=r"a message could not be delivered: test-decisions-.*too large"):
            produce_and_commit(delivery)
    assert application.committed() == {}


def test_a_dead_letter_larger_than_its_topic_takes_is_cut_and_says_so(application: Application, opened: Opened) -> None:
    """Otherwise one such record would stop the stream, now and at every restart."""
    size = 10_000_000
    with opened() as delivery:
        delivery.produce(outputs_of(0, size=size, letters=1))
        commit(delivery, progress_of(application, 1))
    (letter,) = application.read_all(application.dead_letters)
    assert letter.value() == b"y" * LETTER_BYTES_MAX
    assert dict(letter.headers())["tidegate.cut_from_bytes"] == b"%d" % size


def test_a_dead_letter_says_what_its_record_was(application: Application, opened: Opened) -> None:
    with opened() as delivery:
        letter = DeadLetter(b"{", "malformed_json", "not JSON", "in", 3, 7, record_time_ms=1_000, key=b"k")
        delivery.produce(Outputs([], [], [letter]))
        commit(delivery, progress_of(application, 1))
    (message,) = application.read_all(application.dead_letters)
    assert (message.key(), message.value()) == (b"k", b"{")
    assert dict(message.headers()) == {
        "tidegate.reason": b"malformed_json",
        "tidegate.error": b"not JSON",
        "tidegate.topic": b"in",
        "tidegate.partition": b"3",
        "tidegate.offset": b"7",
        "tidegate.timestamp": b"1000",
    }


def test_more_outputs_than_the_queue_holds_wait_for_room(
    application: Application, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.kafka.outbox, "QUEUE_MESSAGES_MAX", 100)
    with opened() as delivery:
        for _ in range(10):
            delivery.produce(outputs_of(60, letters=1))
        commit(delivery, progress_of(application, 600))
    assert len(application.read_all(application.decisions)) == 600
    assert len(application.read_all(application.dead_letters)) == 10


def test_a_batch_that_the_queue_takes_in_part_arrives_whole_once_and_in_order(
    application: Application, opened: Opened
) -> None:
    """By its bytes a queue can be full long before it is by its number."""
    with opened(**{"kafka.client__queue.buffering.max.kbytes": 1_024}) as delivery:
        delivery.produce(outputs_of(3_000, size=1_000, letters=5))
        commit(delivery, progress_of(application, 3_000))
    assert len(application.read_all(application.dead_letters)) == 5
    values = [message.value() for message in application.read_all(application.decisions)]
    assert [int(value.split()[0]) for value in values] == list(range(3_000))
