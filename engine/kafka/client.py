"""librdkafka settings of every client: what the configuration says, and what the delivery guarantee rests on."""

import logging
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from engine.config import Config, client_settings
from engine.errors import ConfigError

_log = logging.getLogger("tidegate.kafka")

QUEUE_MESSAGES_MAX = 200_000

# Settings of `[kafka.client]` that only consumers have; a producer would warn about each at every start.
_CONSUMER_KEYS = ("fetch.", "queued.", "max.poll.", "session.", "heartbeat.", "check.crcs")


def admin_settings(config: Config) -> dict[str, Any]:
    """Settings of an admin client."""
    return {
        **client_settings(config),
        "bootstrap.servers": config.kafka.bootstrap,
        "logger": _log,
    }


def consumer_settings(config: Config) -> dict[str, Any]:
    """Settings of the input's consumer: assigned by hand, offsets committed by us alone, never a silent reset."""
    return {
        "fetch.wait.max.ms": 100,
        "fetch.queue.backoff.ms": 10,
        "queued.max.messages.kbytes": 65_536,
        **admin_settings(config),
        "group.id": config.kafka.application_id,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        "error_cb": log_client_error,
    }


def producer_settings(config: Config) -> dict[str, Any]:
    """Settings of the producer: idempotent, acknowledged by all, and silent about what was delivered well."""
    return {
        "linger.ms": 2,
        "queue.buffering.max.messages": QUEUE_MESSAGES_MAX,
        # A dead letter is as large as what was refused for its size.
        "message.max.bytes": 8 * 1024 * 1024,
        "batch.num.messages": 10_000,
        **{key: value for key, value in admin_settings(config).items() if not key.startswith(_CONSUMER_KEYS)},
        "enable.idempotence": True,
        "acks": "all",
        # The JVM clients' partitioner, so that their topics and ours are partitioned alike.
        "partitioner": "murmur2_random",
        "delivery.report.only.error": True,
        "error_cb": log_client_error,
    }


def refused_settings(error: KafkaException) -> ConfigError:
    """What librdkafka says about settings that do not fit together, as the configuration's fault."""
    return ConfigError(f"kafka.client: {error.args[0].str()}")


def log_client_error(error: KafkaError) -> None:
    """librdkafka goes on by itself after these; people want to know all the same."""
    _log.warning("kafka client: %s", error.str(), extra={"code": error.name()})
