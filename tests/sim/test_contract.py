"""What the engine relies on in Kafka, shown for the simulated cluster and for the real broker by the same tests."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol
from uuid import uuid4

import pytest
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, OFFSET_INVALID, Consumer, KafkaError, KafkaException, Message
from confluent_kafka import Producer, TopicPartition

from tests.conftest import TopicFactory
from tests.sim.clients import SimClients
from tests.sim.cluster import Cluster

ANSWER_TIMEOUT_S = 15.0
LEASE = {
    "session.timeout.ms": 6_000,
    "heartbeat.interval.ms": 300,
    "partition.assignment.strategy": "cooperative-sticky",
    "auto.offset.reset": "earliest",
}


class World(Protocol):
    """A cluster to test against. Every client is closed when the test ends."""

    def topic(self, partitions: int = 1) -> str: ...

    def consumer(self, group: str, **settings: Any) -> Any: ...

    def producer(self, transactional_id: str | None = None, **settings: Any) -> Any: ...

    def now_s(self) -> float: ...


def consumer_settings(group: str, settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "group.id": group,
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        "fetch.wait.max.ms": 50,
        **{key.replace("__", "."): value for key, value in settings.items()},
    }


def producer_settings(transactional_id: str | None, settings: dict[str, Any]) -> dict[str, Any]:
    identity = {} if transactional_id is None else {"transactional.id": transactional_id}
    named = {key.replace("__", "."): value for key, value in settings.items()}
    return {"enable.idempotence": True, "linger.ms": 1, "error_cb": lambda _error: None, **identity, **named}


class SimulatedWorld:
    def __init__(self) -> None:
        self.cluster = Cluster()
        self._clients = SimClients(self.cluster, self.cluster.process("test"))
        self._topics = 0

    def topic(self, partitions: int = 1) -> str:
        self._topics += 1
        self.cluster.create_topic(f"topic-{self._topics}", partitions)
        return f"topic-{self._topics}"

    def consumer(self, group: str, **settings: Any) -> Any:
        return self._clients.consumer(consumer_settings(group, settings))

    def producer(self, transactional_id: str | None = None, **settings: Any) -> Any:
        return self._clients.producer(producer_settings(transactional_id, settings))

    def now_s(self) -> float:
        return self.cluster.clock.now_s
