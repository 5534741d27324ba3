"""Faust's own commands work on the application as its users expect, and a configuration that cannot be is refused."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.config import parse_config
from engine.control.build import control_app
from engine.errors import ConfigError
from tests.conftest import ROOT


def faust(folder: Path, *arguments: str) -> str:
    config_file = folder / "tidegate.toml"
    config_file.write_text('[kafka]\nbootstrap = "127.0.0.1:1"\n[control]\npartitions = 2\n')
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TIDEGATE", "KAFKA"))}
    return subprocess.run(
        [sys.executable, "-m", "faust", "-A", "engine.control.app", *arguments],
        env=environment | {"TIDEGATE_CONFIG": str(config_file), "PYTHONPATH": str(ROOT)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_agents_are_listed(tmp_path: Path) -> None:
    said = faust(tmp_path, "agents")
    for name in ("route_samples", "route_labels", "route_telemetry", "route_alerts", "route_said"):
        assert name in said
    for name in ("samples", "labels", "telemetry", "alerts", "said", "rollouts"):
        assert f"@{name} " in said or f".{name} " in said, said
    assert "decisions-sample" in said


def test_tables_are_listed(tmp_path: Path) -> None:
    said = faust(tmp_path, "tables")
    for name in ("facts", "buckets", "alarms", "cases", "rollouts"):
        assert name in said


def test_what_is_not_spoken_is_refused(tmp_path: Path) -> None:
    text = '[kafka]\nbootstrap = "127.0.0.1:1"\n[kafka.client]\n"security.protocol" = "SASL_SSL"\n'
    with pytest.raises(ConfigError, match="control speaks"):
        control_app(parse_config(text, tmp_path, {}))
