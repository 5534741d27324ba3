"""The table of an audit without a broker: the very fields of decisions, cut by when they were made, nothing dropped."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.audit import AuditSummary, Span, audit_schema, export
from engine.errors import ConfigError, FatalError
from engine.kafka.decisions import CLOCKS_APART_MS_MAX
from tests.commands import Run, refused
from tests.pipelines import event, json_of, pipeline_of, profile, records_of

CONFIG = profile(
    extra="""
[[policy.rules]]
id = "some"
when = "amount > 50 and amount < 900"
action = "review"
reason = "{amount} at once"
[[policy.rules]]
id = "never"
when = "amount > 1e9 or card.count.1h < 1"
weight = 3
"""
)
SPEC = CONFIG.feature_spec()
DECIDED_AT = 1_740_000_000_000
ALWAYS = Span()


@dataclass
class Written:
    """A record as a consumer gives it."""

    content: bytes | None
    at: int = 0
    place: int = 0
    time_ms: int = DECIDED_AT

    def value(self) -> bytes | None:
        return self.content

    def partition(self) -> int:
        return self.place

    def offset(self) -> int:
        return self.at

    def timestamp(self) -> tuple[int, int]:
        return 1, self.time_ms


class Topic:
    """Records in the order in which they are read."""

    def __init__(self, records: list[Written]) -> None:
        self.records = records
        self.left: list[int] = []

    def read(self) -> Iterator[Written]:
        yield from (record for record in self.records if record.place not in self.left)

    def leave(self, partition: int) -> None:
        self.left.append(partition)


def exported(records: list[Written], span: Span = ALWAYS) -> tuple[list[dict[str, Any]], AuditSummary]:
    out = Path("d.parquet")
    summary = export(CONFIG, Topic(records), out, span)  # type: ignore[arg-type]
    return pq.read_table(out).to_pylist(), summary


def decisions(events: int = 60, *, with_features: bool = True) -> list[bytes]:
    """Of some events without a device, with amounts that rules and the model tell apart; decided at time 0."""
    values = [json_of(event(at, amount=at * 17, **({"device": ...} if at % 7 == 0 else {}))) for at in range(events)]
    outputs = pipeline_of(CONFIG, with_features=with_features).process(records_of(values))
    return [message["value"] for message in outputs.decisions]


def decided_at(time_ms: int, number: int = 0) -> bytes:
    decision = orjson.loads(decisions(1)[0])
    return orjson.dumps(decision | {"decided_at": time_ms, "event_id": f"e{number}"})


def ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000)


def as_decision(row: dict[str, Any], *, with_features: bool) -> dict[str, Any]:
    """A row as the decision that it was."""
    found = {
        "schema": "tidegate.decision.v1",
        "event_time": ms(row["event_time"]),
        "decided_at": ms(row["decided_at"]),
        "source": {part: row[f"source_{part}"] for part in ("topic", "partition", "offset")},
        "model": {part: row[f"model_{part}"] for part in ("name", "version", "sha256")},
        "policy": {part: row[f"policy_{part}"] for part in ("name", "version")},
    }
    names = ("decision_id", "event_id", "decision", "risk_score", "probability", "feature_set", "rules", "reasons")
    found |= {name: row[name] for name in (*names, "inexact", "degraded")}
    if with_features:
        found["features"] = {name: row[name] for name in SPEC.names}
    return found


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("with_features", [True, False])
def test_a_row_says_all_that_its_decision_says(*, with_features: bool) -> None:
    values = decisions(with_features=with_features)
    rows, summary = exported([Written(value) for value in values])
    told = [orjson.loads(value) for value in values]
    assert [as_decision(row, with_features=with_features) for row in rows] == told
    assert {decision["decision"] for decision in told} > {"approve"}
    assert any(decision["reasons"] for decision in told)
    assert any(decision["rules"] for decision in told)
    assert any(decision["degraded"] for decision in told)
    if not with_features:
        assert all(row[name] is None for row in rows for name in SPEC.names)
    assert summary == AuditSummary(records=60, decisions=60, with_features=60 * with_features)


def test_a_decision_without_a_model_is_a_row_without_a_probability() -> None:
    decision = orjson.loads(decisions(1)[0]) | {"probability": None, "degraded": ["rules_only"]}
    (row,), summary = exported([Written(orjson.dumps(decision))])
    assert (row["probability"], row["degraded"]) == (None, ["rules_only"])
    assert summary.unreadable == 0


def test_the_columns_have_types_that_others_read() -> None:
    exported([Written(decided_at(DECIDED_AT))])
    schema = pq.read_schema("d.parquet")
    assert schema.names == audit_schema(SPEC).names
    assert schema.field("decided_at").type == pa.timestamp("ms", "UTC")
    assert {schema.field(name).type for name in SPEC.names} == {pa.float64()}
    (row,) = pq.read_table("d.parquet").to_pylist()
    assert row["decided_at"] == datetime.fromtimestamp(DECIDED_AT / 1_000, UTC)


def test_the_time_at_which_it_was_made_says_whether_a_decision_is_in_the_span() -> None:
    """decided at   from-1   from .. to-1   to        whatever the timestamps of their records say"""
    times = [DECIDED_AT - 1, DECIDED_AT, DECIDED_AT + 9, DECIDED_AT + 10]
    records = [Written(decided_at(time, number), time_ms=5) for number, time in enumerate(times)]
    for span, expected in (
        (Span(DECIDED_AT, DECIDED_AT + 10), ["e1", "e2"]),
        (Span(DECIDED_AT), ["e1", "e2", "e3"]),
        (Span(None, DECIDED_AT), ["e0"]),
        (ALWAYS, ["e0", "e1", "e2", "e3"]),
    ):
        rows, summary = exported(records, span)
        assert [row["event_id"] for row in rows] == expected
        assert (summary.records, summary.decisions) == (4, len(expected))


def test_a_partition_is_left_only_where_no_clock_can_be_so_wrong() -> None:
    to = DECIDED_AT
    late = to + CLOCKS_APART_MS_MAX
    records = [
        Written(decided_at(late - 1, 0), place=0),
        Written(decided_at(to - 1, 1), place=0),
        Written(decided_at(late, 2), place=0),
        Written(decided_at(to - 1, 3), place=0),
        Written(decided_at(to - 1, 4), place=1),
    ]
    rows, summary = exported(records, Span(None, to))
    assert [row["event_id"] for row in rows] == ["e1", "e4"]
    assert summary.records == 4


@pytest.mark.parametrize(
    "content",
    [None, b"", b"{}", b"\xff", b'{"schema":"tidegate.alert.v1"}', decisions(1)[0][:-1]],
)
def test_what_is_no_decision_is_counted_and_named(content: bytes | None) -> None:
    good = decided_at(DECIDED_AT)
    records = [Written(good), Written(content, at=7, place=2), Written(content, at=9, place=2), Written(good)]
    rows, summary = exported(records)
    assert len(rows) == summary.decisions == 2
    assert summary.unreadable == 2
    assert summary.first_unreadable.startswith("partition 2, offset 7: ")


@pytest.mark.parametrize("change", [{"decision": "maybe"}, {"risk_score": "7"}, {"schema": "v2"}, {"model": None}])
def test_a_decision_that_is_not_as_we_write_it_is_none(change: dict[str, Any]) -> None:
    rows, summary = exported([Written(orjson.dumps(orjson.loads(decided_at(DECIDED_AT)) | change))])
    assert (rows, summary.unreadable) == ([], 1)


def test_what_is_no_decision_is_of_the_span_by_its_record() -> None:
    records = [Written(b"{}", at=at, time_ms=DECIDED_AT + at) for at in range(5)]
    _, summary = exported(records, Span(DECIDED_AT + 1, DECIDED_AT + 3))
    assert (summary.records, summary.unreadable) == (5, 2)
    assert summary.first_unreadable.startswith("partition 0, offset 1: ")


def test_inputs_of_another_feature_set_are_counted() -> None:
    decision = orjson.loads(decided_at(DECIDED_AT))
    other = decision | {"features": {"event.amount": 1.5, "card.count.3h": 2.0}, "feature_set": "other"}
    rows, summary = exported([Written(orjson.dumps(decision)), Written(orjson.dumps(other))])
    assert summary.other_features == 1
    assert (rows[1]["event.amount"], rows[1]["card.count.1h"], rows[1]["feature_set"]) == (1.5, None, "other")


def test_batches_and_row_groups_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.audit.BATCH_DECISIONS", 7)
    monkeypatch.setattr("engine.table_file.ROW_GROUP_ROWS_MAX", 20)
    values = decisions()
    rows, _ = exported([Written(value) for value in values])
    assert [row["event_id"] for row in rows] == [orjson.loads(value)["event_id"] for value in values]
    assert pq.ParquetFile("d.parquet").num_row_groups == 3


def test_a_broken_export_leaves_no_file_that_looks_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.audit.BATCH_DECISIONS", 7)
    topic = Topic([Written(value) for value in decisions()])

    def broken() -> Iterator[Written]:
        yield from topic.records[:30]
        raise FatalError("gone")

    topic.read = broken  # type: ignore[method-assign]
    Path("d.parquet").write_bytes(b"before")
    with pytest.raises(FatalError):
        export(CONFIG, topic, Path("d.parquet"), ALWAYS)  # type: ignore[arg-type]
    assert [path.name for path in Path().iterdir()] == ["d.parquet"]
    assert Path("d.parquet").read_bytes() == b"before"


@pytest.mark.parametrize(("start", "end"), [("2025-03-02", "2025-03-01"), ("2025-03-01", "2025-03-01")])
def test_a_span_without_time_is_refused(run: Run, start: str, end: str) -> None:
    ended = run("audit", "export", "--from", start, "--to", end, "--out", "d.parquet")
    assert ended.exit_code == ConfigError.exit_code
    assert "--from must be before --to" in refused(ended)
