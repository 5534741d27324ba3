"""`tidegate replay` of what was a topic of several partitions: the very decisions that a worker made of it.

partition 0   0 1 2 .     . . 3 4 5
partition 1         0 1 2 .             a worker takes in runs of each; between two of its transactions, offsets
partition 2           .   0 1 2 . . 4   are missing (there the topic holds its commit markers)
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.config import default_profile
from engine.emit import Outputs
from engine.events import Records
from loadtest.render import render_valid
from loadtest.settings import TrafficSettings
from loadtest.traffic import generate
from tests.commands import STATE, Run, lines, refused
from tests.pipelines import pipeline_of, profile

EVENTS = 900
PARTITIONS = 3
DAY_MS = 86_400_000
TOPIC = "payments"
COORDINATES = ("--partition-field", "kafka_p", "--offset-field", "kafka_o", "--timestamp-field", "kafka_t")


@dataclass
class Taken:
    """What a worker took in, in that order."""

    values: list[bytes]
    partitions: list[int]
    offsets: list[int]
    times_ms: list[int]

    def rows(self) -> list[dict[str, Any]]:
        """As they would be archived: the event's fields, and where it was."""
        places = zip(self.values, self.partitions, self.offsets, self.times_ms, strict=True)
        return [
            orjson.loads(value) | {"kafka_p": partition, "kafka_o": offset, "kafka_t": time_ms}
            for value, partition, offset, time_ms in places
        ]


@pytest.fixture(scope="module")
def taken() -> Taken:
    """Runs of 1 to 40 records; event ids that come again in their partition and in others; records written late."""
    rng = np.random.default_rng(3)
    values = render_valid(generate(TrafficSettings(cards=30, merchants=10), EVENTS))
    partitions: list[int] = []
    while len(partitions) < EVENTS:
        partitions += [int(rng.integers(PARTITIONS))] * int(rng.integers(1, 40))
    taken = Taken(values, partitions[:EVENTS], [], [])
    following = [0] * PARTITIONS
    for row, partition in enumerate(taken.partitions):
        if row % 31 == 30:
            taken.values[row] = taken.values[row - 30]
        if row and partition != taken.partitions[row - 1]:
            following[partition] += 1
        taken.offsets.append(following[partition])
        following[partition] += 1
        event_ms = orjson.loads(taken.values[row])["event_time"]
        taken.times_ms.append(event_ms + (8 * DAY_MS if row % 50 == 49 else 500))
    return taken


def decided_online(taken: Taken) -> tuple[list[Any], list[tuple[int, int, str]]]:
    """What the pipeline decides of micro-batches as a worker polls them, and its dead letters."""
    pipeline = pipeline_of(profile(), with_features=True)
    found = Outputs()
    for at in range(0, EVENTS, 71):
        part = slice(at, at + 71)
        outputs = pipeline.process(
            Records(
                TOPIC,
                list(taken.values[part]),
                np.array(taken.partitions[part]),
                np.array(taken.offsets[part]),
                np.array(taken.times_ms[part]),
            )
        )
        found.decisions += outputs.decisions
        found.dead_letters += outputs.dead_letters
    letters = [(letter.partition, letter.offset, letter.reason) for letter in found.dead_letters]
    return [orjson.loads(message["value"]) for message in found.decisions], letters


def write_parquet(rows: list[dict[str, Any]], name: str) -> Path:
    path = Path(f"{name}.parquet")
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=100)
    return path


def write_lines(rows: list[dict[str, Any]], name: str) -> Path:
    path = Path(f"{name}.jsonl")
    path.write_bytes(b"\n".join(orjson.dumps(row) for row in rows))
    return path


WRITERS = pytest.mark.parametrize("write", [write_parquet, write_lines])


def replayed(run: Run, *arguments: str | Path) -> tuple[list[Any], list[tuple[int, int, str]]]:
    thresholds = "challenge = 2\nreview = 5\ndecline = 900"
    Path("tidegate.toml").write_text(f"{default_profile()}\n{thresholds}\n{STATE}")
    ended = run("replay", *arguments, "--out", "d.jsonl", "--dead-letters", "x.jsonl", "--features")
    assert ended.exit_code == 0, ended.err
    letters = [
        (letter["source"]["partition"], letter["source"]["offset"], letter["reason"]) for letter in lines("x.jsonl")
    ]
    return [decision | {"decided_at": 0} for decision in lines("d.jsonl")], letters


@WRITERS
def test_records_with_their_coordinates_get_the_decisions_of_the_worker(
    run: Run, taken: Taken, write: Callable[..., Path]
) -> None:
    expected, letters = decided_online(taken)
    assert {reason for _, _, reason in letters} == {"event_time_past"}
    assert EVENTS - len(expected) - len(letters) > 0  # some are duplicates
    assert len({decision["event_id"] for decision in expected}) < len(expected)  # and some are not, elsewhere
    path = write(taken.rows(), "archive")
    assert replayed(run, path, *COORDINATES, "--topic", TOPIC) == (expected, letters)


@WRITERS
def test_an_archive_may_be_cut_into_files_anywhere(run: Run, taken: Taken, write: Callable[..., Path]) -> None:
    rows = taken.rows()
    paths = [write(rows[:333], "a"), write(rows[333:], "b")]
    assert replayed(run, *paths, *COORDINATES, "--topic", TOPIC) == decided_online(taken)


def test_in_another_order_than_the_workers_other_decisions_are_made(run: Run, taken: Taken) -> None:
    """So that what is compared above depends on it."""
    rows = sorted(taken.rows(), key=lambda row: (row["kafka_p"], row["kafka_o"]))
    decisions, _ = replayed(run, write_lines(rows, "archive"), *COORDINATES, "--topic", TOPIC)
    by_id = {decision["decision_id"]: decision for decision in decisions}
    assert any(by_id[decision["decision_id"]] != decision for decision in decided_online(taken)[0])


def test_without_a_topic_the_file_is_named_as_the_source(run: Run, taken: Taken) -> None:
    path = write_lines(taken.rows(), "archive")
    decisions, _ = replayed(run, path, *COORDINATES)
    assert decisions[0]["source"] == {"topic": "archive.jsonl", "partition": taken.partitions[0], "offset": 0}
    assert decisions[0]["decision_id"] == f"archive.jsonl-{taken.partitions[0]}-0"


def test_without_record_timestamps_no_event_is_too_late(run: Run, taken: Taken) -> None:
    path = write_lines(taken.rows(), "archive")
    assert replayed(run, path, *COORDINATES[:4], "--topic", TOPIC)[1] == []


@pytest.mark.parametrize("given", [COORDINATES[:2], COORDINATES[2:4]])
def test_half_of_a_place_is_refused(run: Run, taken: Taken, given: tuple[str, ...]) -> None:
    path = write_lines(taken.rows(), "archive")
    said = refused(run("replay", path, *given, "--out", "d.jsonl"))
    assert "--partition-field and --offset-field go together" in said
    assert not Path("d.jsonl").exists()


def test_a_row_without_its_place_is_refused(run: Run, taken: Taken) -> None:
    rows = taken.rows()
    del rows[4]["kafka_o"]
    said = refused(run("replay", write_lines(rows, "archive"), *COORDINATES, "--out", "d.jsonl"))
    assert "archive.jsonl: row 5: no kafka_p, kafka_o, kafka_t can be read there" in said
