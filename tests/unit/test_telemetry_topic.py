"""The topic of telemetry: whatever its producer does, the worker goes on, and metrics say what became of records."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from confluent_kafka import KafkaError, KafkaException

from engine.config import Config
from engine.errors import ConfigError
from engine.kafka.telemetry import TelemetryTopic
from engine.observe.metrics import Metrics
from tests.pipelines import demo_model, profile

Report = Callable[[KafkaError | None, Any], None]


class FakeProducer:
    """Has `raises` come out of its next call; a report waits for a poll."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes, bytes]] = []
        self.raises: Exception | None = None
        self.fails: KafkaError | None = None
        self._reports: list[Report] = []

    def _raise(self) -> None:
        raised, self.raises = self.raises, None
        if raised is not None:
            raise raised

    def produce(self, topic: str, value: bytes, key: bytes, on_delivery: Report) -> None:
        self._raise()
        self.sent.append((topic, key, value))
        self._reports.append(on_delivery)

    def poll(self, _timeout_s: float) -> int:
        for report in self._reports:
            report(self.fails, None)
        self._reports.clear()
        return 0

    def flush(self, _timeout_s: float) -> int:
        self._raise()
        return self.poll(0.0)


class FakeClients:
    """Makes such producers, or refuses their settings."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.made: list[FakeProducer] = []
        self.settings: Any = None
        self._refuses = refuses

    def producer(self, settings: Any) -> FakeProducer:
        if self._refuses:
            raise KafkaException(KafkaError(KafkaError._INVALID_ARG, "no such setting"))
        self.settings = settings
        self.made.append(FakeProducer())
        return self.made[-1]


def config_of(*, enabled: bool = True) -> Config:
    config = profile()
    return msgspec.structs.replace(config, telemetry=msgspec.structs.replace(config.telemetry, enabled=enabled))


def topic_of(clients: FakeClients, *, enabled: bool = True) -> tuple[TelemetryTopic, Metrics]:
    config = config_of(enabled=enabled)
    metrics = Metrics(config.feature_spec(), demo_model().facts, config.policy)
    return TelemetryTopic(config, metrics, clients), metrics  # type: ignore[arg-type]


def test_records_are_keyed_by_the_application_and_counted_once_they_are_there() -> None:
    clients = FakeClients()
    topic, metrics = topic_of(clients)
    topic.put(b"one")
    assert clients.made[0].sent == [("telemetry", b"tidegate", b"one")]
    assert (metrics.telemetry_sent, metrics.telemetry_lost) == (1, 0)
    assert "transactional.id" not in clients.settings
    assert clients.settings["message.timeout.ms"] > 0


def test_a_record_that_is_not_delivered_is_counted() -> None:
    clients = FakeClients()
    topic, metrics = topic_of(clients)
    clients.made[0].fails = KafkaError(KafkaError._MSG_TIMED_OUT)
    topic.put(b"one")
    assert (metrics.telemetry_sent, metrics.telemetry_lost) == (0, 1)


def test_a_full_queue_costs_the_record_and_no_more() -> None:
    clients = FakeClients()
    topic, metrics = topic_of(clients)
    clients.made[0].raises = BufferError("Local: Queue full")
    topic.put(b"one")
    topic.put(b"two")
    assert [value for _, _, value in clients.made[0].sent] == [b"two"]
    assert (metrics.telemetry_sent, metrics.telemetry_lost) == (1, 1)


@pytest.mark.parametrize("raised", [KafkaException(KafkaError(KafkaError._FATAL)), SystemError("callback")])
def test_a_producer_that_is_done_for_is_replaced(raised: Exception) -> None:
    clients = FakeClients()
    topic, metrics = topic_of(clients)
    clients.made[0].raises = raised
    topic.put(b"one")
    topic.put(b"two")
    assert [value for _, _, value in clients.made[1].sent] == [b"two"]
    assert (metrics.telemetry_sent, metrics.telemetry_lost) == (1, 1)


def test_at_the_end_it_waits_for_the_last_record_whatever_becomes_of_it() -> None:
    clients = FakeClients()
    topic, _ = topic_of(clients)
    topic.put(b"one")
    clients.made[0].raises = KafkaException(KafkaError(KafkaError._FATAL))
    topic.close()
    assert clients.made[0].raises is None


def test_where_there_is_no_telemetry_there_is_no_producer() -> None:
    clients = FakeClients()
    topic, _ = topic_of(clients, enabled=False)
    topic.close()
    assert clients.made == []


def test_settings_that_are_refused_are_a_matter_of_the_configuration() -> None:
    with pytest.raises(ConfigError, match="no such setting"):
        topic_of(FakeClients(refuses=True))
