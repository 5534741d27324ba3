"""One application on the real broker: topics of its own, a state directory, and the workers that run it."""

import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from numpy.typing import NDArray

from engine.config import Config, parse_config
from engine.process import WorkerProcess
from engine.state.header import Header
from engine.state.peek import read_header
from tests.conftest import TopicFactory

# Far longer than anything takes: a test that waits so long has failed.
GIVE_UP_S = 120.0
ANSWER_TIMEOUT_S = 10.0
FETCH_MESSAGES = 10_000
ASK_AGAIN_S = 0.02
# Where records are sent at a pace, so many at a time.
PACED_EVENTS = 100
PRODUCERS = 2
# Input that bears old timestamps must not be cleaned away.
KEPT = {"retention.ms": "-1"}
LARGE = {"max.message.bytes": str(4 * 1024 * 1024)}


@dataclass(frozen=True)
class Sent:
    """One record as it was sent, and where it went."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp_ms: int


@dataclass
class Application:
    """What outlasts its workers."""

    bootstrap: str
    folder: Path
    input: str
    decisions: str
    alerts: str
    dead_letters: str
    progress: str
    lease: str
    control: str
    shadow_decisions: str
    decisions_sample: str
    telemetry: str
    application_id: str
    partitions: int
    sent: list[Sent] = field(default_factory=list)

    def config_text(self, **settings: str | int | float | bool | list[str]) -> str:
        """Low thresholds; `kafka__commit_interval_ms=5` sets that key of that table."""
        tables: dict[str, dict[str, Any]] = {
            "policy": {"challenge": 2, "review": 5, "decline": 900},
            "kafka": {"input": self.input, "application_id": self.application_id, "decision_features": True},
            "kafka.topics": {
                "decisions": self.decisions,
                "alerts": self.alerts,
                "dead_letters": self.dead_letters,
                "progress": self.progress,
                "lease": self.lease,
                "control": self.control,
                "shadow_decisions": self.shadow_decisions,
                "decisions_sample": self.decisions_sample,
                "telemetry": self.telemetry,
            },
            "state": {"dir": "state", "cache_bytes_max": 64 << 20, "dirty_bytes_max": 16 << 20},
            "observe": {"log_format": "json"},
        }
        for name, value in settings.items():
            table, _, key = name.partition("__")
            tables.setdefault(table, {})[key] = value
        if "file" in tables["policy"]:
            tables["policy"] = {"file": tables["policy"]["file"]}
        return "".join(
            f"[{table}]\n" + "".join(f"{json.dumps(key)} = {json.dumps(value)}\n" for key, value in entries.items())
            for table, entries in tables.items()
        )

    def config(self, **settings: str | int | float | bool | list[str]) -> Config:
        """The same, validated."""
        return parse_config(self.config_text(**settings), self.folder, {"TIDEGATE__KAFKA__BOOTSTRAP": self.bootstrap})

    @contextmanager
    def worker(
        self, *, active: bool = True, **settings: str | int | float | bool | list[str]
    ) -> Iterator[WorkerProcess]:
        """A running worker, ready for events; by default one that has the lease."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE")}
        with WorkerProcess(self.config_text(**settings), self.folder, self.bootstrap, environment) as worker:
            (worker.wait_active if active else worker.wait_ready)(threading.Event())
            yield worker

    def produce(
        self,
        values: Sequence[bytes | None],
        keys: Sequence[bytes | None],
        times_ms: NDArray[np.int64] | Sequence[int],
        events_per_s: float = math.inf,
        **settings: Any,
    ) -> None:
        """Sends records with these timestamps, so fast at most, and remembers where each one went."""
        messages = self._delivered(values, keys, times_ms, events_per_s, **settings)
        for message, key, value, time_ms in zip(messages, keys, values, np.asarray(times_ms).tolist(), strict=True):
            assert message is not None
            self.sent.append(Sent(message.partition(), message.offset(), key, value, time_ms))

    def produce_over_outage(
        self,
        values: Sequence[bytes | None],
        keys: Sequence[bytes | None],
        times_ms: NDArray[np.int64] | Sequence[int],
        events_per_s: float = math.inf,
    ) -> None:
        """Sends these while the broker goes and comes; `note_sent` then finds out what of it the topic holds.

        A producer may stay without the leader of a partition for good (docs/delivery-findings.md): another one takes
        over what it has not delivered, and perhaps sends some again.
        """
        left = np.arange(len(values))
        for _ in range(PRODUCERS):
            messages = self._delivered(
                [values[row] for row in left], [keys[row] for row in left], np.asarray(times_ms)[left], events_per_s
            )
            left = left[[message is None for message in messages]]
        assert len(left) == 0

    def note_sent(self) -> None:
        """What the input holds is what was sent."""
        for message in self.read_all(self.input):
            self.sent.append(
                Sent(message.partition(), message.offset(), message.key(), message.value(), message.timestamp()[1])
            )

    def _delivered(
        self,
        values: Sequence[bytes | None],
        keys: Sequence[bytes | None],
        times_ms: NDArray[np.int64] | Sequence[int],
        events_per_s: float,
        **settings: Any,
    ) -> list[Message | None]:
        """Sends them by a producer of its own; None for those that are not acknowledged GIVE_UP_S after the last."""
        rows: list[Message | None] = [None] * len(values)

        def note(row: int) -> Callable[[Any, Message], None]:
            def on_delivery(error: Any, message: Message) -> None:
                rows[row] = message if error is None else None

            return on_delivery

        producer = Producer(
            {
                "bootstrap.servers": self.bootstrap,
                "partitioner": "murmur2_random",
                "queue.buffering.max.messages": 1_000_000,
                "linger.ms": 5,
                "enable.idempotence": True,
                **settings,
            }
        )
        began, never = time.monotonic(), threading.Event()
        with closing(producer):
            for row, (value, key, time_ms) in enumerate(zip(values, keys, np.asarray(times_ms).tolist(), strict=True)):
                producer.produce(self.input, value, key, timestamp=time_ms, on_delivery=note(row))
                if row % PACED_EVENTS == 0:
                    producer.poll(0)
                    never.wait(max(0.0, began + row / events_per_s - time.monotonic()))
            if producer.flush(GIVE_UP_S):
                producer.purge()
        return rows

    def committed(self) -> dict[int, int]:
        """The committed offset of each partition that has one."""
        with closing(self._consumer(self.application_id)) as consumer:
            answers = consumer.committed(self._places(), timeout=ANSWER_TIMEOUT_S)
        return {answer.partition: answer.offset for answer in answers if answer.offset >= 0}

    def commit(self, vector: dict[int, int]) -> None:
        """Sets the committed offsets, as an operator would."""
        with closing(self._consumer(self.application_id)) as consumer:
            places = [TopicPartition(self.input, partition, offset) for partition, offset in vector.items()]
            consumer.commit(offsets=places, asynchronous=False)

    def ends(self) -> dict[int, int]:
        """The next offset to be written, per partition of the input."""
        give_up_at = time.monotonic() + GIVE_UP_S
        with closing(self._consumer("test")) as consumer:
            while True:
                try:
                    return {
                        place.partition: consumer.get_watermark_offsets(place, timeout=ANSWER_TIMEOUT_S)[1]
                        for place in self._places()
                    }
                except KafkaException as error:
                    # A broker that has just started leads its partitions one after another.
                    if error.args[0].code() != KafkaError.NOT_LEADER_FOR_PARTITION or time.monotonic() > give_up_at:
                        raise

    def wait_committed(self, worker: WorkerProcess) -> None:
        """Returns once everything that was sent is committed."""
        ends = self.ends()
        give_up_at = time.monotonic() + GIVE_UP_S
        while self.committed() != ends:
            worker.check()
            assert time.monotonic() < give_up_at, f"committed {self.committed()}, the topic ends at {ends}"

    def header(self) -> Header:
        """What the state on disk says of itself; no worker may be running."""
        header = read_header(self.folder / "state")
        assert header is not None
        return header

    def reader(self, topic: str) -> "Reader":
        """Reads one of the outputs from its beginning."""
        return Reader(self.bootstrap, topic)

    def read_all(self, topic: str) -> list[Message]:
        """Everything that an output holds now."""
        with closing(self.reader(topic)) as reader:
            reader.read_to_end()
            return reader.messages

    def _places(self) -> list[TopicPartition]:
        return [TopicPartition(self.input, partition) for partition in range(self.partitions)]

    def _consumer(self, group: str) -> Consumer:
        return Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": group,
                "enable.auto.commit": False,
                # Committed offsets as they are, whatever transaction a dead worker left open.
                "isolation.level": "read_uncommitted",
            }
        )


def wait_for(worker: WorkerProcess, what: str, holds: Callable[[dict[str, float]], bool]) -> None:
    """Returns once the worker's metrics say so, which nothing announces; fails where it ends before."""
    give_up_at, never = time.monotonic() + GIVE_UP_S, threading.Event()
    while not holds(worker.samples()):
        assert time.monotonic() < give_up_at, f"the worker waited in vain for {what}"
        never.wait(ASK_AGAIN_S)


class Reader:
    """Every message of a topic, from the first on."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self.messages: list[Message] = []
        self._read: dict[int, int] = {}
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "test",
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
            }
        )
        found = self._consumer.list_topics(topic, timeout=ANSWER_TIMEOUT_S).topics[topic].partitions
        self._places = [TopicPartition(topic, partition, 0) for partition in found]
        self._consumer.assign(self._places)

    def read_until(self, count: int, worker: WorkerProcess | None = None) -> None:
        """Returns once so many messages were read; fails where the worker ends before."""
        give_up_at = time.monotonic() + GIVE_UP_S
        while len(self.messages) < count:
            self._take(self._consumer.consume(FETCH_MESSAGES, 0.05))
            assert time.monotonic() < give_up_at, f"{len(self.messages)} of {count} messages arrived"
            if worker is not None and len(self.messages) < count:
                worker.check()

    def read_to_end(self) -> None:
        """Returns once everything was read that the topic holds when this is called: markers take up offsets too."""
        ends = {
            place.partition: self._consumer.get_watermark_offsets(place, timeout=ANSWER_TIMEOUT_S)[1]
            for place in self._places
        }
        give_up_at = time.monotonic() + GIVE_UP_S
        while any(self._read.get(partition, 0) < end for partition, end in ends.items()):
            self._take(self._consumer.consume(FETCH_MESSAGES, 0.05))
            assert time.monotonic() < give_up_at, f"read up to {self._read} of {ends}"

    def _take(self, messages: list[Message]) -> None:
        for message in messages:
            if message.error() is None:
                self.messages.append(message)
                self._read[message.partition()] = message.offset() + 1
            elif message.error().code() == KafkaError._PARTITION_EOF:
                self._read[message.partition()] = message.offset()
            else:
                raise KafkaException(message.error())

    def close(self) -> None:
        self._consumer.close()


def new_application(bootstrap: str, folder: Path, topic_factory: TopicFactory, partitions: int = 1) -> Application:
    """Topics that nobody else has, and an empty folder."""
    made = topic_factory("transactions", partitions, KEPT | LARGE)
    return Application(
        bootstrap=bootstrap,
        folder=folder,
        input=made,
        decisions=topic_factory("decisions", partitions),
        alerts=topic_factory("alerts", partitions),
        dead_letters=topic_factory("dead-letters", partitions, LARGE),
        progress=topic_factory("progress"),
        lease=topic_factory("lease"),
        control=topic_factory("control", config={"cleanup.policy": "compact"}),
        shadow_decisions=topic_factory("shadow-decisions", partitions),
        decisions_sample=topic_factory("decisions-sample", partitions),
        telemetry=topic_factory("telemetry"),
        application_id=made,
        partitions=partitions,
    )
