"""`scripts/retrain` answers one request of the control plane, and never touches what decides."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import orjson
import pytest

from engine.commands.model_gate import CHECKS
from engine.control.records import RetrainRequest
from loadtest.columns import event_ids
from loadtest.render import render_valid
from loadtest.settings import TrafficSettings
from loadtest.traffic import generate
from models.store import aliases, versions
from tests.broker.control import Plane, new_plane
from tests.broker.rollout import make_store
from tests.conftest import ROOT, TopicFactory

pytestmark = [pytest.mark.broker, pytest.mark.slow]

EVENTS = 60_000
STORE = '[models]\nstore = "store"\nchampion = "fraud@champion"\n'
REQUEST = RetrainRequest(
    request_id="tidegate-fraud-1-1",
    application_id="tidegate",
    model="fraud/1",
    at_ms=1,
    evidence={"psi:card.count.1m@10m": {"value": 0.5, "limit": 0.25}},
)


@pytest.fixture
def plane(kafka_bootstrap: str, tmp_path: Path, topic_factory: TopicFactory) -> Iterator[Plane]:
    make_store(tmp_path / "store", versions=(1,))
    with new_plane(kafka_bootstrap, tmp_path, topic_factory, STORE) as made:
        (tmp_path / "tidegate.toml").write_text(made.text)
        yield made


def write_past(folder: Path) -> None:
    traffic = generate(TrafficSettings(seed=5), EVENTS)
    (folder / "events.jsonl").write_bytes(b"\n".join(render_valid(traffic)))
    fraud = (np.asarray(traffic.attack_kinds) > 0).astype(int)
    rows = [
        orjson.dumps({"event_id": event_id, "label": label, "labelled_at": 1_500_000_000_000})
        for event_id, label in zip(event_ids(traffic), fraud.tolist(), strict=True)
    ]
    (folder / "labels.jsonl").write_bytes(b"\n".join(rows))


def retrain(plane: Plane, *arguments: str) -> subprocess.CompletedProcess[str]:
    folder = plane.folder
    files = ["--events", str(folder / "events.jsonl"), "--labels", str(folder / "labels.jsonl")]
    places = ["--config", str(folder / "tidegate.toml"), "--bootstrap", plane.bootstrap]
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "retrain"), *places, *files, *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("passes", [False, True])
def test_a_request_is_answered_once(plane: Plane, passes: bool) -> None:
    """A quarter of these events has too few frauds for the gate to say that the new model is as good."""
    write_past(plane.folder)
    plane.send("retrain_requests", [REQUEST], [REQUEST.request_id.encode()])
    done = retrain(plane, *(["--without", *CHECKS] if passes else []))
    assert done.returncode == (0 if passes else 1), done.stderr
    store = plane.folder / "store"
    assert versions(store, "fraud") == [1, 2]
    known = aliases(store, "fraud")
    assert known["champion"].version == 1
    if passes:
        assert (known["challenger"].version, known["challenger"].reason) == (2, REQUEST.request_id)
    else:
        assert "challenger" not in known
    again = retrain(plane, "--wait-s", "8")
    assert (again.returncode, again.stdout) == (0, "nobody asks for another model\n"), again.stderr
    assert versions(store, "fraud") == [1, 2]
    assert msgspec.json.encode(aliases(store, "fraud")) == msgspec.json.encode(known)
