"""`tidegate demo` as a person runs it, and the worker's process that it starts."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from engine.config import default_profile
from engine.errors import ConfigError, FatalError
from engine.kafka.embedded import EmbeddedBroker
from engine.process import WorkerProcess
from engine.sandbox import sandbox

DEADLINE_S = 120.0
NEVER = threading.Event()


def test_a_short_demo_accounts_for_every_event(tmp_path: Path) -> None:
    figures_file = tmp_path / "d.json"
    arguments = ["demo", "--seconds", "4", "--rate", "1000", "--json", str(figures_file)]
    ended = subprocess.run(
        [sys.executable, "-m", "engine", *arguments], capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "✓ decisions + dead letters + duplicates = events" in ended.stdout
    figures = orjson.loads(figures_file.read_bytes())
    assert figures["failures"] == []
    assert figures["events"] == figures["decisions"] + figures["dead_letters"] + figures["duplicates"]
    assert 3_000 < figures["events"] < 5_000
    assert figures["dead_letters"] > 0
    assert 0 < figures["p50_ms"] <= figures["p99_ms"] <= figures["p999_ms"]
    assert figures["attacks_detected"].keys() == {"card_testing", "account_takeover", "merchant_collusion"}
    for kind, total in figures["attacks_total"].items():
        assert 0 <= figures["attacks_detected"][kind] <= total
    assert sum(figures["attacks_total"].values()) > 0


@pytest.fixture
def bootstrap() -> Iterator[str]:
    with EmbeddedBroker() as broker:
        broker.create_topics(["transactions", "decisions", "alerts", "dead-letters", "progress", "lease", "control"])
        yield broker.bootstrap


def environment(folder: Path) -> dict[str, str]:
    # The broker inside librdkafka has no transactions to speak of.
    own = {"TIDEGATE__STATE__DIR": str(folder / "state"), "TIDEGATE__KAFKA__DELIVERY": "at_least_once"}
    return {**os.environ, **own}


def test_a_worker_lives_from_ready_to_stop(tmp_path: Path, bootstrap: str) -> None:
    with WorkerProcess(default_profile(), tmp_path, bootstrap, environment(tmp_path)) as worker:
        worker.wait_active(NEVER)
        worker.stop()
        with pytest.raises(FatalError, match="exit code 0"):
            worker.check()
    assert "stopped" in worker.log_file.read_text()


def test_a_killed_worker_is_noticed(tmp_path: Path, bootstrap: str) -> None:
    with WorkerProcess(default_profile(), tmp_path, bootstrap, environment(tmp_path)) as worker:
        worker.wait_ready(NEVER)
        worker.kill()
        with pytest.raises(FatalError, match=r"was killed \(SIGKILL\)"):
            worker.check()
        with pytest.raises(FatalError, match=r"was killed \(SIGKILL\)"):
            worker.samples()


def test_what_a_worker_said_last_is_the_error(tmp_path: Path, bootstrap: str) -> None:
    text = default_profile() + '\n[models]\nchampion = "nobody@champion"\n'
    with (
        WorkerProcess(text, tmp_path, bootstrap, environment(tmp_path)) as worker,
        pytest.raises(ConfigError, match=r"exit code 2: models.champion 'nobody@champion'"),
    ):
        worker.wait_ready(NEVER)


def test_a_worker_does_not_outlive_its_parent(tmp_path: Path, bootstrap: str) -> None:
    with WorkerProcess(default_profile(), tmp_path, bootstrap, environment(tmp_path)) as worker:
        worker.wait_ready(NEVER)
        assert worker._process.stdin is not None
        worker._process.stdin.close()  # which the end of this process would do
        assert worker._process.wait(DEADLINE_S) == 1


def test_a_sandbox_keeps_off_the_users_topics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE__KAFKA__INPUT", "transactions")
    monkeypatch.setenv("TIDEGATE__KAFKA__CLIENT__SASL_USERNAME", "somebody")
    monkeypatch.setenv("TIDEGATE__POLICY__NAME", "mine")
    with sandbox(None) as own:
        kafka, policy = own.config.kafka, own.config.policy
        assert [own.linger_ms(rate) for rate in (100.0, 5_000.0, 50_000.0)] == [25.0, 5.0, 2.0]
    names = {kafka.input, *(kafka.topics.decisions, kafka.topics.alerts, kafka.topics.dead_letters)}
    assert len(names) == 4
    assert all(name.startswith("tidegate-") for name in names)
    assert "sasl.username" not in kafka.client
    assert policy.name == "mine"
