"""The topic of challengers' decisions: outside of all transactions, and nothing waits for it."""

import logging
import time
from types import TracebackType
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import Message as Delivered

from engine.config import Config
from engine.emit import Message
from engine.kafka.client import KAFKA, producer_settings

_log = logging.getLogger("tidegate.shadow")

# Nobody waits for them, and each produce request takes the broker's time, which the champion needs.
LINGER_MS = 100
# What the broker has not taken by then is given up.
DELIVERY_MS = 10_000
CLOSE_S = 2.0
LOG_INTERVAL_S = 30.0


class ShadowTopic:
    """Takes decisions as they come; counts those that did not arrive, and says why now and then."""

    def __init__(self, config: Config) -> None:
        """KafkaException where the settings are refused."""
        settings = {**producer_settings(config), "linger.ms": LINGER_MS, "message.timeout.ms": DELIVERY_MS}
        self._topic = config.kafka.topics.shadow_decisions
        self._producer = KAFKA.producer(settings)
        self._undelivered = 0
        self._log_at = 0.0

    def put(self, messages: list[Message]) -> None:
        """Queues them; those for which there is no room are lost. KafkaException where the producer is done for."""
        offered: list[Any] = list(messages)
        if self._producer.produce_batch(self._topic, offered, on_delivery=self._note) < len(offered):
            for message in offered:
                if "_error" in message:
                    self._lost(message["_error"])
        self._producer.poll(0.0)

    def undelivered(self) -> int:
        """How many did not arrive since this was asked last."""
        found, self._undelivered = self._undelivered, 0
        return found

    def _note(self, error: KafkaError | None, _message: Delivered) -> None:
        if error is not None:
            self._lost(error)

    def _lost(self, error: KafkaError) -> None:
        if error.fatal():
            raise KafkaException(error)
        self._undelivered += 1
        now = time.monotonic()
        if now >= self._log_at:
            self._log_at = now + LOG_INTERVAL_S
            _log.warning("decisions of a challenger are lost", extra={"topic": self._topic, "why": error.str()})

    def __enter__(self) -> "ShadowTopic":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._producer.flush(CLOSE_S)
