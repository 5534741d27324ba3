"""Topics read anew from their beginning, up to what is committed."""

from collections import deque
from collections.abc import Iterator
from contextlib import closing

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from loadtest.errors import LoadTestError

MESSAGES_MAX = 5_000
POLL_S = 0.2
SILENCE_POLLS_MAX = 150


class Reading:
    """Some partitions of a topic, each from its beginning to where it ended when it was reached."""

    def __init__(self, bootstrap: str, topic: str, partitions: list[int]) -> None:
        self._topic = topic
        self._open = set(partitions)
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "tidegate-checker",  # asked for, though no group is joined
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "queued.max.messages.kbytes": 16_384,
                "log_level": 0,
            }
        )
        self._consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])

    def messages(self) -> Iterator[Message]:
        """All of them; LoadTestError where the topic cannot be read to its end."""
        silent = 0
        while self._open:
            found = self._consumer.consume(MESSAGES_MAX, POLL_S)
            silent = 0 if found else silent + 1
            if silent > SILENCE_POLLS_MAX:
                raise LoadTestError(f"{self._topic}: nothing came for {SILENCE_POLLS_MAX * POLL_S:g} s")
            for message in found:
                error = message.error()
                if error is None:
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    self._open.discard(message.partition())
                elif not error.retriable():
                    raise LoadTestError(f"{self._topic} cannot be read: {error.str()}")

    def close(self) -> None:
        """Leaves."""
        self._consumer.close()


def read_topic(bootstrap: str, topic: str, partitions: int) -> Iterator[Message]:
    """Every committed message; raises as `Reading.messages`."""
    with closing(Reading(bootstrap, topic, list(range(partitions)))) as reading:
        yield from reading.messages()


def read_one(bootstrap: str, topic: str, partition: int, offset: int) -> Message:
    """The committed message at one place; LoadTestError where there is none."""
    with closing(Reading(bootstrap, topic, [partition])) as reading:
        for message in reading.messages():
            if message.offset() == offset:
                return message
    raise LoadTestError(f"{topic}: there is no message at partition {partition}, offset {offset}")


def read_in_order(
    bootstrap: str, topic: str, runs: Iterator[tuple[int, int, int]], partitions: int
) -> Iterator[Message]:
    """The messages of (partition, from, to), one run after the other; each partition's runs must follow one another."""
    readings = [Reading(bootstrap, topic, [partition]) for partition in range(partitions)]
    try:
        streams = [reading.messages() for reading in readings]
        waiting: list[deque[Message]] = [deque() for _ in readings]
        for partition, _, to in runs:
            while (message := _next(waiting[partition], streams[partition])) is not None:
                if message.offset() >= to:
                    waiting[partition].append(message)
                    break
                yield message
                if message.offset() == to - 1:
                    break
    finally:
        for reading in readings:
            reading.close()


def _next(waiting: deque[Message], stream: Iterator[Message]) -> Message | None:
    return waiting.popleft() if waiting else next(stream, None)
