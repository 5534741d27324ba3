"""The doctor against a real broker, and what it says of the embedded one."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from engine.assemble import open_state
from engine.config import Config, default_profile, parse_config
from engine.doctor import Finding, check_broker, check_clock, check_offsets, check_topics, examine
from engine.errors import RetriableError, TidegateError
from engine.kafka.client import admin_settings
from engine.kafka.embedded import EmbeddedBroker
from engine.kafka.health import newest_record_ms
from engine.kafka.topics import TopicSpec, apply
from engine.topology import wanted_topics
from tests.conftest import delete_topics

PARTITIONS = 3
TIMEOUT_S = 5.0


@pytest.fixture
def config(kafka_bootstrap: str, tmp_path: Path) -> Iterator[Config]:
    """A configuration whose topics no other test has, and which do not exist yet."""
    run = uuid4().hex[:12]
    outputs = ("decisions", "alerts", "dead-letters", "decisions-sample", "telemetry")
    parts = ("transactions", *outputs, "progress", "lease", "control")
    names = {part: f"test-doctor-{part}-{run}" for part in parts}
    kafka = f"""
[kafka]
bootstrap = "{kafka_bootstrap}"
input = "{names["transactions"]}"
application_id = "test-doctor-{run}"
partitions = {PARTITIONS}
[kafka.topics]
decisions = "{names["decisions"]}"
alerts = "{names["alerts"]}"
dead_letters = "{names["dead-letters"]}"
progress = "{names["progress"]}"
lease = "{names["lease"]}"
control = "{names["control"]}"
decisions_sample = "{names["decisions-sample"]}"
telemetry = "{names["telemetry"]}"
[state]
cache_bytes_max = 33554432
dirty_bytes_max = 8388608
"""
    yield parse_config(default_profile() + kafka, tmp_path, {})
    delete_topics(kafka_bootstrap, list(names.values()))


def put(config: Config, timestamps_ms: list[int]) -> None:
    """One record with each timestamp, all on partition 0."""
    producer = Producer({"bootstrap.servers": config.kafka.bootstrap})
    for timestamp_ms in timestamps_ms:
        producer.produce(config.kafka.input, b"{}", partition=0, timestamp=timestamp_ms)
    assert producer.flush(TIMEOUT_S) == 0
    producer.close()


def commit(config: Config, vector: dict[int, int]) -> None:
    with closing(Consumer(admin_settings(config) | {"group.id": config.kafka.application_id})) as consumer:
        places = [TopicPartition(config.kafka.input, partition, offset) for partition, offset in vector.items()]
        consumer.commit(offsets=places, asynchronous=False)


@pytest.mark.broker
def test_before_and_after_topics_apply(config: Config) -> None:
    before = {finding.check: finding for finding in examine(config, TIMEOUT_S)}
    assert {check for check, finding in before.items() if finding.verdict == "failure"} == {"topics", "offsets"}
    assert before["broker"].verdict == "ok"
    assert "cluster " in before["broker"].detail
    assert before["topics"].detail.count("missing") == 9
    assert "tidegate topics apply" in before["topics"].advice

    apply(admin_settings(config), wanted_topics(config))
    after = list(examine(config, TIMEOUT_S))
    assert [(finding.check, finding.verdict) for finding in after if finding.verdict != "ok"] == []
    assert after[-1].detail == (
        "0 of 3 partitions have a committed offset, 0 records wait, 0 are replayed into the state first"
    )


@pytest.mark.broker
def test_a_topic_that_is_not_as_configured(config: Config) -> None:
    alerts = config.kafka.topics.alerts
    apply(admin_settings(config), [spec for spec in wanted_topics(config) if spec.name != alerts])
    missing = check_topics(config, TIMEOUT_S)
    assert (missing.verdict, missing.detail.count("missing")) == ("failure", 1)

    apply(admin_settings(config), [TopicSpec(alerts, 1, 1)])
    differs = check_topics(config, TIMEOUT_S)
    assert (differs.verdict, differs.detail) == ("warning", f"{alerts} differs: partitions: 1, wanted: 3")


@pytest.mark.broker
def test_offsets_and_what_a_start_would_replay(config: Config) -> None:
    apply(admin_settings(config), wanted_topics(config))
    put(config, [int(time.time() * 1_000)] * 5)
    commit(config, {0: 2, 1: 0, 2: 0})
    assert check_offsets(config) == Finding(
        "offsets",
        "ok",
        "3 of 3 partitions have a committed offset, 3 records wait, 2 are replayed into the state first",
    )

    admin = AdminClient({"bootstrap.servers": config.kafka.bootstrap})
    (deleted,) = admin.delete_records([TopicPartition(config.kafka.input, 0, 4)]).values()
    deleted.result(TIMEOUT_S)
    gone = check_offsets(config)
    assert (gone.verdict, gone.detail) == ("failure", "partition 0: committed 2, but the topic begins at 4")


@pytest.mark.broker
def test_a_state_without_committed_offsets(config: Config) -> None:
    """What `run` would refuse, the doctor names."""
    apply(admin_settings(config), wanted_topics(config))
    with ExitStack() as resources_open:
        state = open_state(config, config.feature_spec(), None, resources_open)
        state.begin_flush({0: 7})
        state.finish_flush()
    (offsets,) = (finding for finding in examine(config, TIMEOUT_S) if finding.check == "offsets")
    assert offsets.verdict == "failure"
    assert "the state stands at offset 7, but no offset is committed" in offsets.detail


@pytest.mark.broker
def test_a_state_from_another_topic(config: Config) -> None:
    apply(admin_settings(config), wanted_topics(config))
    with ExitStack() as resources_open:
        state = open_state(config, config.feature_spec(), None, resources_open)
        state.header.cluster_id, state.header.topic, state.header.topic_id = "elsewhere", "other", "id"
        state.begin_flush({})
        state.finish_flush()
    finding = check_offsets(config)
    assert finding.verdict == "failure"
    assert "the state was built from topic 'other' (id) of cluster elsewhere" in finding.detail


@pytest.mark.broker
def test_a_state_that_was_loaded_from_history(config: Config) -> None:
    """It needs no committed offset, and what it holds does not wait."""
    apply(admin_settings(config), wanted_topics(config))
    put(config, [int(time.time() * 1_000)] * 5)
    with ExitStack() as resources_open:
        state = open_state(config, config.feature_spec(), None, resources_open)
        state.header.topic, state.header.loaded = config.kafka.input, True
        state.begin_flush({0: 3})
        state.finish_flush()
    assert check_offsets(config) == Finding(
        "offsets",
        "ok",
        "0 of 3 partitions have a committed offset, 2 records wait, 0 are replayed into the state first",
    )


@pytest.mark.broker
def test_records_from_the_future_make_the_clock_doubtful(config: Config) -> None:
    assert newest_record_ms(config, TIMEOUT_S) is None
    apply(admin_settings(config), wanted_topics(config))
    assert newest_record_ms(config, TIMEOUT_S) is None
    now_ms = int(time.time() * 1_000)
    put(config, [now_ms + 3_600_000, now_ms])
    assert newest_record_ms(config, TIMEOUT_S) == now_ms + 3_600_000
    assert check_clock(newest_record_ms(config, TIMEOUT_S), now_ms).verdict == "warning"


@pytest.mark.broker
def test_a_client_that_the_broker_refuses(config: Config, tmp_path: Path) -> None:
    login = (
        "[kafka.client]\n'security.protocol' = 'SASL_PLAINTEXT'\n'sasl.mechanism' = 'PLAIN'\n'sasl.username' = 'x'\n"
    )
    environment = {
        "TIDEGATE__KAFKA__BOOTSTRAP": config.kafka.bootstrap,
        "TIDEGATE__KAFKA__CLIENT__SASL_PASSWORD": "wrong",
    }
    refused = parse_config(default_profile() + login, tmp_path, environment)
    with pytest.raises(TidegateError, match="refuses the client"):
        check_broker(refused, timeout_s=1.0)


def test_the_embedded_broker_is_not_kafka_4(tmp_path: Path) -> None:
    with EmbeddedBroker() as broker:
        config = parse_config(default_profile(), tmp_path, {"TIDEGATE__KAFKA__BOOTSTRAP": broker.bootstrap})
        finding = check_broker(config, TIMEOUT_S)
    assert (finding.verdict, finding.detail.rpartition(", ")[2]) == ("warning", "not Kafka 4")


def test_a_broker_that_is_not_there(tmp_path: Path) -> None:
    config = parse_config(default_profile(), tmp_path, {"TIDEGATE__KAFKA__BOOTSTRAP": "127.0.0.1:1"})
    with pytest.raises(RetriableError, match="no Kafka broker answers"):
        check_broker(config, timeout_s=0.2)
