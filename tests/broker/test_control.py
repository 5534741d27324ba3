"""`tidegate control` on a real broker: committed records alone, and each once, whenever it is killed."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from engine.control.joined import Joined
from engine.control.records import CaseRecord, Label
from engine.control.watch import Watch
from engine.directives import AliasMoved
from engine.telemetry import FieldCounts
from models.assignment import promoted
from tests.broker.application import GIVE_UP_S
from tests.broker.control import ControlProcess, Plane, new_plane
from tests.commands import invoke, refused
from tests.conftest import TopicFactory
from tests.control.world import NOW_MS, alert, label, sample, telemetry, world

pytestmark = pytest.mark.broker

# The world's clock is not this machine's.
SETTINGS = """
[control.quality]
window = "9000d"
keep = "9000d"
label_wait = "9000d"
[control.drift]
windows = ["30s"]
freshness_max = "9000d"
"""
EVENTS = 1_500
ALERTS = 400
KILLS = 10


@pytest.fixture
def plane(kafka_bootstrap: str, tmp_path: Path, topic_factory: TopicFactory) -> Iterator[Plane]:
    with new_plane(kafka_bootstrap, tmp_path, topic_factory, SETTINGS) as made:
        yield made


def test_only_committed_records_count(plane: Plane) -> None:
    seen, never = [sample(number, "review") for number in range(50)], [sample(number) for number in range(50, 100)]
    plane.send("decisions_sample", never, abort=True)
    plane.send("decisions_sample", seen)
    plane.send("labels", [label(number, 0) for number in range(50)], abort=True)
    plane.send("labels", [label(number, 1) for number in range(100)])
    plane.send("alerts", [alert(1)], abort=True)
    plane.send("alerts", [alert(2), b"no alert", alert(3)])
    with plane.worker() as worker:
        worker.wait("/quality", lambda answer: answer["overall"]["labelled"] == 50)
        found = worker.wait("/cases", lambda answer: answer["cases"] and answer["cases"][0]["alerts"] == 2)
        assert found["cases"][0]["exposure_minor"] == 1_000
        assert found["cases"][0]["entity_key"] == "****"
        metrics = worker.ask("/metrics")
        assert f'tidegate_control_records_total{{outcome="unreadable",topic="{plane.topics["alerts"]}"}} 1.0' in metrics
        assert 'tidegate_quality_precision{bound="value",model="fraud/1"} 1.0' in metrics


def test_markers_of_transactions_do_not_keep_offsets_from_being_committed(plane: Plane) -> None:
    """Behind the first record of the partition there are markers alone, more than one; then one behind each record."""
    key, records = b"one partition", 2 + 2 * int(GIVE_UP_S)
    with plane.worker() as worker:
        plane.send_each("decisions_sample", [sample(0)], key)
        for _ in range(3):
            plane.send("decisions_sample", [sample(1)], [key], abort=True)
        plane.send_each("decisions_sample", [sample(number) for number in range(1, records)], key)
        topic = plane.topics["decisions_sample"]
        worker.wait(
            "/metrics",
            lambda answer: f'tidegate_control_records_total{{outcome="read",topic="{topic}"}} {records:.1f}' in answer,
        )
        # The last marker is behind what is committed.
        worker.wait("/metrics", lambda answer: f'tidegate_control_lag_events{{topic="{topic}"}} 1.0' in answer)


def test_the_outcome_of_a_case_labels_its_events(plane: Plane) -> None:
    plane.send("decisions_sample", [sample(1, "review"), sample(2, "review")])
    plane.send("alerts", [alert(1), alert(2, after_ms=1_000)])
    with plane.worker() as worker:
        found = worker.wait("/cases", lambda answer: answer["cases"] and answer["cases"][0]["alerts"] == 2)
        case_id = found["cases"][0]["case_id"]
        places = ["--config", str(plane.folder / "tidegate.toml"), "--bootstrap", plane.bootstrap]
        assert "outcome" in refused(invoke("cases", "set", case_id, "closed", "--author", "ana", *places))
        done = invoke("cases", "set", case_id, "closed", "--outcome", "genuine", "--author", "ana", *places)
        assert done.exit_code == 0, done.err
        answer = worker.wait("/quality", lambda answer: answer["overall"]["labelled"] == 2)
        assert answer["overall"]["precision"]["value"] == 0.0
        worker.wait("/cases", lambda answer: answer["counts"] == {"genuine": 1})
    labels = [msgspec.json.decode(message.value(), type=Label) for message in plane.read("labels")]
    assert {(made.event_id, made.label, made.author) for made in labels} == {
        ("event-1", 0, "ana"),
        ("event-2", 0, "ana"),
    }
    published = [message for message in plane.read("cases") if message.key() == case_id.encode()]
    assert msgspec.json.decode(published[-1].value(), type=CaseRecord).outcome == "genuine"


def test_commands_are_kept_with_who_said_them(plane: Plane) -> None:
    moved = AliasMoved(
        application_id="tidegate", model="fraud", alias="champion", assignment=promoted(None, 7, "ana", "better")
    )
    plane.send("control", [moved, b"of a later version"], [moved.key, b"other"])
    with plane.worker() as worker:
        (rollout,) = worker.wait("/models", lambda answer: answer["rollouts"])["rollouts"]
    assert (rollout["author"], rollout["reason"], rollout["effect"]) == ("ana", "better", "fraud@champion: version 7")


def test_fausts_own_worker_runs_it(plane: Plane) -> None:
    plane.send("decisions_sample", [sample(1, "review")])
    plane.send("labels", [label(1, 1)])
    with plane.worker("faust", "-A", "engine.control.app", "worker", "-l", "warn") as worker:
        worker.wait("/quality", lambda answer: answer["overall"]["labelled"] == 1)
        assert f'tidegate_control_lag_events{{topic="{plane.topics["labels"]}"}}' in worker.ask("/metrics")


def test_killed_ten_times_it_counts_as_if_it_never_was(plane: Plane) -> None:
    made = world(seed=1, events=EVENTS, rate=0.25, fraud_share=0.1)
    alerts = [
        alert(number, value=f"card-{number % 7}", after_ms=number, typology=f"typology-{number % 2}")
        for number in range(ALERTS)
    ]
    measured = [
        telemetry(number, [1_000 + number], fields={"channel": FieldCounts(number, number % 3)})
        for number in range(6 * KILLS)
    ]
    for at in range(KILLS):
        process = ControlProcess(plane)
        try:
            process.wait("/readyz", lambda answer: answer["ok"])
            plane.send("decisions_sample", made.sampled[at::KILLS])
            plane.send("labels", made.labels[at::KILLS])
            plane.send("alerts", alerts[at::KILLS])
            plane.send("telemetry", measured[6 * at : 6 * at + 6])
            # In the midst of it: some has been read, some of that is in tables, some of that is committed.
            process.wait("/metrics", lambda answer: 'tidegate_control_records_total{outcome="read"' in answer)
        finally:
            process.kill()

    expected = Joined(plane.config.control.quality, {})
    for one in made.sampled:
        expected.take_sample(one)
    for known in made.labels:
        expected.take_label(known)
    watch = Watch(plane.config.control, {}, {}, lambda model: None)
    for record in measured:
        watch.take(record)
        for looked in watch.looks(record):
            watch.keep(looked)
    figures = expected.figures(NOW_MS)
    with plane.worker() as worker:
        quality = worker.wait("/quality", lambda answer: answer["overall"]["labelled"] == figures.labelled)
        cases = worker.wait("/cases", lambda answer: sum(case["alerts"] for case in answer["cases"]) >= ALERTS)
        last_ms = watch.alarms["tidegate"].looked_at_ms
        drift = worker.wait("/drift", lambda answer: answer and answer["tidegate"]["looked_at_ms"] == last_ms)
    for name in ("precision", "recall", "false_positive_rate", "value_caught", "value_missed"):
        estimate, shown = getattr(figures, name), quality["overall"][name]
        assert list(shown.values()) == pytest.approx([estimate.value, estimate.low, estimate.high]), name
    assert sum(case["alerts"] for case in cases["cases"]) == ALERTS
    assert sum(case["exposure_minor"] for case in cases["cases"]) == 500 * ALERTS
    assert len(cases["cases"]) == 14
    assert [(one["signal"], one["value"]) for one in drift["tidegate"]["readings"]] == [
        (one.signal, one.value) for one in watch.readings["tidegate"]
    ]
