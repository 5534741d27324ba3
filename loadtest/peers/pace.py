"""p99 of a peer at a steady pace: from when an event was due to when a read_committed consumer has its result."""

import multiprocessing
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.connection import Connection

import msgspec
import numpy as np
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from loadtest.peers.job import Int64, Stream, number_of
from loadtest.peers.measure import FIRST_RESULT_DEADLINE_S
from loadtest.peers.peer import Peer, Run
from loadtest.peers.program import Program, running
from loadtest.peers.results import Float64, Result
from loadtest.peers.topics import Topics, wait_growth

# Sent at once and before all others, so that whatever starts late has started; its results are not counted.
PRIMING_EVENTS = 2_000
WARM_UP_S = 10.0
LINGER_MS = 2
# What is not there so long after the last event was due was not held at that rate.
PATIENCE_S = 10.0
# Where a window needs a later event to be computed, the last ones have none.
AT_LEAST_SHARE = 0.98


@dataclass(frozen=True, slots=True)
class Pace:
    """Events per second, and how many seconds of them count; so many more before are warm-up."""

    rate: float
    seconds: float

    @property
    def events(self) -> int:
        """How many are sent at the pace."""
        return int(self.rate * (self.seconds + WARM_UP_S))

    @property
    def stream_events(self) -> int:
        """The same, with those that are sent at once before them."""
        return PRIMING_EVENTS + self.events


def paced(peer: Peer, run: Run, topics: Topics, events: Stream, pace: Pace) -> float | None:
    """p99 in ms; None where results kept falling behind. The stream has at least `pace.stream_events`."""
    with running(peer.command(run), run.folder) as program:
        topics.fill(run.input, events, 0, PRIMING_EVENTS)
        if not wait_growth(run.bootstrap, run.output, run.partitions, 0, FIRST_RESULT_DEADLINE_S):
            return None
        rows, came_s, began_s = _sent_and_read(program, run, events, pace)
    due_s = began_s + (rows - PRIMING_EVENTS) / pace.rate
    counted = due_s >= began_s + WARM_UP_S
    if counted.sum() < AT_LEAST_SHARE * pace.rate * pace.seconds:
        return None
    return float(np.percentile((came_s - due_s)[counted], 99) * 1_000)


def _sent_and_read(program: Program, run: Run, events: Stream, pace: Pace) -> tuple[Int64, Float64, float]:
    """Rows whose result came, when it came, and when the first was due (s since the epoch)."""
    # Not forked: a client that is alive here has threads, whose locks would stay closed there for ever.
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    end = pace.stream_events
    values, keys = events.values(PRIMING_EVENTS, end), events.keys(PRIMING_EVENTS, end)
    process = spawn.Process(target=_sender, args=(theirs, run.bootstrap, run.input, pace.rate), daemon=True)
    process.start()
    ours.send((values, keys, events.times_ms[PRIMING_EVENTS:end].tolist()))
    ours.recv()
    settings = {
        "bootstrap.servers": run.bootstrap,
        "group.id": "peers-pace",
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
    }
    with closing(Consumer(settings)) as consumer:
        consumer.assign([TopicPartition(run.output, partition, 0) for partition in range(run.partitions)])
        began_s = time.time() + 1.0
        ours.send(began_s)
        messages: list[Message] = []
        came_s: list[float] = []
        over_s = began_s + (end - PRIMING_EVENTS) / pace.rate + PATIENCE_S
        while len(messages) < end and time.time() < over_s:
            first = consumer.poll(0.05)
            if first is not None:
                found = [one for one in (first, *consumer.consume(2_000, 0)) if one.error() is None]
                messages += found
                came_s += [time.time()] * len(found)
            else:
                program.check()
        process.join()
    return *first_came(messages, came_s), began_s


def first_came(messages: Sequence[Message], came_s: Sequence[float]) -> tuple[Int64, Float64]:
    """Of each row that was not sent at once, in the order of rows, when its first result came."""
    decode = msgspec.json.Decoder(Result).decode
    rows = np.array([number_of(decode(message.value() or b"").event_id) for message in messages], np.int64)
    kept, first = np.unique(rows, return_index=True)
    later = kept >= PRIMING_EVENTS
    return kept[later], np.array(came_s, np.float64)[first[later]]


def _sender(begin: Connection, bootstrap: str, topic: str, rate: float) -> None:
    """The process that sends each event as soon as it is due."""
    values, keys, times_ms = begin.recv()
    settings = {"bootstrap.servers": bootstrap, "linger.ms": LINGER_MS, "partitioner": "murmur2_random"}
    producer = Producer({**settings, "queue.buffering.max.messages": 1_000_000})
    producer.list_topics(topic, timeout=10.0)
    begin.send(None)
    began_s, never, sent = begin.recv(), threading.Event(), 0
    while sent < len(values):
        due = max(sent, min(len(values), int((time.time() - began_s) * rate)))
        for row in range(sent, due):
            producer.produce(topic, values[row], keys[row], timestamp=times_ms[row])
        sent = due
        producer.poll(0)
        never.wait(0.001)
    producer.flush()
