"""librdkafka settings of every client: what the configuration says, and what the delivery guarantee rests on."""

import logging
from collections.abc import Mapping
from typing import Any, Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer

from engine.config import Config, client_settings
from engine.errors import ConfigError
from engine.kafka.patience import PatientProducer
from engine.kafka.topics import cluster_identity

_log = logging.getLogger("tidegate.kafka")

QUEUE_MESSAGES_MAX = 200_000
# How long the lease outlasts a worker that is gone, and how soon its holder hears of others.
SESSION_MS, HEARTBEAT_MS = 6_000, 300
# A pipeline that hangs for so long has lost the lease.
POLL_INTERVAL_MS_MAX = 60_000
# An open transaction hides what other producers wrote behind it from read_committed consumers for so long at most.
TRANSACTION_TIMEOUT_MS = 30_000

# Settings of `[kafka.client]` that only consumers have; a producer would warn about each at every start.
_CONSUMER_KEYS = ("fetch.", "queued.", "max.poll.", "session.", "heartbeat.", "check.crcs")


class Clients(Protocol):
    """Makes the clients that the engine speaks to Kafka with; a simulation has its own."""

    def consumer(self, settings: Mapping[str, Any]) -> Any:
        """A `confluent_kafka.Consumer`; KafkaException where the settings are refused."""

    def producer(self, settings: Mapping[str, Any]) -> Any:
        """A `confluent_kafka.Producer`; KafkaException where the settings are refused."""

    def identity(self, settings: Mapping[str, Any], topic: str) -> tuple[str | None, str | None]:
        """The ids of cluster and topic, as `engine.kafka.topics.cluster_identity`."""


class KafkaClients:
    """Clients of a real broker, or of the one inside librdkafka."""

    def consumer(self, settings: Mapping[str, Any]) -> Consumer:
        """As `Clients`."""
        return Consumer(dict(settings))

    def producer(self, settings: Mapping[str, Any]) -> Producer:
        """As `Clients`."""
        return PatientProducer(dict(settings))

    def identity(self, settings: Mapping[str, Any], topic: str) -> tuple[str | None, str | None]:
        """As `Clients`."""
        return cluster_identity(settings, topic)


KAFKA = KafkaClients()


def admin_settings(config: Config) -> dict[str, Any]:
    """Settings of an admin client."""
    return {
        **client_settings(config),
        "bootstrap.servers": config.kafka.bootstrap,
        "logger": _log,
    }


def consumer_settings(config: Config, fetch_wait_ms_max: int = 100) -> dict[str, Any]:
    """Settings of the input's consumer: assigned by hand, offsets committed by us alone, never a silent reset."""
    return {
        "fetch.wait.max.ms": fetch_wait_ms_max,
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


def lease_settings(config: Config) -> dict[str, Any]:
    """Settings of the consumer that holds the lease: a member of the group, whose holder stays when others join."""
    return {
        **admin_settings(config),
        "group.id": config.kafka.application_id,
        "group.protocol": "classic",
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": SESSION_MS,
        "heartbeat.interval.ms": HEARTBEAT_MS,
        "max.poll.interval.ms": POLL_INTERVAL_MS_MAX,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "latest",
        # Asked for committed offsets, it does not wait for the end of a transaction that a dead worker left open.
        "isolation.level": "read_uncommitted",
        "error_cb": log_client_error,
    }


def journal_settings(config: Config) -> dict[str, Any]:
    """Settings of the consumer of the `progress` topic: assigned by hand, from its beginning where nothing is known."""
    # Its end is asked for at a hand-over, and the answer waits behind a fetch that is under way.
    return {**consumer_settings(config, fetch_wait_ms_max=30), "auto.offset.reset": "earliest"}


def control_settings(config: Config) -> dict[str, Any]:
    """Settings of the consumer of the `control` topic: assigned by hand, from its beginning."""
    return {**consumer_settings(config), "auto.offset.reset": "earliest"}


def transaction_settings(config: Config) -> dict[str, Any]:
    """Settings of a producer of transactions, of which there is one for each application and input."""
    return {
        **producer_settings(config),
        "transactional.id": f"{config.kafka.application_id}-{config.kafka.input}-0",
        "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
        "message.timeout.ms": TRANSACTION_TIMEOUT_MS,
        # Its log is what tells of a connection that broke during a commit.
        "log_level": 6,
        "log.connection.close": True,
    }


def producer_settings(config: Config) -> dict[str, Any]:
    """Settings of the producer: idempotent, acknowledged by all, and silent about what was delivered well."""
    return {
        # A micro-batch is queued whole, so there is little to wait for.
        "linger.ms": 0.5,
        # A broker that is away may stay so: what is queued waits for it, and the worker with it.
        "message.timeout.ms": 0,
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
