"""A simulated cluster and a real broker behind one face, so that one set of tests can speak of both."""

import logging
import os
import re
import signal
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from tests.conftest import ROOT, TopicFactory, noted_bootstrap
from tests.sim.clients import SimClients
from tests.sim.cluster import Cluster
from tests.sim.errors import RefusedError
from tests.sim.proxy import Proxy


class World(Protocol):
    """A cluster to test against, with no faults but those that are asked for."""

    def topic(self, partitions: int = 1) -> str:
        """A topic that no other test has."""

    def consumer(self, group: str, **settings: Any) -> Any:
        """A read_committed consumer that never resets; `auto__offset__reset="earliest"` sets that key."""

    def producer(self, transactional_id: str | None = None, **settings: Any) -> Any: ...

    def now_s(self) -> float: ...

    def sleep(self, seconds: float) -> None: ...

    def delete_before(self, topic: str, offset: int) -> None:
        """Deletes the beginning of partition 0."""

    def members(self, group: str) -> int:
        """How many members the broker counts."""

    def late_end(self, transactional_id: str, *, commit: bool) -> int:
        """An EndTxn v1 of the producer's current epoch arrives, as if it had been under way; the broker's answer.

        The producer must have been made with `debug="eos"`.
        """

    def fragile_producer(self, transactional_id: str, **settings: Any) -> Any:
        """A producer whose connections `hold_next_end` can break."""

    def hold_next_end(self) -> None:
        """The next EndTxn stays under way, and its connection breaks."""

    def release_end(self) -> None:
        """It arrives."""

    def outage(self) -> Any:
        """A context in which the broker does not answer."""

    def close(self) -> None: ...


def _consumer_settings(group: str, settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "group.id": group,
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        "fetch.wait.max.ms": 50,
        "error_cb": lambda _error: None,
        **_named(settings),
    }


def _producer_settings(transactional_id: str | None, settings: dict[str, Any]) -> dict[str, Any]:
    identity = {} if transactional_id is None else {"transactional.id": transactional_id}
    return {"enable.idempotence": True, "linger.ms": 1, "error_cb": lambda _error: None, **identity, **_named(settings)}


def _named(settings: dict[str, Any]) -> dict[str, Any]:
    return {key.replace("__", "."): value for key, value in settings.items()}


class SimulatedWorld:
    def __init__(self) -> None:
        self.cluster = Cluster()
        self._clients = SimClients(self.cluster, self.cluster.process("test"))

    def topic(self, partitions: int = 1) -> str:
        name = f"topic-{len(self.cluster.topics)}"
        self.cluster.create_topic(name, partitions)
        return name

    def consumer(self, group: str, **settings: Any) -> Any:
        return self._clients.consumer(_consumer_settings(group, settings))

    def producer(self, transactional_id: str | None = None, **settings: Any) -> Any:
        return self._clients.producer(_producer_settings(transactional_id, settings))

    def now_s(self) -> float:
        return self.cluster.clock.now_s

    def sleep(self, seconds: float) -> None:
        self.cluster.clock.advance(seconds)

    def delete_before(self, topic: str, offset: int) -> None:
        self.cluster.log(topic, 0).truncate(offset)

    def members(self, group: str) -> int:
        return len(self.cluster.group(group).members)

    def late_end(self, transactional_id: str, *, commit: bool) -> int:
        known = self.cluster.coordinator.transactions[transactional_id]
        try:
            self.cluster.coordinator.end(transactional_id, known.writer, known.epoch, commit=commit)
        except RefusedError as refused:
            return refused.code
        return 0

    def fragile_producer(self, transactional_id: str, **settings: Any) -> Any:
        return self.producer(transactional_id, **settings)

    def hold_next_end(self) -> None:
        self.cluster.faults.force("repeated request", "test EndTxn")

    def release_end(self) -> None:
        self.cluster.clock.advance(self.cluster.faults.late_s)

    @contextmanager
    def outage(self) -> Iterator[None]:
        self.cluster.stop_broker()
        yield
        self.cluster.start_broker()

    def close(self) -> None:
        """Nothing of it outlasts the test."""


class RealWorld:
    def __init__(self, bootstrap: str, topics: TopicFactory) -> None:
        self._bootstrap = bootstrap
        self._topics = topics
        self._admin = AdminClient({"bootstrap.servers": bootstrap})
        self._consumers: list[Any] = []
        self._identities: dict[str, _Identity] = {}
        host, port = bootstrap.split(",", maxsplit=1)[0].rsplit(":", 1)
        self._address = (host, int(port))
        self._proxy: Proxy | None = None

    def topic(self, partitions: int = 1) -> str:
        return self._topics("contract", partitions)

    def consumer(self, group: str, **settings: Any) -> Any:
        consumer = Consumer({"bootstrap.servers": self._bootstrap, **_consumer_settings(group, settings)})
        self._consumers.append(consumer)
        return consumer

    def producer(self, transactional_id: str | None = None, **settings: Any) -> Any:
        watch: dict[str, Any] = {}
        if transactional_id is not None and "debug" in settings:
            identity = self._identities[transactional_id] = _Identity()
            watch = {"logger": identity.logger, "log_level": 7}
        return Producer(
            {"bootstrap.servers": self._bootstrap, **watch, **_producer_settings(transactional_id, settings)}
        )

    def now_s(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def delete_before(self, topic: str, offset: int) -> None:
        for deleted in self._admin.delete_records([TopicPartition(topic, 0, offset)]).values():
            deleted.result()

    def members(self, group: str) -> int:
        return len(self._admin.describe_consumer_groups([group])[group].result().members)

    def late_end(self, transactional_id: str, *, commit: bool) -> int:
        self._need_one_node()
        writer, epoch = self._identities[transactional_id].current
        return _end_txn_v1(self._address, transactional_id, writer, epoch, commit=commit)

    def fragile_producer(self, transactional_id: str, **settings: Any) -> Any:
        self._need_one_node()
        self._proxy = Proxy(self._address)
        proxied = {
            "bootstrap.servers": f"127.0.0.1:{self._proxy.port}",
            **_producer_settings(transactional_id, settings),
        }
        return Producer(proxied)

    def hold_next_end(self) -> None:
        assert self._proxy is not None
        self._proxy.hold_next_end()

    def release_end(self) -> None:
        assert self._proxy is not None
        assert self._proxy.ends == 2, "it was not repeated"
        self._proxy.release()

    @contextmanager
    def outage(self) -> Iterator[None]:
        """The broker's process stands still."""
        if noted_bootstrap() != self._bootstrap:
            pytest.skip("only a broker of `scripts/kafka start` can be stopped")
        home = Path(os.environ.get("TIDEGATE_KAFKA_HOME", ROOT / ".kafka"))
        nodes = [int(note.read_text().split()[0]) for note in sorted(home.glob("nodes/*/pid"))]
        for node in nodes:
            os.kill(node, signal.SIGSTOP)
        try:
            yield
        finally:
            for node in nodes:
                os.kill(node, signal.SIGCONT)

    def _need_one_node(self) -> None:
        if "," in self._bootstrap:
            pytest.skip("only of a single node it is known that it is the transaction coordinator")

    def close(self) -> None:
        for consumer in self._consumers:
            consumer.close()
        if self._proxy is not None:
            self._proxy.close()


class _Identity(logging.Handler):
    """The producer id and epoch of a transactional producer, which only librdkafka's log tells."""

    _PID = re.compile(r"PID\{Id:(\d+),Epoch:(\d+)\}")

    def __init__(self) -> None:
        super().__init__()
        self.current = (-1, -1)
        self.logger = logging.Logger("tests.contract")
        self.logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        for writer, epoch in self._PID.findall(record.getMessage()):
            self.current = (int(writer), int(epoch))


def _end_txn_v1(address: tuple[str, int], name: str, writer: int, epoch: int, *, commit: bool) -> int:
    """Sends one EndTxn request by hand, and returns the error code of its answer."""
    encoded = name.encode()
    header = struct.pack(">hhih", 26, 1, 1, 4) + b"test"
    body = struct.pack(">h", len(encoded)) + encoded + struct.pack(">qh?", writer, epoch, commit)
    with socket.create_connection(address, timeout=10.0) as connection:
        connection.sendall(struct.pack(">i", len(header) + len(body)) + header + body)
        answer = connection.makefile("rb").read(14)
    _size, _correlation, _throttle_ms, code = struct.unpack(">iiih", answer)
    return int(code)


def unique(name: str) -> str:
    """A name of a group or a transactional id that no other test has."""
    return f"test-{name}-{uuid4().hex[:12]}"
