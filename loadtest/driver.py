"""The open-loop driver: a process of its own that sends every event at its intended time, however slow the engine is.

    parent                                driver
      |                                     |  connects, draws the population
      | <------------- ready -------------- |
      | --------------- go ---------------> |  the first event is due LEAD_MS later
      | <----- truth of the next chunk ---- |  and then sends it, while a thread renders the ones after it
      |                ...                  |
      | -------------- stop --------------> |  or the time is over: flushes, says so in `progress`

An event sent late counts from its intended time all the same; whoever measures sees the delay.
"""

import ctypes
import gc
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import chain
from multiprocessing import get_context
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

import numpy as np
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from loadtest.columns import NOT_POISON, Traffic
from loadtest.errors import LoadTestError
from loadtest.plan import Plan
from loadtest.render import render
from loadtest.settings import TrafficSettings
from loadtest.traffic import chunks
from loadtest.truth import Truth, truth_of

TICK_S = 0.002
CHUNK_S = 0.1
CHUNKS_AHEAD = 20
LEAD_MS = 250
# Fallen behind: more than this share of the events was sent later than this.
LATE_MS = 10.0
LATE_SHARE_MAX = 0.01
ANSWER_TIMEOUT_S = 10.0
JOIN_TIMEOUT_S = 10.0
SWITCH_INTERVAL_S = 0.0005
READY, GO, STOP = None, "go", "stop"
QUEUE_MESSAGES_MAX = 1_000_000
PRODUCER = {
    "queue.buffering.max.messages": QUEUE_MESSAGES_MAX,
    "enable.idempotence": True,
    "partitioner": "murmur2_random",
    "delivery.report.only.error": True,
    "log_level": 3,
}


@dataclass(frozen=True, slots=True)
class Load:
    """What to send, when, and where to; `producer` holds librdkafka settings.

    The traffic's `start_time_ms` makes the event ids unlike those of other runs; its rate is the plan's, and times are
    moved to when it is sent.
    """

    traffic: TrafficSettings
    plan: Plan
    topic: str
    producer: dict[str, Any]


class Progress(ctypes.Structure):
    """What has been sent, in memory that both processes see. All events due up to `until_ms` are among it."""

    _fields_ = (
        ("events", ctypes.c_int64),
        ("duplicates", ctypes.c_int64),
        ("poison", ctypes.c_int64),
        ("late", ctypes.c_int64),
        ("delay_ms_max", ctypes.c_double),
        ("until_ms", ctypes.c_int64),
        ("done", ctypes.c_bool),
    )
    events: int
    duplicates: int
    poison: int
    late: int
    delay_ms_max: float
    until_ms: int
    done: bool

    @property
    def to_decide(self) -> int:
        """Events that a decision is due for."""
        return self.events - self.duplicates - self.poison

    @property
    def behind(self) -> bool:
        """Whether the driver could not keep its own pace, so that less was offered than intended."""
        return self.late > LATE_SHARE_MAX * self.events


class Driver:
    """The parent's end. Leaving the block ends the process."""

    def __init__(self, load: Load) -> None:
        """Starts the process, which prepares itself and waits for `begin`."""
        context = get_context("spawn")
        self.progress: Progress = context.RawValue(Progress)
        self._link, theirs = context.Pipe()
        self._process = context.Process(target=drive, args=(load, self.progress, theirs), daemon=True)
        with _ctrl_c_ignored():
            self._process.start()
        theirs.close()

    def begin(self) -> None:
        """Lets it send, once it is ready; LoadTestError where it could not get there."""
        self._receive()
        self._link.send(GO)

    def truths(self) -> list[Truth]:
        """What it has told since the last call; LoadTestError where it has failed."""
        told = []
        while self._link.poll():
            told.append(self._receive())
        return [truth for truth in told if truth is not None]

    def stop(self) -> None:
        """Asks it to send nothing more; `progress.done` says when it has ended."""
        self._link.send(STOP)

    def _receive(self) -> Truth | None:
        try:
            told: Truth | LoadTestError | None = self._link.recv()
        except (EOFError, ConnectionError) as error:
            self._process.join(JOIN_TIMEOUT_S)
            raise LoadTestError(f"the driver ended with exit code {self._process.exitcode}") from error
        if isinstance(told, LoadTestError):
            raise told
        return told

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._link.close()
        self._process.join(JOIN_TIMEOUT_S)
        self._process.kill()


@contextmanager
def _ctrl_c_ignored() -> Iterator[None]:
    """A process started within ignores Ctrl-C for good: its parent sees it too, and acts on it."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def drive(load: Load, progress: Progress, link: Connection) -> None:
    """The driver's process; it ends when the parent closes its end, or is gone."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)  # the sending thread must not wait long for the rendering one
    gc.disable()  # no cycles are made here, and looking for them takes milliseconds
    with suppress(EOFError, ConnectionError):
        try:
            _send_stream(load, progress, link)
        except LoadTestError as error:
            link.send(error)
        while True:
            link.recv()


def _send_stream(load: Load, progress: Progress, link: Connection) -> None:
    sender = _Sender(load, progress)
    rate = load.plan.mean_rate
    endless = chunks(replace(load.traffic, events_per_second=rate), max(1, round(rate * CHUNK_S)))
    stream = chain([next(endless)], endless)
    link.send(READY)
    link.recv()
    start_ms = time.time_ns() // 1_000_000 + LEAD_MS
    end_ms = start_ms + round(load.plan.seconds * 1_000)
    for traffic, messages in _rendered_ahead(stream, load, start_ms):
        due = int(np.searchsorted(traffic.send_times_ms, end_ms))
        link.send(truth_of(traffic.take(slice(0, due))))
        if not sender.send(traffic, messages[:due], link) or due < len(traffic):
            break
    sender.finish()


def _rendered_ahead(
    stream: Iterator[Traffic], load: Load, start_ms: int
) -> Iterator[tuple[Traffic, list[dict[str, bytes]]]]:
    """The stream moved to when it is due, and its messages, which a thread has rendered before."""

    def rendered() -> tuple[Traffic, list[dict[str, bytes]]]:
        traffic = next(stream)
        late_ms = traffic.send_times_ms - traffic.times_ms
        traffic.send_times_ms = start_ms + load.plan.due_ms(traffic.send_times_ms - load.traffic.start_time_ms)
        traffic.times_ms = traffic.send_times_ms - late_ms
        keys = [b"%d" % number for number in traffic.card_numbers.tolist()]
        return traffic, [{"key": key, "value": value} for key, value in zip(keys, render(traffic), strict=True)]

    with ThreadPoolExecutor(1) as pool:
        ahead = deque(pool.submit(rendered) for _ in range(CHUNKS_AHEAD))
        while True:
            ahead.append(pool.submit(rendered))
            yield ahead.popleft().result()


class _Sender:
    def __init__(self, load: Load, progress: Progress) -> None:
        self._topic = load.topic
        self._progress = progress
        self._failed: str | None = None
        try:
            self._producer = Producer({**PRODUCER, **load.producer})
            self._producer.list_topics(load.topic, timeout=ANSWER_TIMEOUT_S)  # connects before the first event is due
        except KafkaException as error:
            raise LoadTestError(f"the driver cannot use Kafka: {error.args[0].str()}") from error

    def send(self, traffic: Traffic, messages: list[dict[str, bytes]], link: Connection) -> bool:
        """Sends one chunk, each event when it is due; false when told to stop."""
        sent = 0
        while sent < len(messages):
            wait_s = int(traffic.send_times_ms[sent]) / 1_000 - time.time()
            if link.poll(max(TICK_S, wait_s)):
                return bool(link.recv() != STOP)
            now_ms = time.time_ns() / 1_000_000
            due = min(int(np.searchsorted(traffic.send_times_ms, now_ms, side="right")), len(messages))
            if due > sent:
                self._produce(messages[sent:due])
                self._count(traffic, slice(sent, due), now_ms)
                sent = due
        return True

    def _produce(self, messages: list[dict[str, bytes]]) -> None:
        self._producer.poll(0)
        while len(self._producer) + len(messages) > QUEUE_MESSAGES_MAX:
            self._producer.poll(TICK_S)
        if self._producer.produce_batch(self._topic, messages, on_delivery=self._on_failure) != len(messages):
            raise LoadTestError(f"the driver's producer did not take every event for {self._topic}")
        self._check()

    def _count(self, traffic: Traffic, rows: slice, now_ms: float) -> None:
        progress = self._progress
        delays_ms = now_ms - traffic.send_times_ms[rows]
        progress.duplicates += int(traffic.duplicates[rows].sum())
        progress.poison += int((traffic.poison_kinds[rows] != NOT_POISON).sum())
        progress.late += int((delays_ms > LATE_MS).sum())
        progress.delay_ms_max = max(progress.delay_ms_max, float(delays_ms[0]))
        progress.until_ms = int(now_ms)
        progress.events += len(delays_ms)

    def finish(self) -> None:
        """Waits until Kafka has everything; LoadTestError where it has not."""
        if self._producer.flush(ANSWER_TIMEOUT_S):
            raise LoadTestError(f"Kafka did not take every event within {ANSWER_TIMEOUT_S:g} s")
        self._check()
        self._progress.done = True

    def _on_failure(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self._failed = error.str()

    def _check(self) -> None:
        if self._failed is not None:
            raise LoadTestError(f"an event could not be delivered: {self._failed}")
