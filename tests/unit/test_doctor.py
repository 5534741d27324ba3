"""The doctor without a broker: every check finds what is wrong, says what to do, and hides no other."""

import shutil
import subprocess
import sys
from collections import namedtuple
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path

import pytest

from engine.assemble import open_state
from engine.config import Config, default_profile, parse_config
from engine.doctor import (
    CLOCK_BEHIND_MS_MAX,
    CLOCK_MS_MIN,
    DISK_FREE_BYTES_WANTED,
    Finding,
    _version,
    check_clock,
    check_disk,
    check_mapping,
    check_model,
    check_state,
    check_versions,
    examine,
)
from engine.errors import ConfigError
from engine.state.store import DISK_FREE_BYTES_MIN

NOW_MS = 1_780_000_000_000
SMALL_STATE = "[state]\ncache_bytes_max = 33554432\ndirty_bytes_max = 8388608\n"

HOLD = """
import sys
from pathlib import Path
from engine.state.store import Store
with Store(Path(sys.argv[1]), 1 << 20):
    print("open", flush=True)
    sys.stdin.read()
"""


def config_of(folder: Path, extra: str = "") -> Config:
    return parse_config(
        f"{default_profile()}\n{SMALL_STATE}{extra}", folder, {"TIDEGATE__KAFKA__BOOTSTRAP": "127.0.0.1:1"}
    )


def written(config: Config) -> None:
    """Leaves an empty state with a header in `state.dir`."""
    with ExitStack() as resources_open:
        state = open_state(config, config.feature_spec(), None, resources_open)
        state.begin_flush({})
        state.finish_flush()


def test_without_a_broker_everything_else_is_examined(tmp_path: Path) -> None:
    findings = list(examine(config_of(tmp_path), timeout_s=0.2))
    assert [(finding.check, finding.verdict) for finding in findings] == [
        ("versions", "ok"),
        ("mapping", "ok"),
        ("model", "ok"),
        ("state", "ok"),
        ("disk", "ok"),
        ("broker", "failure"),
        ("clock", "ok"),
        ("topics", "warning"),
        ("offsets", "warning"),
    ]
    assert "no Kafka broker answers at 127.0.0.1:1" in findings[5].detail
    assert "KAFKA_BOOTSTRAP_SERVERS" in findings[5].advice
    assert list(tmp_path.iterdir()) == []


def test_checks_that_fail_do_not_hide_each_other(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    wrong = '[models]\nchampion = "nobody@champion"\n[rates]\nfile = "nowhere.csv"\n'
    verdicts = {finding.check: finding for finding in examine(config_of(tmp_path, wrong), timeout_s=0.2)}
    assert "nowhere.csv cannot be read" in verdicts["mapping"].detail
    assert "has no model 'nobody'" in verdicts["model"].detail
    assert "is not a directory" in verdicts["state"].detail
    failures = [check for check, finding in verdicts.items() if finding.verdict == "failure"]
    assert failures == ["mapping", "model", "state", "broker"]
    assert [check for check in failures if not verdicts[check].advice] == []


# --- versions, mapping, model ----------------------------------------------------------------------------------


def test_versions_are_shown() -> None:
    finding = check_versions()
    assert finding.verdict == "ok"
    for name in ("python 3.", "confluent-kafka ", "librdkafka ", "onnxruntime ", "rocksdict ", "numba "):
        assert name in finding.detail


def test_a_library_that_is_too_old_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "requires", lambda _: ["numpy>=999.1", "click>=1", 'lightgbm>=999; extra == "train"'])
    finding = check_versions()
    assert (finding.verdict, finding.detail) == (
        "failure",
        f"numpy {metadata.version('numpy')} is older than 999.1",
    )


@pytest.mark.parametrize(
    ("text", "numbers"), [("1.27.0rc1", (1, 27, 0)), ("2026.1", (2026, 1)), ("1.16.20260101", (1, 16, 20260101))]
)
def test_version_numbers(text: str, numbers: tuple[int, ...]) -> None:
    assert _version(text) == numbers


def test_the_mapping_shows_where_keys_come_from(tmp_path: Path) -> None:
    config = parse_config(
        "[mapping]\nbase = 'sparkov'\n[entities.card]\nwindows = ['1h']\naggregates = ['count']", tmp_path, {}
    )
    assert check_mapping(config) == Finding("mapping", "ok", "card from 'cc_num'; amounts in USD")


def test_a_model_that_needs_other_features(tmp_path: Path) -> None:
    config = parse_config("[entities.card]\nwindows = ['1h']\naggregates = ['count']", tmp_path, {})
    with pytest.raises(ConfigError, match="features that the running set does not have"):
        check_model(config)


def test_challengers_that_cannot_be_loaded_are_no_failure(tmp_path: Path) -> None:
    config = parse_config("[models]\nchallengers = ['demo/1', 'demo@challenger', 'nobody/1']", tmp_path, {})
    found = check_model(config)
    assert found.verdict == "warning"
    assert "; challengers: demo/1; demo@challenger: " in found.detail
    assert "nobody/1: " in found.detail


# --- state and disk --------------------------------------------------------------------------------------------


def test_a_state_directory_that_is_in_order(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    assert check_state(config) == Finding("state", "ok", f"{tmp_path / 'state'} holds no state yet")
    written(config)
    assert check_state(config) == Finding("state", "ok", f"{tmp_path / 'state'} holds 0 entities, written 1 times")


def test_a_state_made_under_other_rules(tmp_path: Path) -> None:
    written(config_of(tmp_path))
    finding = check_state(config_of(tmp_path, "ring_events_max = 64\n"))
    assert finding.verdict == "failure"
    assert "was made under other rules" in finding.detail


def test_a_state_directory_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    finding = check_state(config_of(tmp_path))
    assert (finding.verdict, finding.detail) == ("failure", f"{tmp_path} cannot be written to")


def test_a_state_directory_that_a_worker_holds(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    written(config)
    command = [sys.executable, "-c", HOLD, str(tmp_path / "state")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"open\n"
        finding = check_state(config)
        worker.stdin.close()
        assert worker.wait() == 0
    assert finding.verdict == "warning"
    assert "is held by a running worker" in finding.detail
    assert check_state(config).verdict == "ok"


def test_a_damaged_state_is_a_finding(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    written(config)
    for manifest in (tmp_path / "state" / "rocksdb").glob("MANIFEST-*"):
        manifest.unlink()
    (finding,) = (finding for finding in examine(config, timeout_s=0.2) if finding.check == "state")
    assert finding.verdict == "failure"
    assert f"state in {tmp_path / 'state'} is damaged" in finding.detail


@pytest.mark.parametrize(
    ("free", "verdict"),
    [
        (DISK_FREE_BYTES_MIN - 1, "failure"),
        (DISK_FREE_BYTES_MIN, "warning"),
        (DISK_FREE_BYTES_WANTED - 1, "warning"),
        (DISK_FREE_BYTES_WANTED, "ok"),
    ],
)
def test_room_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, verdict: str) -> None:
    usage = namedtuple("usage", "total used free")(2**40, 2**40 - free, free)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert check_disk(config_of(tmp_path)).verdict == verdict


# --- clock -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("newest_ms", "now_ms", "verdict", "said"),
    [
        (None, NOW_MS, "ok", "no record to compare it with"),
        (NOW_MS - 90_000, NOW_MS, "ok", "the newest record is 90.0 s old"),
        (NOW_MS + CLOCK_BEHIND_MS_MAX, NOW_MS, "ok", "the newest record is 0.0 s old"),
        (NOW_MS + 3_600_000, NOW_MS, "warning", "the newest record is 3,600.0 s ahead"),
        (None, CLOCK_MS_MIN - 1, "failure", "2024-12-31 23:59:59 UTC"),
        (0, 0, "failure", "1970-01-01 00:00:00 UTC"),
    ],
)
def test_the_clock(newest_ms: int | None, now_ms: int, verdict: str, said: str) -> None:
    finding = check_clock(newest_ms, now_ms)
    assert finding.verdict == verdict
    assert said in finding.detail
