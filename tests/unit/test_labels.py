"""Labels as of a moment: the newest that was known by then, of whatever file, in little memory.

labelled_at    1        2        3        4
e1             0        1
e2                      1                 0
                             |
                          as of: e1 and e2 are 1
"""

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.errors import ConfigError
from engine.labels import Labels, read_labels
from engine.sources import Progress
from features.words import key_hashes

DAY_MS = 86_400_000
START_MS = 1_735_689_600_000


def day(number: int) -> int:
    return START_MS + number * DAY_MS


def row(event_id: Any, label: Any, labelled_at: Any) -> dict[str, Any]:
    return {"event_id": event_id, "label": label, "labelled_at": labelled_at, "label_source": "chargeback"}


ROWS = [
    row("e1", 0, day(1)),
    row("e1", 1, day(2)),
    row("e2", 0, day(4)),
    row("e2", 1, day(2)),
    row("e3", 1, day(4)),
    row("e4", 1, day(3)),
    row("e4", 0, day(3)),
]


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("\n".join([",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]))


def write_json_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_bytes(b"\n".join(orjson.dumps(row) for row in rows))


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)


WRITERS: dict[str, Callable[[Path, list[dict[str, Any]]], None]] = {
    "l.csv": write_csv,
    "l.jsonl": write_json_lines,
    "l.parquet": write_parquet,
}


def written(folder: Path, rows: list[dict[str, Any]], name: str = "l.jsonl") -> Path:
    path = folder / name
    WRITERS[name](path, rows)
    return path


def of(labels: Labels, *event_ids: str) -> list[tuple[int, int] | None]:
    """Label and time of each event."""
    columns = labels.of(key_hashes(event_ids, 0))
    return [(label, at) if known else None for label, at, known in zip(*map(np.ndarray.tolist, columns), strict=True)]


@pytest.mark.parametrize("name", WRITERS)
def test_the_newest_label_that_was_known_counts(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, ROWS, name)
    expected: dict[int, list[tuple[int, int] | None]] = {
        0: [None, None, None, None],
        1: [(0, day(1)), None, None, None],
        2: [(1, day(2)), (1, day(2)), None, None],
        3: [(1, day(2)), (1, day(2)), None, (0, day(3))],
        4: [(1, day(2)), (0, day(4)), (1, day(4)), (0, day(3))],
    }
    for as_of, found in expected.items():
        labels = read_labels(path, day(as_of))
        assert of(labels, "e1", "e2", "e3", "e4") == found
        assert of(labels, "e0", "") == [None, None]
        assert labels.read == len(ROWS)
        assert labels.later == sum(entry["labelled_at"] > day(as_of) for entry in ROWS)
        assert len(labels) == sum(entry is not None for entry in found)


def test_a_label_counts_from_the_millisecond_it_was_given_on(tmp_path: Path) -> None:
    path = written(tmp_path, [row("e1", 1, day(1))])
    assert of(read_labels(path, day(1) - 1), "e1") == [None]
    assert of(read_labels(path, day(1)), "e1") == [(1, day(1))]


@pytest.mark.parametrize(
    ("label", "expected"),
    [(0, 0), (1, 1), (False, 0), (True, 1), (1.0, 1), ("0", 0), ("1", 1), ("True", 1), ("false", 0)],
)
def test_labels_as_they_are_written(tmp_path: Path, label: Any, expected: int) -> None:
    assert of(read_labels(written(tmp_path, [row("e1", label, day(1))]), day(2)), "e1") == [(expected, day(1))]


def test_times_and_ids_as_they_are_written(tmp_path: Path) -> None:
    moment = dt.datetime.fromtimestamp(day(1) / 1_000, dt.UTC)
    rows = [
        row("e1", 1, day(1)),
        row("e2", 1, str(day(1))),
        row("e3", 1, moment.isoformat()),
        row("e4", 1, "2025-01-02"),
        row(5, 1, float(day(1))),
    ]
    labels = read_labels(written(tmp_path, rows), day(1))
    assert of(labels, "e1", "e2", "e3", "e4", "5") == [(1, day(1))] * 5
    path = tmp_path / "t.parquet"
    columns = {"event_id": [5], "label": [True], "labelled_at": pa.array([moment], pa.timestamp("ns", "UTC"))}
    pq.write_table(pa.table(columns), path)
    assert of(read_labels(path, day(1)), "5") == [(1, day(1))]


def test_a_row_without_a_label_says_nothing(tmp_path: Path) -> None:
    rows = [row("e1", None, day(1)), row("e2", None, None), row("e3", "", day(1)), row("e4", 1, day(1))]
    labels = read_labels(written(tmp_path, rows), day(2))
    assert of(labels, "e1", "e2", "e3", "e4") == [None, None, None, (1, day(1))]
    assert labels.read == 1


def test_no_labels_at_all(tmp_path: Path) -> None:
    (tmp_path / "l.jsonl").write_bytes(b"")
    labels = read_labels(tmp_path / "l.jsonl", day(1))
    assert (labels.read, len(labels), of(labels, "e1")) == (0, 0, [None])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"label": 1, "labelled_at": day(1)}, "Object missing required field `event_id`"),
        (row("e1", 2, day(1)), "label 2 must be 0, 1, false or true"),
        (row("e1", "fraud", day(1)), "label 'fraud' must be 0, 1, false or true"),
        (row("e1", 1, None), "labelled_at is missing"),
        (row("e1", 1, "yesterday"), "Invalid isoformat string: 'yesterday'"),
        # Seconds, read as milliseconds, would make every label known since 1970.
        (row("e1", 1, day(1) // 1_000), f"labelled_at {day(1) // 1_000} must be in milliseconds"),
        (row(1.5, 1, day(1)), "Expected `int | str`, got `float`"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(tmp_path: Path, wrong: dict[str, Any], said: str) -> None:
    path = written(tmp_path, [row("e0", 1, day(1)), wrong])
    with pytest.raises(ConfigError) as raised:
        read_labels(path, day(1))
    assert str(raised.value).startswith(f"{path}: row 2: {said}")


def test_labels_are_held_in_bounded_memory_and_progress_is_told(tmp_path: Path) -> None:
    path = written(tmp_path, [row(f"e{at}", at % 2, day(1)) for at in range(20_000)])
    seen: list[int] = []
    labels = read_labels(path, day(1), Progress.of([path]), seen.append)
    arrays = (labels._hashes, labels._labels, labels._times_ms)
    assert sum(array.nbytes for array in arrays) == 17 * 20_000
    assert seen[-1] == 20_000
    assert len(seen) > 1
    assert of(labels, *(f"e{at}" for at in range(20_000))) == [(at % 2, day(1)) for at in range(20_000)]
