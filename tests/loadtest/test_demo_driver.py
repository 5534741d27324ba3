"""The driver in its own process, against the embedded broker."""

import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import orjson
import pytest
from confluent_kafka import Consumer, Message, TopicPartition

from engine.kafka.embedded import PARTITIONS, EmbeddedBroker
from loadtest.driver import LATE_MS, Driver, Load
from loadtest.errors import LoadTestError
from loadtest.plan import steady
from loadtest.settings import TrafficSettings
from loadtest.truth import Truth

TOPIC = "transactions"
SETTINGS = TrafficSettings(
    seed=5, events_per_second=12_000.0, cards=500, merchants=50, duplicate_share=0.02, duplicate_mean_s=0.1
)
DEADLINE_S = 30.0


@pytest.fixture
def bootstrap() -> Iterator[str]:
    with EmbeddedBroker() as broker:
        broker.create_topics([TOPIC])
        yield broker.bootstrap


def load(bootstrap: str, seconds: float) -> Load:
    return Load(
        SETTINGS, steady(SETTINGS.events_per_second, seconds), TOPIC, {"bootstrap.servers": bootstrap, "linger.ms": 2}
    )


def until_done(driver: Driver) -> list[Truth]:
    truths, give_up_at = [], time.monotonic() + DEADLINE_S
    while not driver.progress.done:
        truths += driver.truths()
        assert time.monotonic() < give_up_at
    return truths + driver.truths()


def messages(bootstrap: str, count: int) -> list[Message]:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "test", "auto.offset.reset": "error"})
    consumer.assign([TopicPartition(TOPIC, partition, 0) for partition in range(PARTITIONS)])
    found = consumer.consume(count, DEADLINE_S)
    assert not consumer.consume(1, 0.1)
    consumer.close()
    return list(found)


def test_events_are_sent_when_they_are_due(bootstrap: str) -> None:
    with Driver(load(bootstrap, 1.0)) as driver:
        driver.begin()
        began_ms = time.time() * 1_000
        truths = until_done(driver)
        progress = driver.progress
        sent = messages(bootstrap, progress.events)
    due_ms = np.concatenate([truth.send_times_ms for truth in truths])
    numbers = np.concatenate([truth.numbers for truth in truths])
    duplicates = np.concatenate([truth.duplicates for truth in truths])
    assert progress.events == len(sent) == len(due_ms)
    assert progress.duplicates == duplicates.sum() > 0
    assert progress.to_decide == (~duplicates).sum()
    assert (due_ms[0] > began_ms) & (due_ms[-1] < began_ms + 2_000)
    assert (numbers[~duplicates] == np.arange(progress.to_decide)).all()

    events = [orjson.loads(message.value()) for message in sent]
    assert {message.key() for message in sent} == {event["card"].encode() for event in events}
    intended_ms = {event["event_id"]: event["event_time"] for event in events}
    assert sorted(intended_ms.values()) == sorted(due_ms[~duplicates].tolist())
    # The producer stamps a record when it is handed over; repeats come later than the time in them.
    delays_ms = [message.timestamp()[1] - event["event_time"] for message, event in zip(sent, events, strict=True)]
    assert min(delays_ms) >= -1
    assert np.median(delays_ms) <= LATE_MS


def test_it_stops_when_told(bootstrap: str) -> None:
    with Driver(load(bootstrap, 600.0)) as driver:
        driver.begin()
        truths: list[Truth] = []
        while driver.progress.events < 100:
            truths += driver.truths()
        driver.stop()
        truths += until_done(driver)
        progress = driver.progress
        assert progress.events == len(messages(bootstrap, progress.events))
    due_ms = np.concatenate([truth.send_times_ms for truth in truths])
    assert 100 <= progress.events == (due_ms <= progress.until_ms).sum() < len(due_ms)


def test_what_stops_the_driver_is_one_line(bootstrap: str) -> None:
    wrong = replace(load(bootstrap, 1.0), producer={"bootstrap.servers": bootstrap, "linger.ms": "soon"})
    with Driver(wrong) as driver, pytest.raises(LoadTestError, match="the driver cannot use Kafka: Invalid value"):
        driver.begin()
