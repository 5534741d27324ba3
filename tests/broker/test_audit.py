"""`tidegate audit export` on a real broker: the topic's decisions, cut by time, committed ones alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from engine.audit import Span, export
from engine.errors import ConfigError, FatalError, RetriableError
from engine.kafka.decisions import DecisionTopic
from tests.broker.application import GIVE_UP_S, Application, new_application
from tests.broker.rollout import decisions, send
from tests.commands import Ended, invoke, refused
from tests.conftest import TopicFactory
from tests.pipelines import event, json_of, pipeline_of, profile, records_of

pytestmark = pytest.mark.broker

EVENTS = 3_000
PARTITIONS = 2
HOUR_MS = 3_600_000
DECIDED_AT = 1_790_000_000_000


@pytest.fixture
def application(kafka_bootstrap: str, tmp_path: Path, topic_factory: TopicFactory) -> Application:
    made = new_application(kafka_bootstrap, tmp_path, topic_factory, PARTITIONS)
    (tmp_path / "tidegate.toml").write_text(made.config_text())
    return made


def audit(application: Application, *arguments: str) -> Ended:
    """`tidegate audit export ... --json`."""
    places = ["--config", str(application.folder / "tidegate.toml"), "--bootstrap", application.bootstrap]
    return invoke("audit", "export", *places, "--out", application.folder / "d.parquet", "--json", *arguments)


def exported(application: Application, *arguments: str) -> tuple[dict[str, Any], Any]:
    """The summary and the rows of an export that goes well."""
    ended = audit(application, *arguments)
    assert ended.exit_code == 0, ended.err
    return orjson.loads(ended.out), pq.read_table(application.folder / "d.parquet").to_pylist()


def iso(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1_000, UTC).isoformat()


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return sorted(row["decision_id"] for row in rows)


def told(row: dict[str, Any]) -> dict[str, Any]:
    """A row as its decision has it, but for the features."""
    times = {name: round(row[name].timestamp() * 1_000) for name in ("event_time", "decided_at")}
    names = ("decision_id", "event_id", "decision", "risk_score", "probability", "feature_set", "rules", "reasons")
    parts = {"source": ("topic", "partition", "offset"), "model": ("name", "version", "sha256")}
    parts["policy"] = ("name", "version")
    nested = {name: {part: row[f"{name}_{part}"] for part in found} for name, found in parts.items()}
    return times | nested | {name: row[name] for name in (*names, "inexact", "degraded")}


def test_the_table_is_the_topic_and_a_span_cuts_it(application: Application) -> None:
    with application.worker() as worker:
        send(application, EVENTS, seed=3, events_per_s=1_500.0)
        application.wait_committed(worker)
        worker.stop()
    found = {decision["decision_id"]: decision for decision in decisions(application)}
    summary, rows = exported(application)
    assert len(found) == len(rows) == summary["decisions"] == summary["with_features"] == EVENTS
    assert summary["unreadable"] == summary["other_features"] == 0
    for row in rows:
        decision = found[row["decision_id"]]
        features = decision.pop("features")
        assert {name: row[name] for name in features} == features
        assert told(row) | {"schema": "tidegate.decision.v1"} == decision
    for partition in range(PARTITIONS):
        offsets = [row["source_offset"] for row in rows if row["source_partition"] == partition]
        assert offsets == sorted(offsets)

    times = sorted({decision["decided_at"] for decision in found.values()})  # of each batch
    start, end = times[len(times) // 3], times[2 * len(times) // 3]
    assert times[0] < start < end < times[-1]
    for arguments, wanted in (
        (("--from", iso(start), "--to", iso(end)), range(start, end)),
        (("--from", iso(start)), range(start, times[-1] + 1)),
        (("--to", iso(end)), range(times[0], end)),
    ):
        _, rows = exported(application, *arguments)
        assert ids(rows) == sorted(key for key, one in found.items() if one["decided_at"] in wanted)


def decision(number: int, decided_at: int) -> bytes:
    """A decision, made at this time."""
    made = pipeline_of(profile()).process(records_of([json_of(event(number))], offsets=[number])).decisions[0]["value"]
    return orjson.dumps(orjson.loads(made) | {"decided_at": decided_at})


def put(application: Application, *records: tuple[bytes, int], producer: Producer | None = None) -> None:
    """Writes records with these timestamps to partition 0 of the decisions."""
    producer = producer or Producer({"bootstrap.servers": application.bootstrap})
    for value, time_ms in records:
        producer.produce(application.decisions, value, partition=0, timestamp=time_ms)
    assert producer.flush(GIVE_UP_S) == 0


@contextmanager
def transaction(application: Application, value: bytes) -> Iterator[Producer]:
    """An open one that has written this."""
    producer = Producer({"bootstrap.servers": application.bootstrap, "transactional.id": application.application_id})
    producer.init_transactions(GIVE_UP_S)
    producer.begin_transaction()
    put(application, (value, DECIDED_AT), producer=producer)
    yield producer


def test_only_what_is_committed_is_exported_and_nothing_is_waited_for(application: Application) -> None:
    put(application, (decision(0, DECIDED_AT), DECIDED_AT))
    with transaction(application, decision(1, DECIDED_AT)) as open_one:
        put(application, (decision(2, DECIDED_AT), DECIDED_AT))
        assert ids(exported(application)[1]) == ["in-0-0"]
        open_one.abort_transaction(GIVE_UP_S)
    assert ids(exported(application)[1]) == ["in-0-0", "in-0-2"]
    with transaction(application, decision(3, DECIDED_AT)) as kept:
        kept.commit_transaction(GIVE_UP_S)
    assert ids(exported(application)[1]) == ["in-0-0", "in-0-2", "in-0-3"]


def test_a_span_is_found_without_reading_all_of_the_topic(application: Application) -> None:
    """decided, hours      -3 .. -3   0     0   +0.5  +2  +2 .. +2        only from the first 0 to the first +2 is read
    written             -3 .. -3  -0.5   0   +0.5  +2  +2 .. +2        by a broker whose clock is slow now and then
    """
    hours = [-3.0] * 5 + [0, 0, 0.5] + [2.0] * 5
    times = [DECIDED_AT + round(hour * HOUR_MS) for hour in hours]
    written = [*times[:5], times[5] - HOUR_MS // 2, *times[6:]]
    values = [decision(at, time_ms) for at, time_ms in enumerate(times)]
    put(application, *zip(values, written, strict=True))
    summary, rows = exported(application, "--from", iso(DECIDED_AT), "--to", iso(DECIDED_AT + 1))
    assert ids(rows) == ["in-0-5", "in-0-6"]
    assert summary["records"] == 4
    summary, rows = exported(application, "--from", iso(DECIDED_AT + 9 * HOUR_MS))
    assert (summary["records"], rows) == (0, [])


def test_records_that_are_no_decisions_are_said_and_the_rest_is_there(application: Application) -> None:
    put(application, *((value, DECIDED_AT) for value in (decision(0, DECIDED_AT), b"{}", b"x", decision(1, 0))))
    ended = audit(application)
    assert ended.exit_code == 1
    summary = orjson.loads(ended.out)
    assert (summary["decisions"], summary["unreadable"]) == (2, 2)
    assert "2 records cannot be read as decisions, the first one at partition 0, offset 1: " in ended.err
    assert pq.read_table(application.folder / "d.parquet").num_rows == 2


def test_decisions_that_are_deleted_meanwhile_end_the_export(application: Application) -> None:
    """Retention may pass over what is being read; a table without those would look whole."""
    put(application, *((decision(at, DECIDED_AT), DECIDED_AT) for at in range(5)))
    config, out = application.config(), application.folder / "d.parquet"
    with DecisionTopic(config) as topic:
        admin = AdminClient({"bootstrap.servers": application.bootstrap})
        for done in admin.delete_records([TopicPartition(application.decisions, 0, 3)]).values():
            done.result()
        with pytest.raises(FatalError, match=application.decisions):
            export(config, topic, out, Span())
    assert not out.exists()


def test_what_cannot_be_read_is_refused_and_no_file_is_left(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = application.config_text()
    (application.folder / "tidegate.toml").write_text(text.replace(application.decisions, "no-such"))
    ended = audit(application)
    assert ended.exit_code == ConfigError.exit_code
    assert "topic 'no-such'" in refused(ended)
    (application.folder / "tidegate.toml").write_text(text)
    monkeypatch.setattr("engine.kafka.committed.ANSWER_TIMEOUT_S", 1.0)
    ended = audit(application, "--bootstrap", "127.0.0.1:1")
    assert ended.exit_code == RetriableError.exit_code
    assert not (application.folder / "d.parquet").exists()
