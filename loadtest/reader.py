"""Reads decisions, alerts and dead letters as any consumer would, and stamps them on arrival."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from loadtest.errors import LoadTestError
from loadtest.measure import Alert, Decision, Tally
from loadtest.truth import Truth

POLL_S = 0.05
# Nothing more comes once the topics were silent for so long after the engine has stopped.
SILENCE_S = 0.3
MESSAGES_MAX = 5_000
ANSWER_TIMEOUT_S = 10.0
CONSUMER = {
    "group.id": "tidegate-loadtest",  # asked for, though nothing is committed and no group is joined
    "enable.auto.commit": False,
    "auto.offset.reset": "error",
    "isolation.level": "read_committed",
    "log_level": 3,
}


class Reader:
    """Feeds a tally from the output topics, each partition assigned by hand."""

    def __init__(
        self,
        client: Mapping[str, Any],
        decisions: str,
        alerts: str,
        dead_letters: str,
        tally: Tally,
        *,
        from_end: bool = False,
    ) -> None:
        """Connects; reads from the beginning, or what comes from now on.

        LoadTestError where no broker answers or a topic is missing.
        """
        self._tally = tally
        self._adders = {decisions: self._add_decisions, alerts: self._add_alerts, dead_letters: self._add_dead_letters}
        self._decode_decision = msgspec.json.Decoder(Decision).decode
        self._decode_alert = msgspec.json.Decoder(Alert).decode
        self._consumer = Consumer({**CONSUMER, **client})
        try:
            self._consumer.assign([place for topic in self._adders for place in self._places(topic, from_end)])
        except KafkaException as error:
            raise LoadTestError(f"no Kafka broker answers the reader: {error.args[0].str()}") from error

    def _places(self, topic: str, from_end: bool) -> list[TopicPartition]:
        found = self._consumer.list_topics(topic, timeout=ANSWER_TIMEOUT_S).topics[topic]
        if found.error is not None:
            raise LoadTestError(f"topic {topic!r}: {found.error.str()}")
        places = [TopicPartition(topic, partition, 0) for partition in found.partitions]
        if from_end:
            for place in places:
                _, place.offset = self._consumer.get_watermark_offsets(place, timeout=ANSWER_TIMEOUT_S)
        return places

    def run(self, truths: Callable[[], list[Truth]], engine_stopped: threading.Event) -> None:
        """Reads until the engine has stopped and all that it wrote is read.

        `truths` gives what is known of further events, always before they are sent. Raises what it raises, and
        LoadTestError where a topic cannot be read on.
        """
        silent_since = time.monotonic()
        while not engine_stopped.is_set() or time.monotonic() - silent_since < SILENCE_S:
            message = self._consumer.poll(POLL_S)
            messages = [] if message is None else [message, *self._consumer.consume(MESSAGES_MAX, 0)]
            arrived_us = time.time_ns() // 1_000
            for truth in truths():
                self._tally.expect(truth)
            self._add([message for message in messages if _is_record(message)], arrived_us)
            if messages or not engine_stopped.is_set():
                silent_since = time.monotonic()

    def _add(self, messages: list[Message], arrived_us: int) -> None:
        for topic, add in self._adders.items():
            same = [message for message in messages if message.topic() == topic]
            if same:
                add(same, arrived_us)

    def _add_decisions(self, messages: list[Message], arrived_us: int) -> None:
        self._tally.add_decisions([self._decode_decision(message.value()) for message in messages], arrived_us)

    def _add_alerts(self, messages: list[Message], arrived_us: int) -> None:
        for message in messages:
            self._tally.add_alert(self._decode_alert(message.value()), (message.key() or b"").decode(), arrived_us)

    def _add_dead_letters(self, messages: list[Message], _: int) -> None:
        self._tally.dead_letters += len(messages)

    def close(self) -> None:
        """Leaves."""
        self._consumer.close()


def _is_record(message: Message) -> bool:
    error = message.error()
    if error is not None and not error.retriable():
        raise LoadTestError(f"{message.topic() or 'the outputs'} cannot be read on: {error.str()}")
    return error is None
