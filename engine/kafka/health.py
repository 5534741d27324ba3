"""What `tidegate doctor` asks of Kafka: who answers, since when the newest record is there, which library is in use."""

import logging
import re
from dataclasses import dataclass

import confluent_kafka
from confluent_kafka import TopicPartition
from confluent_kafka.admin import OffsetSpec

from engine.config import Config
from engine.kafka.client import admin_settings
from engine.kafka.topics import ANSWER_TIMEOUT_S, admin_client

_LOG_DEBUG = 7
# A broker tells nobody its version, but which versions of each request it answers; librdkafka logs them on request.
_FETCH_VERSIONS = re.compile(r"ApiKey Fetch \(1\) Versions (\d+)\.\.\d+")
# Kafka 4.0 stopped to answer older ones (KIP-896).
_FETCH_VERSION_MIN_OF_KAFKA_4 = 4


@dataclass(frozen=True, slots=True)
class BrokerFacts:
    """`kafka_4`: whether it is version 4.0 or newer; None where that could not be found out."""

    cluster_id: str
    brokers: int
    kafka_4: bool | None


def library_version() -> str:
    """Version of librdkafka, which confluent-kafka brings along."""
    return str(confluent_kafka.libversion()[0])


def broker_facts(config: Config, timeout_s: float = ANSWER_TIMEOUT_S) -> BrokerFacts:
    """Who answers. Raises RetriableError when nobody does, ConfigError when the client is refused."""
    heard = _FetchVersions()
    logger = logging.Logger("tidegate.doctor")
    logger.addHandler(heard)
    settings = {**admin_settings(config), "logger": logger, "debug": "feature", "log_level": _LOG_DEBUG}
    with admin_client(settings, timeout_s) as admin:
        metadata = admin.list_topics(timeout=timeout_s)
        admin.poll(0)
    least = heard.least
    kafka_4 = None if least is None else least >= _FETCH_VERSION_MIN_OF_KAFKA_4
    return BrokerFacts(str(metadata.cluster_id), len(metadata.brokers), kafka_4)


def newest_record_ms(config: Config, timeout_s: float = ANSWER_TIMEOUT_S) -> int | None:
    """The greatest record timestamp of the input topic; None where there is no record, or no such topic.

    Raises as `broker_facts` does.
    """
    topic = config.kafka.input
    with admin_client(admin_settings(config), timeout_s) as admin:
        found = admin.list_topics(topic, timeout=timeout_s).topics[topic]
        if found.error is not None:
            return None
        wanted = {TopicPartition(topic, partition): OffsetSpec.max_timestamp() for partition in found.partitions}
        answers = admin.list_offsets(wanted, request_timeout=timeout_s).values()
        newest_ms = max((int(answer.result().timestamp) for answer in answers), default=-1)
    return newest_ms if newest_ms >= 0 else None


class _FetchVersions(logging.Handler):
    """Remembers the oldest Fetch request that all brokers answer."""

    least: int | None = None

    def emit(self, record: logging.LogRecord) -> None:
        match = _FETCH_VERSIONS.search(record.getMessage())
        if match:
            self.least = min(int(match[1]), self.least if self.least is not None else int(match[1]))
