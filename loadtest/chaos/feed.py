"""The input: the stream of a seed, at a steady pace, from a thread of its own.

In event time the stream lies in the day that ends now, and goes faster than the clock. Record timestamps are the
clock's: a broker that was killed forgets producers by them, and would take a record of long ago twice.

While the workers are being killed the stream must not end: the last fifth is held back, and sent ever more slowly,
until `release`.
"""

import threading
import time
from collections.abc import Iterator

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from loadtest.chaos.application import Application
from loadtest.errors import LoadTestError
from loadtest.render import render
from loadtest.settings import TrafficSettings
from loadtest.traffic import chunks

TICK_S = 0.01
CHUNK_EVENTS = 1_000
HELD_BACK_SHARE = 0.2
FLUSH_TIMEOUT_S = 120.0
JOIN_TIMEOUT_S = 150.0

Record = tuple[bytes, bytes]


def paced(rate: float, left: int, events: int, *, released: bool) -> float:
    """Events per second that are due now, with so many of `events` left.

    >>> [paced(1000, left, 100, released=False) for left in (100, 20, 10, 1)]
    [1000.0, 1000.0, 500.0, 50.0]
    """
    held_back = HELD_BACK_SHARE * events
    return float(rate) if released or left >= held_back else rate * left / held_back


class Feed(threading.Thread):
    """Sends `events` records. `sent` counts them; `done` is set once all are in Kafka, or it failed."""

    def __init__(self, application: Application, traffic: TrafficSettings, events: int, rate: float) -> None:
        super().__init__(name="feed", daemon=True)
        self.sent = 0
        self.done = threading.Event()
        self._topic = application.input
        self._events = events
        self._rate = rate
        self._released = threading.Event()
        self._ending = threading.Event()
        self._failed: str | None = None
        span_ms = round(events / traffic.events_per_second * 1_000)
        self._records = _records(traffic, time.time_ns() // 1_000_000 - span_ms)
        self._producer = Producer(
            {
                "bootstrap.servers": application.bootstrap,
                "enable.idempotence": True,
                "partitioner": "murmur2_random",
                "compression.type": "lz4",
                "linger.ms": 5,
                # A killed broker comes back.
                "message.timeout.ms": 0,
                "queue.buffering.max.messages": 1_000_000,
                "delivery.report.only.error": True,
                "log_level": 0,
            }
        )

    def release(self) -> None:
        """Nothing more is held back."""
        self._released.set()

    def left(self) -> int:
        """How many are not sent yet, or, when all are, whether Kafka does not have them all yet."""
        return self._events - self.sent + (not self.done.is_set())

    def check(self) -> None:
        """LoadTestError where it has failed."""
        if self._failed is not None:
            raise LoadTestError(f"the feed failed: {self._failed}")

    def run(self) -> None:
        """The thread."""
        try:
            self._send()
            if not self._ending.is_set() and self._producer.flush(FLUSH_TIMEOUT_S):
                self._failed = f"Kafka did not take every event within {FLUSH_TIMEOUT_S:g} s"
        except KafkaException as error:
            self._failed = error.args[0].str()
        finally:
            self.done.set()

    def _send(self) -> None:
        due, before = 0.0, time.monotonic()
        while self.sent < self._events and not self._ending.wait(TICK_S):
            now = time.monotonic()
            left = self._events - self.sent
            due = min(
                due + (now - before) * paced(self._rate, left, self._events, released=self._released.is_set()), left
            )
            before = now
            for _ in range(int(due)):
                key, value = next(self._records)
                self._producer.produce(self._topic, value, key, on_delivery=self._on_failure)
            self.sent += int(due)
            due -= int(due)
            self._producer.poll(0)

    def _on_failure(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self._failed = error.str()

    def stop(self) -> None:
        """Sends nothing more."""
        self._ending.set()
        self._producer.purge()
        self.join(JOIN_TIMEOUT_S)


def _records(traffic: TrafficSettings, begin_ms: int) -> Iterator[Record]:
    """Key and value of each record, without end; the first is of that time."""
    for chunk in chunks(traffic, CHUNK_EVENTS):
        chunk.times_ms += begin_ms - traffic.start_time_ms
        keys = (b"%d" % number for number in chunk.card_numbers.tolist())
        yield from zip(keys, render(chunk), strict=True)
