"""Outputs on their way to the broker: queued whole, within bounds, and watched until each is acknowledged."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import Message as Delivered

from engine.config import Config
from engine.crashpoints import reached
from engine.emit import Message, Outputs
from engine.errors import FatalError, RetriableError
from engine.events import DeadLetter
from engine.kafka.client import QUEUE_MESSAGES_MAX
from engine.progress import Progress, encode_progress

_log = logging.getLogger("tidegate.kafka")

# Larger letters are cut: their topic, as `topics apply` makes it, takes 4 MiB with the headers.
LETTER_BYTES_MAX = 4 * 1024 * 1024 - 16 * 1024
QUEUE_BYTES_MAX = 256 * 1024 * 1024
HELD_MESSAGES_MAX = QUEUE_MESSAGES_MAX
POLL_S = 0.1

# The broker will refuse these again, however often they are sent.
REFUSED = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_MSG,
        KafkaError.INVALID_RECORD,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
    }
)

# What becomes of other messages once one has failed its transaction; that may be heard of before the one that did.
FOLLOWS = frozenset({KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT})


@dataclass(slots=True)
class Failure:
    """Why a message of a producer was not delivered: the first that was heard of which did not follow from another."""

    error: KafkaError | None = None
    topic: str = ""

    def note(self, error: KafkaError, message: Delivered) -> None:
        if self.error is None or self.error.code() in FOLLOWS:
            self.error, self.topic = error, message.topic() or ""


@dataclass(slots=True)
class Held:
    """Outputs that wait for a commit before they are queued, in their order."""

    outputs: list[Outputs] = field(default_factory=list)
    messages: int = 0

    def has_room(self, outputs: Outputs) -> bool:
        """Whether these may wait, too."""
        return self.messages + outputs.messages <= HELD_MESSAGES_MAX

    def add(self, outputs: Outputs) -> None:
        self.outputs.append(outputs)
        self.messages += outputs.messages

    def take(self) -> list[Outputs]:
        """All of them, which then wait no longer."""
        outputs, self.outputs, self.messages = self.outputs, [], 0
        return outputs


class Outbox:
    """The outputs of one producer. While it waits it calls `waiting`, which may raise to end that."""

    def __init__(self, config: Config, producer: Any, waiting: Callable[[], object]) -> None:
        self._topics = config.kafka.topics
        self._producer = producer
        self._waiting = waiting
        self._failure = Failure()

    def put(self, outputs: Outputs) -> None:
        """Queues everything a micro-batch puts out; waits while the queue is full. Raises as `_serve`."""
        reached("produce")
        self._send(self._topics.decisions, outputs.decisions)
        self._send(self._topics.alerts, outputs.alerts)
        self._send(self._topics.decisions_sample, outputs.samples)
        for letter in outputs.dead_letters:
            self._send_one(
                self._topics.dead_letters,
                letter.value and letter.value[:LETTER_BYTES_MAX],
                key=letter.key,
                headers=_headers(letter),
            )
        self.serve()
        reached("produced")

    def put_progress(self, progress: Progress) -> None:
        """Queues the record that says what was decided."""
        reached("progress")
        key = progress.application_id.encode()
        self._send_one(self._topics.progress, encode_progress(progress), key=key, partition=0)

    def flush(self, waiting: Callable[[], object] | None = None) -> None:
        """Returns once all is acknowledged; raises as `_serve`. `waiting` instead of the outbox's own, on a thread."""
        reached("flush_outputs")
        while self._serve(self._producer.flush):
            (waiting or self._waiting)()
        self._check()

    def acknowledged(self) -> bool:
        """Whether all is; does not wait. Raises as `_serve`."""
        self.serve()
        # What failed is counted until it was heard of.
        if len(self._producer):
            return False
        self._check()
        return True

    def _check(self) -> None:
        if self._failure.error is not None:
            raise _failure(self._failure.topic, self._failure.error)

    def serve(self) -> None:
        """Hears what there is to hear; raises as `_serve`."""
        self._serve(self._producer.poll, 0.0)

    def _serve(self, call: Callable[[float], int], timeout_s: float = POLL_S) -> int:
        """Hears what became of messages.

        FatalError where the broker refuses one for good, RetriableError where one, or the producer, failed otherwise.
        """
        try:
            left = call(timeout_s)
        except KafkaException as error:
            raise _failure("the producer", error.args[0]) from error
        except SystemError as error:
            # A fatal error is raised while callbacks run, and what is written in C fails within them.
            raise RetriableError(f"a message could not be delivered: the producer failed: {error}") from error
        failed = self._failure.error
        if failed is not None and failed.code() not in FOLLOWS:
            raise _failure(self._failure.topic, failed)
        return left

    def close(self) -> None:
        """Drops what is not acknowledged yet. The producer is not used afterwards."""
        try:
            self._producer.purge()
            self._producer.flush(POLL_S)
        except (KafkaException, SystemError) as error:
            # Fenced, say: then there was nothing left to drop.
            _log.info("a producer was given up", extra={"why": str(error)})

    def _send(self, topic: str, messages: list[Message]) -> None:
        if not messages:
            return
        self._make_room(len(messages), sum(len(message["value"]) for message in messages) // len(messages))
        left: list[Any] = list(messages)
        # A full queue takes part of the batch and raises nothing; the count is the only word that says so.
        while self._producer.produce_batch(topic, left, on_delivery=self._failure.note) < len(left):
            left = [message for message in left if "_error" in message]
            for message in left:
                error = message.pop("_error")
                if error.code() != KafkaError._QUEUE_FULL:
                    self._serve(self._producer.flush)
                    raise _failure(topic, error)
            self._wait()

    def _send_one(self, topic: str, value: bytes | None, **details: Any) -> None:
        while True:
            try:
                self._producer.produce(topic, value=value, on_delivery=self._failure.note, **details)
            except BufferError:
                self._wait()
            except KafkaException as error:
                # Where an earlier message failed, what became of that one says more.
                self._serve(self._producer.flush)
                raise _failure(topic, error.args[0]) from error
            else:
                return

    def _make_room(self, messages: int, bytes_each: int) -> None:
        """Waits until so many messages may be queued; earlier ones are taken to be of the same size."""
        messages_max = min(QUEUE_MESSAGES_MAX, QUEUE_BYTES_MAX // max(bytes_each, 1))
        while len(self._producer) > max(0, messages_max - messages):
            self._wait()

    def _wait(self) -> None:
        self._serve(self._producer.poll)
        self._waiting()


def _failure(topic: str, error: KafkaError) -> FatalError | RetriableError:
    said = f"a message could not be delivered: {topic}: {error.str()}"
    return FatalError(said) if error.code() in REFUSED else RetriableError(said)


def _headers(letter: DeadLetter) -> list[tuple[str, bytes]]:
    fields = {
        "tidegate.reason": letter.reason,
        "tidegate.error": letter.detail,
        "tidegate.topic": letter.topic,
        "tidegate.partition": str(letter.partition),
        "tidegate.offset": str(letter.offset),
    }
    if letter.record_time_ms >= 0:
        fields["tidegate.timestamp"] = str(letter.record_time_ms)
    if letter.value is not None and len(letter.value) > LETTER_BYTES_MAX:
        fields["tidegate.cut_from_bytes"] = str(len(letter.value))
    return [(name, text.encode()) for name, text in fields.items()]
