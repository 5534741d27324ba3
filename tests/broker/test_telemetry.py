"""Samples and telemetry on a real broker: samples are as final as their decisions, telemetry counts what is final."""

import os
import threading
from pathlib import Path
from typing import Any

import orjson
import pytest

from engine.crashpoints import EXIT_CODE
from engine.errors import FatalError
from engine.process import WorkerProcess
from engine.telemetry import Sample, Telemetry, decode_sample, decode_telemetry
from tests.broker.application import Application, new_application, wait_for
from tests.broker.rollout import send
from tests.conftest import TopicFactory

pytestmark = pytest.mark.broker

EVENTS = 1_500
RATE = 0.25
SETTINGS: dict[str, Any] = {"telemetry__sample_rate": RATE, "telemetry__interval_s": 0.5}
SENT, LOST = (f'tidegate_telemetry_records_total{{outcome="{outcome}"}}' for outcome in ("sent", "lost"))


@pytest.fixture
def application(kafka_bootstrap: str, tmp_path: Path, topic_factory: TopicFactory) -> Application:
    return new_application(kafka_bootstrap, tmp_path, topic_factory, 2)


def samples(application: Application) -> list[Sample]:
    """All that are committed."""
    return [decode_sample(message.value()) for message in application.read_all(application.decisions_sample)]


def telemetry(application: Application) -> list[Telemetry]:
    return [decode_telemetry(message.value()) for message in application.read_all(application.telemetry)]


def decisions(application: Application) -> dict[str, dict[str, Any]]:
    found = [orjson.loads(message.value()) for message in application.read_all(application.decisions)]
    assert len({decision["decision_id"] for decision in found}) == len(found)
    return {decision["decision_id"]: decision for decision in found}


def problems(application: Application) -> list[str]:
    """What is wrong with the samples beside the decisions."""
    made, drawn = decisions(application), samples(application)
    flagged = {name for name, decision in made.items() if decision["decision"] != "approve"}
    names = [sample.decision_id for sample in drawn]
    approvals = len(made) - len(flagged)
    weight = sum(sample.weight for sample in drawn if sample.decision == "approve")
    checks = {
        "a sample is there twice": len(set(names)) == len(names),
        "a sample has no decision": set(names) <= made.keys(),
        "a decision that is no approval has no sample": flagged <= set(names),
        "a sample says something else": all(
            sample.risk_score == made[sample.decision_id]["risk_score"]
            and sample.decided_at_ms == made[sample.decision_id]["decided_at"]
            for sample in drawn
            if sample.decision_id in made
        ),
        "there is nothing to see": min(len(flagged), approvals) > 50,
        "weights do not add up": abs(weight - approvals) < 4 * (approvals * (1 - RATE) / RATE) ** 0.5,
    }
    return [problem for problem, well in checks.items() if not well]


def test_samples_and_counts_are_those_of_the_decisions(application: Application) -> None:
    with application.worker(**SETTINGS) as worker:
        send(application, EVENTS)
        application.wait_committed(worker)
        # What a record is of comes a moment after the commit, and is known to be there with the next one.
        wait_for(worker, "records", lambda samples: samples[SENT] >= 3 and not samples[LOST])
        found = worker.samples()
        worker.stop()
    assert problems(application) == []
    assert found["tidegate_decision_samples_total"] == len(samples(application))
    records = telemetry(application)
    made = decisions(application)
    assert sum(record.events for record in records) == EVENTS == len(made)
    for kind in ("approve", "challenge", "review", "decline"):
        counted = sum(record.decisions[kind] for record in records)
        assert counted == sum(decision["decision"] == kind for decision in made.values())
    assert all(record.from_ms <= record.to_ms for record in records)
    assert {record.application_id for record in records} == {application.application_id}
    # One after another: nothing between two records is counted by none.
    assert [record.to_ms for record in records[:-1]] == [record.from_ms for record in records[1:]]


def test_a_sample_cannot_be_read_before_its_decision(application: Application) -> None:
    """Both appear with the commit, which is far away here."""
    with application.worker(kafka__commit_interval_ms=5_000, **SETTINGS) as worker:
        send(application, 1)
        application.wait_committed(worker)
        before = len(samples(application))
        send(application, EVENTS, seed=2)
        wait_for(worker, "events", lambda samples: samples['tidegate_events_total{outcome="decided"}'] == EVENTS + 1)
        assert len(decisions(application)) == 1
        assert len(samples(application)) == before
        assert sum(record.events for record in telemetry(application)) <= 1
        application.wait_committed(worker)
        worker.stop()
    assert len(decisions(application)) == EVENTS + 1
    assert len(samples(application)) > EVENTS * RATE / 2


def test_samples_of_a_transaction_that_never_ended_are_never_seen(application: Application) -> None:
    """A worker ends with everything produced and nothing committed; the next one decides it again."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE")}
    text = application.config_text(kafka__commit_interval_ms=500, **SETTINGS)
    crashing = environment | {"TIDEGATE_CRASH_AT": "commit:3"}
    with WorkerProcess(text, application.folder, application.bootstrap, crashing) as worker:
        worker.wait_active(threading.Event())
        send(application, EVENTS, events_per_s=600)
        with pytest.raises(FatalError, match=f"exit code {EXIT_CODE}"):
            wait_for(worker, "its end", lambda samples: False)
    committed = sum(application.committed().values())
    assert 0 < committed < EVENTS
    with application.worker(kafka__commit_interval_ms=500, **SETTINGS) as worker:
        application.wait_committed(worker)
        worker.stop()
    assert problems(application) == []
    assert len(decisions(application)) == EVENTS
    assert sum(record.events for record in telemetry(application)) <= EVENTS


def test_at_least_once_has_them_too(application: Application) -> None:
    with application.worker(kafka__delivery="at_least_once", **SETTINGS) as worker:
        send(application, EVENTS)
        application.wait_committed(worker)
        worker.stop()
    assert problems(application) == []
    assert sum(record.events for record in telemetry(application)) == EVENTS


def test_without_telemetry_neither_topic_is_needed(application: Application) -> None:
    nowhere: dict[str, Any] = {"kafka.topics__decisions_sample": "nowhere", "kafka.topics__telemetry": "nowhere-2"}
    with application.worker(telemetry__enabled=False, **nowhere) as worker:
        send(application, 50)
        application.wait_committed(worker)
        worker.stop()
    assert len(decisions(application)) == 50
    assert samples(application) == telemetry(application) == []
