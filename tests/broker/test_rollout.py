"""Models that change while events are decided: by command, on the real broker."""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from tests.broker.application import GIVE_UP_S, Application
from tests.broker.rollout import (
    BROKEN,
    STORE,
    VERSIONS,
    application_with_store,
    command,
    decides_with,
    decisions,
    send,
    told,
    wait_for,
)
from tests.conftest import TopicFactory

pytestmark = pytest.mark.broker

EVENTS = 12_000
SWAPS = 12
EVENTS_PER_S = 3_000


@pytest.fixture
def application(kafka_bootstrap: str, tmp_path: Path, topic_factory: TopicFactory) -> Application:
    return application_with_store(kafka_bootstrap, tmp_path, topic_factory)


def test_models_change_under_a_stream_and_no_event_notices(application: Application) -> None:
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


def test_without_a_model_rules_decide_until_one_is_promoted(application: Application) -> None:
    settings = {**STORE, "policy__without_model": "review"}
    for version in VERSIONS[:1]:
        shutil.rmtree(application.folder / "store" / "fraud" / str(version))
    with application.worker(**settings) as worker:
        assert decides_with(worker) == "0"
        send(application, 500)
        application.wait_committed(worker)
        done = command(application, "promote", "fraud/2")
        assert done.exit_code == 0, done.output
        wait_for(worker, "tidegate_model_swaps_total", 1)
        send(application, 500, seed=2)
        application.wait_committed(worker)
        worker.stop()
    found = decisions(application)
    without = [decision for decision in found if decision["degraded"] == ["rules_only"]]
    assert len(without) == 500
    assert {decision["decision"] for decision in without} == {"review"}
    assert {decision["model"]["version"] for decision in without} == {"0"}
    assert {decision["model"]["version"] for decision in found if decision not in without} == {"2"}
