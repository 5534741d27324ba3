"""The libraries alone: a topic read and another written, with as little between as can be."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType

import msgspec
import numpy as np
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from numpy.typing import NDArray

from engine.config import Config
from engine.emit import Message
from engine.errors import FatalError
from engine.kafka.client import consumer_settings, producer_settings

FLUSH_TIMEOUT_S = 60.0
PRELOAD_SETTINGS = {"linger.ms": 50, "queue.buffering.max.messages": 1_000_000}


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rendered events: JSON values, partition keys and event times (ms, which become the record timestamps)."""

    values: list[bytes]
    keys: list[bytes]
    times_ms: NDArray[np.int64]


def preload(config: Config, chunks: Iterator[Chunk]) -> None:
    """Puts events on the input topic; FatalError where the broker does not take them all."""
    producer = Producer({**producer_settings(config), **PRELOAD_SETTINGS})
    for chunk in chunks:
        for value, key, time_ms in zip(chunk.values, chunk.keys, chunk.times_ms.tolist(), strict=True):
            producer.produce(config.kafka.input, value, key, timestamp=time_ms)
        if producer.flush(FLUSH_TIMEOUT_S):
            raise FatalError(f"{config.kafka.input}: the broker did not take every event in {FLUSH_TIMEOUT_S:g} s")
    producer.close()


class Floor:
    """Polls and commits as the worker does; per batch it calls `work` and sends messages that are there already."""

    def __init__(self, config: Config, messages: list[Message], work: Callable[[list[bytes]], None]) -> None:
        group = msgspec.structs.replace(config.kafka, application_id=f"{config.kafka.application_id}-floor")
        config = msgspec.structs.replace(config, kafka=group)
        self._kafka = config.kafka
        self._messages = messages
        self._work = work
        self._producer = Producer(producer_settings(config))
        self._consumer = Consumer(consumer_settings(config))
        partitions = self._consumer.list_topics(config.kafka.input, timeout=10.0).topics[config.kafka.input].partitions
        self._vector = dict.fromkeys(partitions, 0)
        self._consumer.assign([TopicPartition(config.kafka.input, partition, 0) for partition in partitions])
        self._commit_at = 0.0
        self.events = 0

    def turn_until(self, events: int) -> None:
        """Works until so many events have passed."""
        while self.events < events:
            messages = self._consumer.consume(self._kafka.batch_events_max, self._kafka.batch_linger_ms / 1000)
            messages = [message for message in messages if _is_record(message.error())]
            if messages:
                self._work([message.value() for message in messages])
                start = self.events % (len(self._messages) - len(messages))
                self._send(self._messages[start : start + len(messages)])
                self.events += len(messages)
                for message in messages[-1:]:
                    self._vector[message.partition()] = message.offset() + 1
            if time.monotonic() >= self._commit_at:
                self._commit()

    def _send(self, messages: list[Message]) -> None:
        if self._producer.produce_batch(self._kafka.topics.decisions, messages) != len(messages):
            raise FatalError("the floor's producer queue is full")
        self._producer.poll(0)

    def _commit(self) -> None:
        self._producer.flush(FLUSH_TIMEOUT_S)
        offsets = [TopicPartition(self._kafka.input, partition, at) for partition, at in self._vector.items()]
        self._consumer.commit(offsets=offsets, asynchronous=False)
        self._commit_at = time.monotonic() + self._kafka.commit_interval_ms / 1000

    def __enter__(self) -> "Floor":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._producer.flush(FLUSH_TIMEOUT_S)
        self._consumer.close()


def _is_record(error: KafkaError | None) -> bool:
    if error is not None and error.code() != KafkaError._PARTITION_EOF:
        raise FatalError(error.str())
    return error is None
