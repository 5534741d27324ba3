"""Training sets from files: the numbers of the stream, exactness beside them, and labels as they were known."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import engine.table_file
from engine.backfill import backfill
from engine.config import Config, default_profile
from engine.errors import ConfigError
from engine.events import Records
from features.words import text_word
from loadtest.render import render
from loadtest.settings import TrafficSettings
from loadtest.traffic import generate
from tests.commands import STATE, Run, lines, refused
from tests.pipelines import START_MS, event, json_of, profile, records_of

EVENTS = 600
DAY_MS = 86_400_000


def stream() -> list[bytes]:
    """Some late, some twice, some poison; few cards, so that small rings overflow."""
    settings = TrafficSettings(cards=20, merchants=5, late_share=0.05, poison_share=0.03)
    values = render(generate(settings, EVENTS))
    values[50::97] = values[13::97][: len(values[50::97])]
    return values


def rows_of(path: str | Path) -> list[dict[str, Any]]:
    return pq.read_table(path).to_pylist()


def write_config(extra: str = "", state: str = "") -> None:
    Path("tidegate.toml").write_text(f"{default_profile()}\n{STATE}{state}\n{extra}")


# --- the same numbers ------------------------------------------------------------------------------------------


def test_rows_are_the_decisions_of_a_replay_bit_by_bit(run: Run) -> None:
    """Features, and what of them is not exact, as a decision carries them; floats through their shortest text."""
    write_config(state="ring_events_max = 4")
    Path("a.jsonl").write_bytes(b"\n".join(stream()))
    assert run("replay", "a.jsonl", "--out", "d.jsonl", "--dead-letters", "x.jsonl", "--features").exit_code == 0
    ended = run("features", "backfill", "a.jsonl", "--out", "t.parquet", "--dead-letters", "y.jsonl", "--json")
    assert ended.exit_code == 0
    summary = orjson.loads(ended.out)
    decisions, rows = lines("d.jsonl"), rows_of("t.parquet")
    assert [row["event_id"] for row in rows] == [decision["event_id"] for decision in decisions]
    assert [row["event_time"] for row in rows] == [decision["event_time"] for decision in decisions]
    inexact_seen = set()
    for row, decision in zip(rows, decisions, strict=True):
        assert {name: row[name] for name in decision["features"]} == decision["features"]
        exact = {name for name in row if ".exact." in name}
        inexact = {name.replace(".exact.", ".") for name in exact if not row[name]}
        assert inexact == set(decision["inexact"])
        inexact_seen |= inexact
        assert set(row) == {"event_id", "event_time"} | set(decision["features"]) | exact
    assert {"card.7d", "card.all", "merchant.24h"} <= inexact_seen
    assert Path("x.jsonl").read_bytes() == Path("y.jsonl").read_bytes()
    assert summary["rows"] == len(rows)
    assert summary["dead_letters"] == len(lines("y.jsonl")) > 0
    assert summary["duplicates"] > 0
    assert summary["events"] == summary["rows"] + summary["dead_letters"] + summary["duplicates"]


def test_every_entity_with_a_value_that_has_no_window_says_whether_that_is_exact(run: Run) -> None:
    write_config()
    Path("a.jsonl").write_bytes(b"\n".join(stream()))
    assert run("features", "backfill", "a.jsonl", "--out", "t.parquet").exit_code == 0
    schema = pq.read_schema("t.parquet")
    assert schema.field("event_id").type == pa.string()
    assert schema.field("event_time").type == pa.int64()
    exact = [name for name in schema.names if ".exact." in name]
    assert [name for name in exact if name.endswith(".all")] == ["card.exact.all"]
    assert [name for name in exact if name.startswith("device")] == [
        f"device.exact.{window}" for window in ("1m", "10m", "1h", "24h")
    ]
    assert {schema.field(name).type for name in exact} == {pa.bool_()}
    names = schema.names[2 : -len(exact)]
    assert names == list(profile().feature_spec().names)
    assert {schema.field(name).type for name in names} == {pa.float64()}


def test_what_was_done_is_said(run: Run) -> None:
    Path("a.jsonl").write_bytes(b"\n".join(json_of(event(number)) for number in (1, 2, 2)) + b"\n{")
    ended = run("features", "backfill", "a.jsonl", "--out", "t.parquet")
    assert ended.exit_code == 0
    assert ended.out.startswith("4 events: 2 rows, 1 dead letters, 1 duplicates in ")
    assert sorted(path.name for path in Path().iterdir()) == ["a.jsonl", "t.parquet"]


def test_a_record_timestamp_is_taken_from_the_field_that_holds_it(run: Run) -> None:
    """So that an event too far from it is refused as it was online."""
    values = [
        json_of({**event(1), "written": START_MS + 8 * DAY_MS}),
        json_of({**event(2), "written": "2025-01-01T00:00:05Z"}),
    ]
    Path("a.jsonl").write_bytes(b"\n".join(values))
    arguments = ("features", "backfill", "a.jsonl", "--out", "t.parquet", "--json")
    assert orjson.loads(run(*arguments).out)["rows"] == 2
    assert orjson.loads(run(*arguments, "--timestamp-field", "written").out)["rows"] == 1
    assert "a.jsonl: row 1: no other can be read there: " in refused(run(*arguments, "--timestamp-field", "other"))


def test_files_are_one_stream_unless_rows_say_their_partition(run: Run) -> None:
    """A duplicate in the next file is one, but not one in another partition."""
    Path("a.jsonl").write_bytes(json_of({**event(1), "p": 0}))
    Path("b.jsonl").write_bytes(json_of({**event(1), "p": 0}) + b"\n" + json_of({**event(1), "p": "1"}))
    arguments = ("features", "backfill", "a.jsonl", "b.jsonl", "--out", "t.parquet", "--json")
    for more, rows in (((), 1), (("--partition-field", "p"), 2)):
        summary = orjson.loads(run(*arguments, *more).out)
        assert (summary["rows"], summary["duplicates"]) == (rows, 3 - rows)


# --- keys ------------------------------------------------------------------------------------------------------


def test_keys_are_the_hashes_under_which_state_holds_the_entities(run: Run) -> None:
    numbers = ("4000123412341234", "4000123412341234", "4000999999999999")
    values = [json_of(event(at, card=card)) for at, card in enumerate(numbers)]
    Path("a.jsonl").write_bytes(b"\n".join([*values, json_of(event(3, device=...))]))
    assert run("features", "backfill", "a.jsonl", "--out", "t.parquet", "--keys").exit_code == 0
    rows, schema = rows_of("t.parquet"), pq.read_schema("t.parquet")
    names = [name for name in schema.names if name.endswith(".key")]
    assert names == [f"{entity.name}.key" for entity in profile().feature_spec().entities]
    assert {schema.field(name).type for name in names} == {pa.uint64()}
    assert [row["card.key"] for row in rows[:3]] == [text_word("card", number) for number in numbers]
    assert [row["device.key"] for row in rows] == [text_word("device", "d-1")] * 3 + [None]
    assert [field.name for field in schema if field.type == pa.string()] == ["event_id"]
    assert sum(row["card.count.24h"] for row in rows[:2]) == 3


def test_without_being_asked_no_column_says_whose_event_it_was(run: Run) -> None:
    Path("a.jsonl").write_bytes(json_of(event(1)))
    run("features", "backfill", "a.jsonl", "--out", "plain.parquet")
    run("features", "backfill", "a.jsonl", "--out", "keyed.parquet", "--keys")
    plain, keyed = rows_of("plain.parquet"), rows_of("keyed.parquet")
    assert not [name for name in plain[0] if name.endswith(".key")]
    assert [{name: value for name, value in keyed[0].items() if not name.endswith(".key")}] == plain


# --- bounded memory --------------------------------------------------------------------------------------------


def batches(values: list[bytes], size: int) -> Iterator[Records]:
    for at in range(0, len(values), size):
        part = values[at : at + size]
        yield records_of(part, offsets=range(at, at + len(part)))


def test_row_groups_are_bounded_and_hold_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, values = profile(), stream()
    backfill(batches(values, 100), config, tmp_path / "whole.parquet")
    monkeypatch.setattr(engine.table_file, "ROW_GROUP_ROWS_MAX", 150)
    backfill(batches(values, 7), config, tmp_path / "parts.parquet")
    with pq.ParquetFile(tmp_path / "parts.parquet") as file:
        sizes = [file.metadata.row_group(at).num_rows for at in range(file.metadata.num_row_groups)]
    assert len(sizes) > 3
    assert max(sizes) < 150 + 7
    assert rows_of(tmp_path / "parts.parquet") == rows_of(tmp_path / "whole.parquet")


def test_a_row_group_is_bounded_by_its_bytes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.table_file, "ROW_GROUP_BYTES_MAX", 100_000)
    backfill(batches(stream(), 50), profile(), tmp_path / "t.parquet")
    with pq.ParquetFile(tmp_path / "t.parquet") as file:
        groups = [file.metadata.row_group(at) for at in range(file.metadata.num_row_groups)]
        assert max(group.num_rows for group in groups) <= 100_000 // (8 * file.metadata.num_columns) + 50


@pytest.mark.parametrize("values", [[], [b"{"]], ids=["nothing", "no event"])
def test_without_an_event_there_is_a_file_without_rows(tmp_path: Path, values: list[bytes]) -> None:
    summary = backfill(batches(values, 10), profile(), tmp_path / "t.parquet")
    table = pq.read_table(tmp_path / "t.parquet")
    assert (summary.rows, len(table)) == (0, 0)
    assert "card.count.24h" in table.column_names


# --- whole or not at all ---------------------------------------------------------------------------------------


class StoppedError(Exception):
    """Somebody pressed Ctrl-C."""


def interrupted(values: list[bytes]) -> Iterator[Records]:
    yield from batches(values, 100)
    raise StoppedError


def test_an_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        backfill(interrupted(stream()), profile(), tmp_path / "t.parquet")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_run_leaves_what_was_there_before(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"before")
    with pytest.raises(StoppedError):
        backfill(interrupted(stream()), profile(), tmp_path / "t.parquet")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("t.parquet", b"before")]
    backfill(batches(stream(), 100), profile(), tmp_path / "t.parquet")
    assert len(rows_of(tmp_path / "t.parquet")) > 0


@pytest.mark.parametrize("out", ["no/t.parquet", "."])
def test_an_output_that_cannot_be_written_is_named_before_anything_is_read(tmp_path: Path, out: str) -> None:
    def never() -> Iterator[Records]:
        raise AssertionError
        yield

    with pytest.raises(ConfigError, match=f"^{tmp_path / out} cannot be written: "):
        backfill(never(), profile(), tmp_path / out)


# --- labels ----------------------------------------------------------------------------------------------------


def write_events(count: int = 4) -> None:
    """Event n at the beginning of day n of 2025."""
    values = [json_of(event(number, event_time=START_MS + number * DAY_MS)) for number in range(count)]
    Path("a.jsonl").write_bytes(b"\n".join(values))


def write_labels(*rows: tuple[str, int, int]) -> None:
    """Event id, label, and the day it was given."""
    text = [
        orjson.dumps({"event_id": event_id, "label": label, "labelled_at": START_MS + day * DAY_MS})
        for event_id, label, day in rows
    ]
    Path("l.jsonl").write_bytes(b"\n".join(text))


def labels_of(run: Run, *arguments: str) -> list[tuple[str, int | None, int | None]]:
    """Event id, label and the day of the label in the training set."""
    ended = run("features", "backfill", "a.jsonl", "--out", "t.parquet", "--labels", "l.jsonl", *arguments)
    assert ended.exit_code == 0, ended.err
    return [
        (
            row["event_id"],
            row["label"],
            None if row["labelled_at"] is None else (row["labelled_at"] - START_MS) // DAY_MS,
        )
        for row in rows_of("t.parquet")
    ]


def test_labels_are_those_known_at_the_newest_event(run: Run) -> None:
    write_events()
    write_labels(("e0", 0, 1), ("e0", 1, 2), ("e1", 1, 3), ("e2", 1, 4), ("e9", 1, 2))
    assert labels_of(run) == [("e0", 1, 2), ("e1", 1, 3), ("e2", None, None), ("e3", None, None)]


def test_as_of_takes_another_moment(run: Run) -> None:
    write_events()
    write_labels(("e0", 0, 1), ("e0", 1, 2), ("e1", 1, 3), ("e2", 1, 40))
    expected = {
        "2025-01-01T23:59:59.999": [None, None, None],
        "2025-01-02": [0, None, None],
        "2025-01-03T01:00:00+01:00": [1, None, None],
        "2025-01-04": [1, 1, None],
        "2025-03-01": [1, 1, 1],
    }
    for as_of, labels in expected.items():
        assert [label for _, label, _ in labels_of(run, "--as-of", as_of)] == [*labels, None]


def test_what_became_of_the_labels_is_said(run: Run) -> None:
    write_events()
    write_labels(("e0", 1, 1), ("e1", 0, 2), ("e2", 1, 40), ("e9", 1, 2))
    ended = run("features", "backfill", "a.jsonl", "--out", "t.parquet", "--labels", "l.jsonl")
    assert ended.out.splitlines()[1] == (
        "2 rows have a label, as of 2025-01-04 00:00:00: of 4 labels 1 were given later"
    )
    ended = run("features", "backfill", "a.jsonl", "--out", "t.parquet", "--labels", "l.jsonl", "--json")
    figures = orjson.loads(ended.out)
    assert (figures["labelled"], figures["labels"], figures["labels_later"]) == (2, 4, 1)
    assert figures["as_of_ms"] == START_MS + 3 * DAY_MS


def test_label_columns_are_typed_and_only_there_where_labels_are(run: Run) -> None:
    write_events()
    write_labels()
    assert [label for _, label, _ in labels_of(run)] == [None] * 4
    schema = pq.read_schema("t.parquet")
    assert (schema.field("label").type, schema.field("labelled_at").type) == (pa.int8(), pa.int64())
    run("features", "backfill", "a.jsonl", "--out", "t.parquet")
    assert not {"label", "labelled_at"} & set(pq.read_schema("t.parquet").names)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--as-of", "2025-01-01"), "--as-of says which labels count: it needs --labels"),
        (("--labels", "no.csv"), "no.csv: there is no such file"),
        (("--labels", "a.jsonl"), "a.jsonl: row 1: "),
    ],
)
def test_what_is_wrong_with_labels_is_said_in_one_line(run: Run, arguments: tuple[str, ...], said: str) -> None:
    write_events()
    Path("a.jsonl").write_bytes(b'{"event_id": "e1", "label": 7, "labelled_at": 5}')
    ended = run("features", "backfill", "a.jsonl", "--out", "t.parquet", *arguments)
    assert said in refused(ended)
    assert ended.exit_code == 2
    assert not Path("t.parquet").exists()


def test_a_time_that_is_none_is_refused(run: Run) -> None:
    write_events()
    ended = run("features", "backfill", "a.jsonl", "--out", "t.parquet", "--labels", "l.jsonl", "--as-of", "soon")
    assert ended.exit_code == 2
    assert "'soon' is not a time in ISO 8601" in ended.err


def test_the_state_of_a_worker_is_neither_used_nor_touched(run: Run) -> None:
    write_events()
    write_config("")
    for _ in range(2):
        run("features", "backfill", "a.jsonl", "--out", "t.parquet")
        assert [row["card.count.7d"] for row in rows_of("t.parquet")] == [1, 2, 3, 4]
    assert not Path("state").exists()


def test_config_is_that_of_the_caller(tmp_path: Path) -> None:
    config: Config = profile()
    summary = backfill(batches(stream(), 100), config, tmp_path / "t.parquet")
    assert np.isfinite(summary.rows)
    assert config.state.dir == "state"
