"""Models that change while events are decided: by command, on the real broker."""

import shutil
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
from click.testing import CliRunner, Result

from engine.cli import main
from engine.control import AliasMoved
from engine.kafka.control import send_command
from engine.process import WorkerProcess
from loadtest.render import render_valid
from loadtest.settings import TrafficSettings
from loadtest.traffic import generate
from models.assignment import Assignment, promoted
from models.manifest import read_manifest
from models.store import MANIFEST_FILE, MODEL_FILE, Located, publish, resolve, set_alias, shipped_store
from tests.broker.application import GIVE_UP_S, Application, new_application
from tests.conftest import TopicFactory

pytestmark = pytest.mark.broker

PARTITIONS = 2
VERSIONS = (1, 2, 3)
BROKEN = 4
EVENTS = 12_000
SWAPS = 12
EVENTS_PER_S = 3_000


@pytest.fixture
def application(kafka_bootstrap: str, tmp_path: Path, topic_factory: TopicFactory) -> Application:
    """With a store of four versions of one model, of which the last is damaged."""
    made = new_application(kafka_bootstrap, tmp_path, topic_factory, PARTITIONS)
    shipped = resolve(shipped_store(), "demo/1")
    manifest = msgspec.structs.replace(read_manifest(shipped.directory / MANIFEST_FILE), name="fraud")
    model = (shipped.directory / MODEL_FILE).read_bytes()
    store = tmp_path / "store"
    for version in (*VERSIONS, BROKEN):
        located = publish(store, msgspec.structs.replace(manifest, version=version), model)
    damage(located)
    set_alias(store, "fraud", "champion", promoted(None, 1, "test", "the first"))
    (tmp_path / "tidegate.toml").write_text(made.config_text(**STORE))
    return made


STORE = {"models__store": "store", "models__champion": "fraud@champion"}


def damage(located: Located) -> None:
    path = located.directory / MODEL_FILE
    path.write_bytes(path.read_bytes()[:-1])


def command(application: Application, *arguments: str) -> Result:
    options = ["--config", str(application.folder / "tidegate.toml"), "--bootstrap", application.bootstrap]
    return CliRunner().invoke(main, ["models", *arguments, *options, "--reason", "test", "--author", "tests"])


def told(application: Application, version: int, earlier: list[int]) -> Assignment:
    """Commands without a look at the store."""
    assignment = msgspec.structs.replace(promoted(None, version, "tests", "test"), earlier=earlier)
    config = application.config(**STORE)
    send_command(
        config,
        AliasMoved(application_id=application.application_id, model="fraud", alias="champion", assignment=assignment),
    )
    return assignment


def decides_with(worker: WorkerProcess) -> str:
    (labels,) = (name for name in worker.samples() if name.startswith("tidegate_model_info"))
    return labels.partition('version="')[2].partition('"')[0]


def wait_for(worker: WorkerProcess, sample: str, value: float) -> None:
    give_up_at = time.monotonic() + GIVE_UP_S
    while worker.samples().get(sample) != value:
        assert time.monotonic() < give_up_at, f"{sample} is {worker.samples().get(sample)}, not {value}"


def send(application: Application, events: int, seed: int = 1, **pace: float) -> None:
    traffic = generate(TrafficSettings(seed=seed), events)
    keys: list[bytes | None] = [b"%d" % number for number in traffic.card_numbers.tolist()]
    application.produce(list(render_valid(traffic)), keys, traffic.send_times_ms, **pace)


def decisions(application: Application) -> list[dict[str, Any]]:
    return [orjson.loads(message.value()) for message in application.read_all(application.decisions)]


def test_models_change_under_a_stream_and_no_event_notices(application: Application) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with application.worker(**STORE) as worker, ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send, application, EVENTS, events_per_s=EVENTS_PER_S)
        for swap in range(1, SWAPS + 1):
            done = command(application, "promote", f"fraud/{VERSIONS[swap % 3]}")
            assert done.exit_code == 0, done.output
            wait_for(worker, "tidegate_model_swaps_total", swap)
        sending.result()
        application.wait_committed(worker)
        assert worker.samples()["tidegate_transaction_aborts_total"] == 0
        worker.stop()
    found = decisions(application)
    places = [(decision["source"]["partition"], decision["source"]["offset"]) for decision in found]
    assert sorted(places) == sorted((sent.partition, sent.offset) for sent in application.sent)
    made_by = {decision["model"]["version"] for decision in found}
    assert made_by == {"1", "2", "3"}
    with closing(application.reader(application.progress)) as reader:
        reader.read_to_end()
        commits = [orjson.loads(message.value()) for message in reader.messages]
    by_place = {place: decision["model"]["version"] for place, decision in zip(places, found, strict=True)}
    for commit in commits:
        # A commit is of one model, so that whoever replays it knows of which.
        models = {
            by_place[p, offset]
            for p, start, to in commit["runs"]
            for offset in range(start, to)
            if (p, offset) in by_place
        }
        assert models <= {commit["model"].removeprefix("fraud/")}


def test_a_model_that_cannot_be_loaded_changes_nothing(application: Application) -> None:
    assert command(application, "promote", f"fraud/{BROKEN}").exit_code == 2
    with application.worker(**STORE) as worker:
        told(application, BROKEN, [1])
        wait_for(worker, "tidegate_model_load_failures_total", 1)
        told(application, 99, [1])
        wait_for(worker, "tidegate_model_load_failures_total", 2)
        assert decides_with(worker) == "1"
        send(application, 100)
        application.wait_committed(worker)
        assert command(application, "promote", "fraud/2").exit_code == 0
        wait_for(worker, "tidegate_model_swaps_total", 1)
        worker.stop()
    assert {decision["model"]["version"] for decision in decisions(application)} == {"1"}


def test_a_rollback_needs_the_broker_alone(application: Application) -> None:
    with application.worker(**STORE) as worker:
        assert command(application, "promote", "fraud/2").exit_code == 0
        assert command(application, "promote", "fraud/3").exit_code == 0
        give_up_at = time.monotonic() + GIVE_UP_S
        while decides_with(worker) != "3":
            assert time.monotonic() < give_up_at
        # As from a machine that has no store.
        elsewhere = replace(application, folder=application.folder / "elsewhere")
        elsewhere.folder.mkdir()
        shutil.copy(application.folder / "tidegate.toml", elsewhere.folder)
        done = command(elsewhere, "rollback", "fraud")
        assert done.exit_code == 0, done.output
        assert "fraud@champion is version 2" in done.output
        assert "the store was not changed" in done.output
        while decides_with(worker) != "2":
            assert time.monotonic() < give_up_at
        assert command(elsewhere, "rollback", "fraud").exit_code == 0
        while decides_with(worker) != "1":
            assert time.monotonic() < give_up_at
        assert command(elsewhere, "rollback", "fraud").exit_code == 2


@pytest.mark.parametrize(("version", "earlier", "decides"), [(2, [], "2"), (BROKEN, [1, 3], "3")])
def test_a_worker_begins_with_what_was_said_last(
    version: int, earlier: list[int], decides: str, application: Application
) -> None:
    """Where that is refused, with what was before."""
    told(application, version, earlier)
    with application.worker(**STORE) as worker:
        assert decides_with(worker) == decides


def test_a_standby_takes_over_with_the_model_of_the_active_one(application: Application) -> None:
    other = replace(application, folder=application.folder / "other")
    other.folder.mkdir()
    (other.folder / "store").symlink_to(application.folder / "store")
    with application.worker(**STORE) as active, other.worker(active=False, **STORE) as standby:
        assert command(application, "promote", "fraud/3").exit_code == 0
        wait_for(active, "tidegate_model_swaps_total", 1)
        active.stop()
        send(application, 100)
        application.wait_committed(standby)
        standby.stop()
    assert {decision["model"]["version"] for decision in decisions(application)} == {"3"}
