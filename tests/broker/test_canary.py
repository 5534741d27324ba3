"""A canary: some entities are decided by another model, the same ones each time, until somebody says otherwise."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from tests.broker.application import Application
from tests.broker.rollout import (
    FRAGILE,
    PARTITIONS,
    STORE,
    application_with_store,
    command,
    decisions,
    models_in_use,
    send,
    send_failing,
    wait_for,
)
from tests.conftest import TopicFactory

pytestmark = pytest.mark.broker

EVENTS = 4_000
SHARE = 0.3
SWAPS = "tidegate_model_swaps_total"


@pytest.fixture
def application(kafka_bootstrap: str, tmp_path: Path, topic_factory: TopicFactory) -> Application:
    return application_with_store(kafka_bootstrap, tmp_path, topic_factory)


def share(version: int) -> str:
    return f'tidegate_canary_share{{model="fraud/{version}"}}'


def begin(application: Application, version: int, of: float = SHARE) -> None:
    done = command(application, "promote", f"fraud/{version}", "--alias", "canary", "--share", str(of))
    assert done.exit_code == 0, done.output


def test_a_share_of_the_cards_is_decided_by_the_canary_until_it_is_ended(application: Application) -> None:
    with application.worker(**STORE) as worker:
        begin(application, 2)
        wait_for(worker, share(2), SHARE)
        assert models_in_use(worker) == {"champion": "1", "canary": "2"}
        send(application, EVENTS)
        application.wait_committed(worker)
        done = command(application, "rollback", "fraud", "--alias", "canary")
        assert done.exit_code == 0, done.output
        assert "is ended" in done.output
        wait_for(worker, share(2), None)
        send(application, EVENTS, seed=2)
        application.wait_committed(worker)
        assert command(application, "rollback", "fraud", "--alias", "canary").exit_code == 2
        assert worker.samples()[SWAPS] == 0
        worker.stop()
    found = decisions(application)
    places = [(decision["source"]["partition"], decision["source"]["offset"]) for decision in found]
    # Each once, and those of a partition in its order.
    assert sorted(places) == sorted((sent.partition, sent.offset) for sent in application.sent)
    for partition in range(PARTITIONS):
        assert [o for p, o in places if p == partition] == sorted(o for p, o in places if p == partition)
    cards = {(sent.partition, sent.offset): sent.key for sent in application.sent}
    by_model: dict[str, set[bytes | None]] = {"1": set(), "2": set()}
    ends = {sent.partition: sent.offset for sent in application.sent[:EVENTS]}
    for place, decision in zip(places, found, strict=True):
        if place[1] <= ends[place[0]]:
            by_model[decision["model"]["version"]].add(cards[place])
        else:
            assert decision["model"]["version"] == "1"
    assert not by_model["1"] & by_model["2"]
    cards_of_canary = len(by_model["2"]) / (len(by_model["1"]) + len(by_model["2"]))
    assert abs(cards_of_canary - SHARE) < 0.1
    with closing(application.reader(application.progress)) as reader:
        reader.read_to_end()
        commits = [orjson.loads(message.value()) for message in reader.messages]
    assert {commit["model"] for commit in commits} == {"fraud/1"}
    assert {commit["canary"] for commit in commits} >= {"fraud/2"}
    assert commits[-1]["canary"] == ""


def test_a_word_about_the_champion_ends_the_canary(application: Application) -> None:
    with application.worker(**STORE) as worker:
        begin(application, 2)
        wait_for(worker, share(2), SHARE)
        assert command(application, "promote", "fraud/2").exit_code == 0
        wait_for(worker, SWAPS, 1)
        wait_for(worker, share(2), None)
        begin(application, 3)
        wait_for(worker, share(3), SHARE)
        assert command(application, "rollback", "fraud").exit_code == 0
        wait_for(worker, SWAPS, 2)
        wait_for(worker, share(3), None)
        assert models_in_use(worker) == {"champion": "1"}


def test_a_canary_outlasts_its_worker_and_reaches_a_standby(application: Application) -> None:
    other = replace(application, folder=application.folder / "other")
    other.folder.mkdir()
    (other.folder / "store").symlink_to(application.folder / "store")
    with application.worker(**STORE) as active:
        begin(application, 2)
        begin(application, 3, 0.5)
        wait_for(active, share(3), 0.5)
        with other.worker(active=False, **STORE) as standby:
            wait_for(standby, share(3), 0.5)
            active.stop()
            send(application, 500)
            application.wait_committed(standby)
            assert command(application, "rollback", "fraud", "--alias", "canary").exit_code == 0
            wait_for(standby, share(3), None)
            begin(application, 2, 0.5)
            standby.stop()
    assert {decision["model"]["version"] for decision in decisions(application)} == {"1", "3"}
    with application.worker(**STORE) as again:
        wait_for(again, share(2), 0.5)


def test_where_the_canary_fails_the_champion_decides(application: Application) -> None:
    with application.worker(**STORE) as worker:
        begin(application, FRAGILE, 0.999)
        wait_for(worker, share(FRAGILE), 0.999)
        send(application, 100)
        application.wait_committed(worker)
        send_failing(application)
        application.wait_committed(worker)
        assert worker.samples()["tidegate_canary_failures_total"] == 1
        assert models_in_use(worker) == {"champion": "1"}
        send(application, 100, seed=2)
        application.wait_committed(worker)
        worker.stop()
    found = decisions(application)
    assert len(found) == len(application.sent)
    made_by = [decision["model"]["version"] for decision in found]
    assert made_by.count(str(FRAGILE)) > 90
    assert made_by.count("1") >= 101


def test_what_the_gate_refuses_is_no_canary(application: Application) -> None:
    done = command(application, "promote", "fraud/4", "--alias", "canary", "--share", "0.1")
    assert done.exit_code == 2
    assert "sha256" in done.output
    for arguments in (["--alias", "canary"], ["--share", "0.1"], ["--alias", "canary", "--share", "1"]):
        assert command(application, "promote", "fraud/2", *arguments).exit_code == 2
    (application.folder / "tidegate.toml").write_text(application.config_text(models__store="store"))
    done = command(application, "promote", "fraud/2", "--alias", "canary", "--share", "0.1")
    assert done.exit_code == 2
    assert "another version of a champion" in done.output
