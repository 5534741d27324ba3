"""When decisions came, as whoever reads only what is committed sees it."""

import threading
import time
from array import array
from bisect import bisect_left
from concurrent.futures import Future
from itertools import pairwise

from confluent_kafka import Consumer, KafkaError, TopicPartition

from loadtest.chaos.application import Application
from loadtest.chaos.probe import Offsets
from loadtest.errors import LoadTestError

POLL_S = 0.05
MESSAGES_MAX = 5_000
JOIN_TIMEOUT_S = 30.0


class Arrivals(threading.Thread):
    """Reads the decisions from their beginning, in a thread of its own, and keeps when and where they stood."""

    def __init__(self, application: Application) -> None:
        super().__init__(name="arrivals", daemon=True)
        self.topic = application.decisions
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._failed: str | None = None
        self._offsets = {partition: array("q") for partition in range(application.partitions)}
        self._times_s = array("d")
        self._awaited: tuple[Offsets, Future[float]] | None = None
        self._consumer = Consumer(
            {
                "bootstrap.servers": application.bootstrap,
                "group.id": f"{application.id}.arrivals",
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 20,
                # A broker that was killed is asked again soon after it is back.
                "reconnect.backoff.max.ms": 500,
                "log_level": 0,
            }
        )
        self._consumer.assign([TopicPartition(self.topic, partition, 0) for partition in self._offsets])

    def run(self) -> None:
        """The thread."""
        while not self._ending.is_set():
            message = self._consumer.poll(POLL_S)
            if message is None:
                continue
            messages = [message, *self._consumer.consume(MESSAGES_MAX, 0)]
            now = time.monotonic()
            errors = [found.error() for found in messages if found.error() is not None]
            places = [(found.partition(), found.offset()) for found in messages if found.error() is None]
            if places:
                self._note(places, now)
            for error in errors:
                if error.fatal() or error.code() == KafkaError._AUTO_OFFSET_RESET:
                    self._failed = error.str()

    def _note(self, places: list[tuple[int, int]], now: float) -> None:
        with self._lock:
            self._times_s.append(now)
            for partition, offset in places:
                self._offsets[partition].append(offset)
            if self._awaited is None:
                return
            beyond, first = self._awaited
            if any(offset >= beyond.get(partition, 0) for partition, offset in places):
                self._awaited = None
                first.set_result(now)

    def beyond(self, ends: Offsets) -> "Future[float]":
        """When the first decision came that stands at or behind these offsets; on the monotonic clock.

        To be asked for before it can come: the last one that was asked for is the one that is answered.
        """
        first: Future[float] = Future()
        with self._lock:
            self._awaited = (ends, first)
        return first

    def saw(self, partition: int, offset: int) -> bool:
        """Whether a decision at this very place has come."""
        with self._lock:
            offsets = self._offsets[partition]
            at = bisect_left(offsets, offset)
            return at < len(offsets) and offsets[at] == offset

    def longest_gap_s(self, since_s: float, until_s: float) -> float:
        """The longest time without a decision between these moments, both of which end one."""
        with self._lock:
            times_s = [time_s for time_s in self._times_s if since_s < time_s < until_s]
        bounds_s = [since_s, *times_s, until_s]
        return max(later - earlier for earlier, later in pairwise(bounds_s))

    def check(self) -> None:
        """LoadTestError where nothing more can be read."""
        if self._failed is not None:
            raise LoadTestError(f"the decisions cannot be read on: {self._failed}")

    def stop(self) -> None:
        """Ends the thread and leaves."""
        self._ending.set()
        if self.is_alive():
            self.join(JOIN_TIMEOUT_S)
        self._consumer.close()
