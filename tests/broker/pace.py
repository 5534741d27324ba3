"""Events sent at a steady pace, and when a read_committed consumer has the decision of each."""

import multiprocessing
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.connection import Connection

import msgspec
import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition

from engine.config import Config
from loadtest.render import event_ids, render
from loadtest.settings import TrafficSettings
from loadtest.traffic import generate

# Before, connections and caches are not warm, nor is the compiler of a broker that has just started.
WARM_UP_S = 60
LINGER_MS = 2
GIVE_UP_S = 60.0


class Decision(msgspec.Struct):
    """Of a decision, what tells which event it is of."""

    event_id: str


@dataclass(frozen=True)
class Stream:
    """Events without duplicates or poison, so that each has one decision."""

    rate: int
    ids: list[str]
    values: list[bytes]
    keys: list[bytes]


def stream_of(rate: int, seconds: int, start_time_ms: int) -> Stream:
    """So many seconds after the warm-up; the same for the same arguments."""
    settings = TrafficSettings(seed=3, events_per_second=rate, start_time_ms=start_time_ms)
    traffic = generate(settings, rate * (WARM_UP_S + seconds))
    keys = [b"%d" % number for number in traffic.card_numbers.tolist()]
    return Stream(rate, event_ids(traffic), render(traffic), keys)


def send(bootstrap: str, topic: str, stream: Stream, began: float) -> None:
    """Sends each event as soon as it is due."""
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "linger.ms": LINGER_MS,
            "partitioner": "murmur2_random",
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    never, sent, events = threading.Event(), 0, len(stream.values)
    while sent < events:
        due = min(events, int((time.time() - began) * stream.rate))
        for row in range(sent, due):
            producer.produce(topic, stream.values[row], stream.keys[row])
        sent = max(sent, due)
        producer.poll(0)
        never.wait(0.001)
    producer.flush()


def sender(begin: Connection, bootstrap: str, topic: str, arguments: tuple[int, int, int]) -> None:
    """The process that sends: says when it is ready, and begins when it is told."""
    stream = stream_of(*arguments)
    begin.send(None)
    send(bootstrap, topic, stream, begin.recv())


def arrivals(consumer: Consumer, events: int) -> tuple[list[bytes], np.ndarray]:
    """So many decisions, and when each came."""
    values: list[bytes] = []
    times: list[float] = []
    give_up_at = time.time() + GIVE_UP_S
    while len(values) < events:
        message = consumer.poll(0.05)
        if message is None:
            if time.time() > give_up_at:
                sys.exit(f"{len(values)} of {events} decisions came")
            continue
        messages = [message, *consumer.consume(2_000, 0)]
        values += [found.value() for found in messages if found.error() is None]
        times += [time.time()] * (len(values) - len(times))
        give_up_at = times[-1] + GIVE_UP_S
    return values, np.array(times)


@dataclass(frozen=True)
class Timed:
    """Of each decision, in the order in which they came: its bytes, when its event was due and when it came, in s."""

    values: list[bytes]
    due: np.ndarray
    came: np.ndarray
    began: float

    @property
    def counted(self) -> np.ndarray:
        """Those of events that were due after the warm-up."""
        return self.due >= self.began + WARM_UP_S

    @property
    def latencies_ms(self) -> np.ndarray:
        """From due to come."""
        return (self.came - self.due) * 1_000


def timed(config: Config, rate: int, seconds: int, began: Callable[[float], None] = lambda _: None) -> Timed:
    """Sends a stream to a worker that runs, and reads its decisions; `began` is told when the first event is due."""
    arguments = (rate, seconds, time.time_ns() // 1_000_000)
    # Not forked: a client that is alive here has threads, whose locks would stay closed there for ever.
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=sender, args=(theirs, config.kafka.bootstrap, config.kafka.input, arguments))
    process.start()
    stream = stream_of(*arguments)
    ours.recv()
    settings = {
        "bootstrap.servers": config.kafka.bootstrap,
        "group.id": "measure-latency",
        "enable.auto.commit": False,
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
    }
    topic = config.kafka.topics.decisions
    with closing(Consumer(settings)) as consumer:
        partitions = consumer.list_topics(topic, timeout=GIVE_UP_S).topics[topic].partitions
        consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
        begin = time.time() + 1.0
        ours.send(begin)
        began(begin)
        values, came = arrivals(consumer, len(stream.values))
        process.join()
    rows = {event_id: row for row, event_id in enumerate(stream.ids)}
    decide = msgspec.json.Decoder(Decision)
    due = begin + np.array([rows[decide.decode(value).event_id] for value in values]) / rate
    return Timed(values, due, came, begin)
