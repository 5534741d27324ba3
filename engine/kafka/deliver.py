"""The output side, and the one place where outputs and input offsets are committed.

At least once: produce, flush until the broker has acknowledged everything, then commit the offsets. A crash in between
makes the same decisions again, with the same `decision_id`.
"""

from types import TracebackType
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as Delivered

from engine.config import Config
from engine.emit import Message, Outputs
from engine.errors import FatalError
from engine.events import DeadLetter
from engine.kafka.client import QUEUE_MESSAGES_MAX, producer_settings, refused_settings
from engine.kafka.consume import Input

# Larger letters are cut: their topic, as `topics apply` makes it, takes 4 MiB with the headers.
LETTER_BYTES_MAX = 4 * 1024 * 1024 - 16 * 1024
QUEUE_BYTES_MAX = 256 * 1024 * 1024
POLL_S = 0.1


class AtLeastOnce:
    """Produces outputs and commits what they were made from."""

    def __init__(self, config: Config, source: Input) -> None:
        """Raises ConfigError where librdkafka refuses the settings."""
        self._topics = config.kafka.topics
        self._source = source
        try:
            self._producer = Producer(producer_settings(config))
        except KafkaException as error:
            raise refused_settings(error) from error
        self._failed: str | None = None

    def produce(self, outputs: Outputs) -> None:
        """Queues everything a micro-batch puts out; waits while the queue is full."""
        self._send(self._topics.decisions, outputs.decisions)
        self._send(self._topics.alerts, outputs.alerts)
        for letter in outputs.dead_letters:
            self._send_letter(letter)
        self._producer.poll(0)
        self._check()

    def _send(self, topic: str, messages: list[Message]) -> None:
        if not messages:
            return
        self._make_room(len(messages), sum(len(message["value"]) for message in messages) // len(messages))
        left: list[Any] = list(messages)
        # A full queue takes part of the batch and raises nothing; the count is the only word that says so.
        while self._producer.produce_batch(topic, left, on_delivery=self._on_failure) < len(left):
            left = [message for message in left if "_error" in message]
            for message in left:
                error = message.pop("_error")
                if error.code() != KafkaError._QUEUE_FULL:
                    raise FatalError(f"{topic}: a message could not be queued: {error.str()}")
            self._wait()

    def _send_letter(self, letter: DeadLetter) -> None:
        while True:
            try:
                self._producer.produce(
                    self._topics.dead_letters,
                    key=letter.key,
                    value=letter.value and letter.value[:LETTER_BYTES_MAX],
                    headers=_headers(letter),
                    on_delivery=self._on_failure,
                )
            except BufferError:
                self._wait()
                continue
            return

    def _make_room(self, messages: int, bytes_each: int) -> None:
        """Waits until so many messages may be queued; earlier ones are taken to be of the same size."""
        messages_max = min(QUEUE_MESSAGES_MAX, QUEUE_BYTES_MAX // max(bytes_each, 1))
        while len(self._producer) > max(0, messages_max - messages):
            self._wait()

    def _wait(self) -> None:
        self._producer.poll(POLL_S)
        self._check()

    def commit(self, vector: dict[int, int]) -> None:
        """Makes everything produced so far, and the offsets it came from, final.

        Raises FatalError where a message cannot be delivered, RetriableError where the offsets' commit got no answer:
        then nothing is lost, but what follows the last commit will be decided again.
        """
        while self._producer.flush(POLL_S):
            self._check()
        self._check()
        self._source.commit(vector)

    def _on_failure(self, error: KafkaError | None, message: Delivered) -> None:
        if error is not None:
            self._failed = f"{message.topic()}: {error.str()}"

    def _check(self) -> None:
        if self._failed is not None:
            raise FatalError(f"a message could not be delivered: {self._failed}")

    def close(self) -> None:
        """Drops what was not committed; the next start decides it again."""
        try:
            self._producer.purge()
            self._producer.flush(POLL_S)
        except KafkaException as error:
            raise FatalError(f"the producer could not be closed: {error.args[0].str()}") from error

    def __enter__(self) -> "AtLeastOnce":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


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
