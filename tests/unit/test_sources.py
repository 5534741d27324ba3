"""Files as sources: every kind yields the same JSON values, in bounded batches, with coordinates."""

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.config import parse_config
from engine.decode import Decoder
from engine.errors import ConfigError
from engine.events import Records
from engine.sources import Coordinates, Progress, read_records

EVENTS = [
    {"event_id": f"e{i}", "event_time": 1_735_689_600_000 + i, "amount": f"{i}.05", "card": "4000"} for i in range(10)
]


def write_csv(path: Path) -> None:
    rows = [",".join(EVENTS[0]), *(",".join(str(cell) for cell in event.values()) for event in EVENTS)]
    path.write_text("\n".join(rows) + "\n")


def write_json_lines(path: Path) -> None:
    path.write_bytes(b"\r\n".join(orjson.dumps(event) for event in EVENTS))


def write_parquet(path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(EVENTS), path, row_group_size=4)


WRITERS: dict[str, Callable[[Path], None]] = {
    "a.csv": write_csv,
    "a.jsonl": write_json_lines,
    "a.NDJSON": write_json_lines,
    "a.parquet": write_parquet,
}


def written(folder: Path, name: str) -> Path:
    path = folder / name
    WRITERS[name](path)
    return path


def parsed(batches: list[Records]) -> list[Any]:
    return [orjson.loads(value or b"") for records in batches for value in records.values]


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_gives_the_same_events(tmp_path: Path, name: str) -> None:
    config = parse_config(
        '[mapping]\ncurrency = { default = "EUR" }\n[entities.card]\nwindows = ["1h"]\naggregates = ["count"]',
        Path(),
        {},
    )
    decoder = Decoder(config, config.feature_spec(), None)
    (records,) = read_records([written(tmp_path, name)], 100)
    batch, dead_letters = decoder.decode(records)
    assert dead_letters == []
    assert batch.event_ids == [event["event_id"] for event in EVENTS]
    assert batch.times_ms.tolist() == [event["event_time"] for event in EVENTS]
    assert batch.amounts_minor.tolist() == [100 * i + 5 for i in range(10)]
    assert batch.keys["card"] == ["4000"] * 10


@pytest.mark.parametrize("name", WRITERS)
def test_batches_are_bounded_and_rows_numbered(tmp_path: Path, name: str) -> None:
    first, second = written(tmp_path, name), tmp_path / f"b{Path(name).suffix}"
    second.write_bytes(first.read_bytes())
    batches = list(read_records([first, second], 4))
    assert max(len(records) for records in batches) == 4
    coordinates = [
        (records.topic, partition, offset)
        for records in batches
        for partition, offset in zip(records.partitions.tolist(), records.offsets.tolist(), strict=True)
    ]
    assert coordinates == [(path.name, at, row) for at, path in enumerate((first, second)) for row in range(10)]
    assert all((records.record_times_ms == -1).all() for records in batches)


@pytest.mark.parametrize("name", WRITERS)
def test_progress_grows_to_the_total(tmp_path: Path, name: str) -> None:
    paths = [written(tmp_path, name)] * 2
    progress = Progress.of(paths)
    seen = [progress.bytes_read for _ in read_records(paths, 3, progress)]
    assert seen == sorted(seen)
    assert seen[0] > 0
    assert progress.bytes_read == progress.bytes_total == 2 * paths[0].stat().st_size


def test_csv_cells_are_text_and_empty_ones_are_absent(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('\ufeffid,amount,note\n1,007.50,"a ""b"",\nc"\n\n2,,x\n3,1\n4,1,2,3\n', "utf-8")
    assert parsed(list(read_records([path], 10))) == [
        {"id": "1", "amount": "007.50", "note": 'a "b",\nc'},
        {"id": "2", "note": "x"},
        ["3", "1"],  # of another length than the header: kept for the dead letter
        ["4", "1", "2", "3"],
    ]


def test_json_lines_are_passed_on_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n\n  \nnot json\n\xff\n{"b":2}')
    (records,) = read_records([path], 10)
    assert records.values == [b'{"a": 1}', b"not json", b"\xff", b'{"b":2}']


def test_parquet_types_become_json(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    moment = dt.datetime(2025, 1, 1, 12, 0, 0, 123_456)
    table = pa.table(
        {
            "decimal": pa.array([Decimal("12.340"), None], pa.decimal128(12, 3)),
            "date": pa.array([moment.date(), None]),
            "naive": pa.array([moment, None], pa.timestamp("us")),
            "zoned": pa.array([moment, None], pa.timestamp("ms", "UTC")),
            "nanoseconds": pa.array([1_735_732_800_123_456_789, None], pa.timestamp("ns")),
            "bytes": pa.array([b"key", None]),
            "float": pa.array([0.1, float("nan")]),
            "big": pa.array([2**64 - 1, None], pa.uint64()),
            "nested": pa.array([{"a": [1, None]}, None]),
        }
    )
    pq.write_table(table, path)
    assert parsed(list(read_records([path], 10))) == [
        {
            "decimal": "12.340",
            "date": "2025-01-01",
            "naive": "2025-01-01T12:00:00.123456",
            "zoned": "2025-01-01T12:00:00.123000+00:00",
            "nanoseconds": "2025-01-01T12:00:00.123456",
            "bytes": "key",
            "float": 0.1,
            "big": 2**64 - 1,
            "nested": {"a": [1, None]},
        },
        {"float": None},
    ]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"", "a.txt: events are read from files that end in .csv, .jsonl, .ndjson, .parquet"),
        ("a.csv", None, "a.csv: there is no such file"),
        ("a.csv", b"id,id\n1,2\n", "a.csv:1: a column's name stands there twice"),
        ("a.csv", b"id\n1\n\xff\n", "a.csv: not UTF-8, somewhere after line 0"),
        ("a.csv", b'id\n1\n"' + b"x" * 200_000, "a.csv:3: not CSV: field larger than field limit"),
        ("a.parquet", b"PAR1", "a.parquet: not readable as Parquet: "),
        ("a.parquet", b"", "a.parquet: not readable as Parquet: "),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError) as raised:
        list(read_records([tmp_path / name], 10))
    assert str(raised.value).startswith(f"{tmp_path}/{said}")


@pytest.mark.parametrize("content", [b"", b"id,amount\n"])
def test_a_csv_file_without_rows(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    assert list(read_records([tmp_path / "a.csv"], 10)) == []


def test_a_missing_file_is_found_before_the_first_row_of_another_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        next(read_records([written(tmp_path, "a.csv"), tmp_path / "b.csv"], 1))


# --- Kafka coordinates -----------------------------------------------------------------------------------------

PLACES = [{"partition": i % 3, "offset": 10 * i, "written": 1_735_689_600_000 + i} for i in range(len(EVENTS))]
PLACED = [{**event, **place} for event, place in zip(EVENTS, PLACES, strict=True)]


@pytest.mark.parametrize("name", WRITERS)
def test_coordinates_are_read_from_the_fields_that_hold_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Of every kind of file, as numbers and as text; the rows themselves stay as they are."""
    plain = parsed(list(read_records([written(tmp_path, name)], 4)))
    monkeypatch.setattr(f"{__name__}.EVENTS", PLACED)
    coordinates = Coordinates("partition", "offset", "written")
    batches = list(read_records([written(tmp_path, name)], 4, coordinates=coordinates))
    columns = [(b.partitions.tolist(), b.offsets.tolist(), b.record_times_ms.tolist()) for b in batches]
    assert [place for batch in columns for place in zip(*batch, strict=True)] == [
        tuple(place.values()) for place in PLACES
    ]
    assert [{name: row[name] for name in EVENTS[0] if name not in PLACES[0]} for row in parsed(batches)] == plain


def test_what_is_not_asked_for_stays_the_place_in_the_files(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"at": "2025-01-01T00:00:01Z"}\n{"at": "1735689602000"}\n{"at": 1735689603000.0}')
    batches = list(read_records([path, path], 2, coordinates=Coordinates(timestamp="at")))
    assert [list(zip(b.partitions, b.offsets, strict=True)) for b in batches] == [
        [(0, 0), (0, 1)], [(0, 2)], [(1, 0), (1, 1)], [(1, 2)],
    ]  # fmt: skip
    assert [b.record_times_ms.tolist() for b in batches[:2]] == [
        [1_735_689_601_000, 1_735_689_602_000],
        [1_735_689_603_000],
    ]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (b'{"offset": 1}', "Object missing required field `at`"),
        (b'{"offset": 1, "at": "later"}', "Invalid isoformat string: 'later'"),
        (b'{"offset": -1, "at": 5}', "Expected `int` >= 0 - at `$.offset`"),
        (b'{"offset": 9223372036854775807, "at": 5}', "Expected `int` <= 9223372036854775806 - at `$.offset`"),
        (b"no json", "JSON is malformed: "),
        (b'{"offset": "\xff", "at": 5}', ""),
    ],
)
def test_a_row_whose_coordinates_cannot_be_read_is_named(tmp_path: Path, row: bytes, said: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"offset": 1, "at": 5}\n' + row)
    with pytest.raises(ConfigError) as raised:
        list(read_records([path], 10, coordinates=Coordinates(offset="offset", timestamp="at")))
    assert str(raised.value).startswith(f"{path}: row 2: no offset, at can be read there: {said}")
