"""The topic of telemetry: outside of all transactions, and nothing waits for it or fails with it."""

import logging
import time
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import Message as Delivered

from engine.closing import Closing
from engine.config import Config
from engine.kafka.client import KAFKA, Clients, producer_settings, refused_settings
from engine.observe.metrics import Metrics

_log = logging.getLogger("tidegate.telemetry")

# What the broker has not taken by then is given up.
DELIVERY_MS = 60_000
CLOSE_S = 1.0
LOG_INTERVAL_S = 60.0


class TelemetryTopic(Closing):
    """Takes records as they come, and counts what becomes of them."""

    def __init__(self, config: Config, metrics: Metrics, clients: Clients = KAFKA) -> None:
        """ConfigError where the settings are refused."""
        self._topic = config.kafka.topics.telemetry
        self._key = config.kafka.application_id.encode()
        self._metrics = metrics
        self._clients = clients
        self._settings = {
            **producer_settings(config),
            "message.timeout.ms": DELIVERY_MS,
            "delivery.report.only.error": False,
        }
        self._log_at = 0.0
        self._producer: Any = None
        if not config.telemetry.enabled:
            return
        try:
            self._producer = clients.producer(self._settings)
        except KafkaException as error:
            raise refused_settings(error) from error

    def put(self, value: bytes) -> None:
        """Queues one record, and hears what became of those before."""
        try:
            if self._producer is None:
                # The one before was done for.
                self._producer = self._clients.producer(self._settings)
            self._producer.produce(self._topic, value, key=self._key, on_delivery=self._note)
            self._producer.poll(0.0)
        except BufferError as error:
            self._lost(str(error))
        except (KafkaException, SystemError) as error:
            # An idempotent producer may fail for good. With it goes what it has queued, and no more.
            self._producer = None
            self._lost(str(error))

    def _note(self, error: KafkaError | None, _message: Delivered) -> None:
        """Raises nothing: what is raised here comes out of the producer."""
        if error is None:
            self._metrics.telemetry_sent += 1
        else:
            self._lost(error.str())

    def _lost(self, why: str) -> None:
        self._metrics.telemetry_lost += 1
        now = time.monotonic()
        if now >= self._log_at:
            self._log_at = now + LOG_INTERVAL_S
            _log.warning("telemetry is lost", extra={"topic": self._topic, "why": why})

    def close(self) -> None:
        """Lets the broker have the last record, for a moment."""
        if self._producer is None:
            return
        try:
            self._producer.flush(CLOSE_S)
        except (KafkaException, SystemError) as error:
            _log.info("telemetry was given up", extra={"why": str(error)})
