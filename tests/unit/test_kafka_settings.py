"""What librdkafka is told: the user's settings reach every client, and none of them loosens the delivery guarantee."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import engine.kafka.client
from engine.config import OWNED_KEYS, TRANSACTION_MS_MAX, Config, default_profile, parse_config
from engine.errors import ConfigError
from engine.kafka.client import (
    admin_settings,
    consumer_settings,
    journal_settings,
    lease_settings,
    producer_settings,
    transaction_settings,
)
from engine.kafka.consume import Input
from engine.kafka.deliver import delivery_of
from engine.kafka.journal import Journal
from engine.kafka.lease import Lease

USERS = {"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN", "sasl.username": "u", "client.id": "c"}


def config_of(folder: Path, client: Mapping[str, Any] = USERS, delivery: str = "exactly_once") -> Config:
    lines = "".join(f"'{key}' = {value!r}\n" for key, value in client.items())
    (folder / "password").write_text("secret\n")
    text = f"[kafka]\nbootstrap = 'b:1'\napplication_id = 'app'\ndelivery = {delivery!r}\n[kafka.client]\n{lines}"
    return parse_config(
        f"{default_profile()}{text}[kafka.client_secret_files]\n'sasl.password' = 'password'\n", folder, {}
    )


@pytest.mark.parametrize(
    "settings",
    [admin_settings, consumer_settings, producer_settings, transaction_settings, lease_settings, journal_settings],
)
def test_every_client_has_the_users_settings_and_secrets(tmp_path: Path, settings: Any) -> None:
    found = settings(config_of(tmp_path))
    assert USERS.items() <= found.items()
    assert (found["sasl.password"], found["bootstrap.servers"]) == ("secret", "b:1")


def test_the_first_question_to_the_broker_is_asked_with_them_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Mapping[str, Any]] = []

    def cluster_identity(conf: Mapping[str, Any], _topic: str) -> None:
        asked.append(conf)
        raise ConfigError("far enough")

    monkeypatch.setattr(engine.kafka.client, "cluster_identity", cluster_identity)
    with pytest.raises(ConfigError, match="far enough"):
        Input(config_of(tmp_path))
    assert {**USERS, "sasl.password": "secret", "bootstrap.servers": "b:1"}.items() <= asked[0].items()


def test_the_consumer_commits_nothing_by_itself_and_never_skips(tmp_path: Path) -> None:
    found = consumer_settings(config_of(tmp_path))
    wanted = {
        "group.id": "app",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
    }
    assert wanted.items() <= found.items()


def test_the_producer_loses_nothing_and_partitions_as_jvm_clients_do(tmp_path: Path) -> None:
    found = producer_settings(config_of(tmp_path))
    assert {"enable.idempotence": True, "acks": "all", "partitioner": "murmur2_random"}.items() <= found.items()


def test_the_producer_takes_whatever_the_consumer_can_read(tmp_path: Path) -> None:
    """A dead letter is as large as the record that it was; librdkafka's default would end the worker."""
    assert producer_settings(config_of(tmp_path)).get("message.max.bytes", 1_000_000) >= 4 * 1024 * 1024


def test_settings_that_only_tune_may_be_changed(tmp_path: Path) -> None:
    config = config_of(tmp_path, {"linger.ms": 9, "fetch.wait.max.ms": 7})
    assert producer_settings(config)["linger.ms"] == 9
    assert consumer_settings(config)["fetch.wait.max.ms"] == 7
    assert "fetch.wait.max.ms" not in producer_settings(config)


@pytest.mark.parametrize("key", OWNED_KEYS)
def test_what_the_guarantee_rests_on_cannot_be_set(tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigError, match=f"{key!r} is set by Tidegate itself"):
        config_of(tmp_path, {key: "x"})


class Ours:
    """A lease that is held."""

    def prove(self, tenure: int) -> None: ...


@pytest.mark.parametrize("delivery", ["exactly_once", "at_least_once"])
def test_a_setting_that_the_producer_refuses_is_the_configurations_fault(tmp_path: Path, delivery: str) -> None:
    config = config_of(tmp_path, {"message.max.bytes": 1}, delivery)
    with pytest.raises(ConfigError, match=r"kafka\.client.*message\.max\.bytes"):
        delivery_of(config, Ours()).open(1)  # type: ignore[arg-type]


def test_a_setting_that_a_consumer_refuses_is_the_configurations_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.kafka.client, "cluster_identity", lambda *_: (None, None))
    config = config_of(tmp_path, {"fetch.max.bytes": 512, "message.max.bytes": 100_000})
    for client in (Input, Lease, Journal):
        with pytest.raises(ConfigError, match=r"kafka\.client.*fetch\.max\.bytes"):
            client(config)


def test_a_transaction_is_never_open_for_as_long_as_the_broker_lets_it(tmp_path: Path) -> None:
    settings = transaction_settings(config_of(tmp_path))
    assert settings["transaction.timeout.ms"] >= 3 * TRANSACTION_MS_MAX
    assert settings["message.timeout.ms"] <= settings["transaction.timeout.ms"]
