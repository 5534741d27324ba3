"""The input and output of a run: made, filled, watched, and taken away."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from loadtest.errors import LoadTestError
from loadtest.peers.job import Stream
from loadtest.topics import delete_topics

ANSWER_TIMEOUT_S = 30.0
FLUSH_TIMEOUT_S = 120.0
# Events are of a past year, and must stay.
INPUT = {"retention.ms": "-1"}
# When a result came is read from the log, so that no consumer needs the processors meanwhile.
OUTPUT = {"message.timestamp.type": "LogAppendTime"}
SENDING = {"linger.ms": 50, "queue.buffering.max.messages": 1_000_000, "partitioner": "murmur2_random"}


class Topics:
    """Topics of one bootstrap address."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self._admin = AdminClient({"bootstrap.servers": bootstrap})

    @contextmanager
    def made(self, name: str, partitions: int, config: dict[str, str]) -> Iterator[str]:
        """A topic that is deleted when the block ends."""
        wanted = NewTopic(name, num_partitions=partitions, replication_factor=1, config=config)
        for future in self._admin.create_topics([wanted], operation_timeout=ANSWER_TIMEOUT_S).values():
            future.result(ANSWER_TIMEOUT_S)
        try:
            self._wait_led(name, partitions)
            yield name
        finally:
            self.sweep(name)

    def _wait_led(self, name: str, partitions: int) -> None:
        """Returns once the leader of every partition knows that it is; KafkaException where none does in time."""
        never, give_up_at = threading.Event(), time.monotonic() + ANSWER_TIMEOUT_S
        with closing(EndOffsets(self.bootstrap, name, partitions)) as ends:
            while True:
                try:
                    ends.total()
                except KafkaException:
                    if time.monotonic() > give_up_at:
                        raise
                    never.wait(0.05)
                else:
                    return

    def sweep(self, prefix: str) -> None:
        """Deletes every topic whose name begins so: those that a peer has made for itself, too."""
        delete_topics(self._admin, prefix)

    def fill(self, topic: str, events: Stream, first: int, last: int) -> None:
        """Puts rows of the stream on a topic, by card; LoadTestError where the broker does not take them all."""
        producer = Producer({"bootstrap.servers": self.bootstrap, **SENDING})
        for start, end in events.chunks(first, last):
            times_ms = events.times_ms[start:end].tolist()
            for value, key, time_ms in zip(events.values(start, end), events.keys(start, end), times_ms, strict=True):
                producer.produce(topic, value, key, timestamp=time_ms)
            if producer.flush(FLUSH_TIMEOUT_S):
                raise LoadTestError(f"{topic}: the broker did not take every event in {FLUSH_TIMEOUT_S:g} s")


class EndOffsets:
    """How far a topic has grown, asked of the broker without reading it."""

    def __init__(self, bootstrap: str, topic: str, partitions: int) -> None:
        self._consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "peers-watch"})
        self._partitions = [TopicPartition(topic, partition) for partition in range(partitions)]

    def total(self) -> int:
        """Records of all partitions, markers of transactions included."""
        return sum(self._consumer.get_watermark_offsets(one, ANSWER_TIMEOUT_S)[1] for one in self._partitions)

    def close(self) -> None:
        """Takes its connection down."""
        self._consumer.close()


def wait_growth(bootstrap: str, topic: str, partitions: int, more_than: int, deadline_s: float) -> bool:
    """Whether a topic came to hold more records than that before the deadline."""
    never, waited_s = threading.Event(), 0.0
    with closing(EndOffsets(bootstrap, topic, partitions)) as ends:
        while ends.total() <= more_than:
            if waited_s > deadline_s:
                return False
            never.wait(0.1)
            waited_s += 0.1
    return True
