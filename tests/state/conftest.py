"""A command runs in an empty folder, with nothing of ours in the environment."""

from pathlib import Path

import pytest

from tests.commands import Run, invoke


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command."""
    monkeypatch.chdir(tmp_path)
    for name in ("TIDEGATE_CONFIG", "KAFKA_BOOTSTRAP_SERVERS"):
        monkeypatch.delenv(name, raising=False)
    return invoke
