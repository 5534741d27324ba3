"""State from history: what is taken in, what is refused, and what is known of the time before."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from engine.config import Config, default_profile, parse_config
from engine.errors import ConfigError, FatalError
from engine.events import Records
from engine.history import LOADING, load_history
from engine.state.header import Header
from engine.state.local import LocalState
from engine.state.peek import FrozenStore, read_header
from engine.state.store import Store
from tests.commands import STATE, Run, lines, refused
from tests.pipelines import START_MS, event, json_of, pipeline_of, records_of

ROOT = Path(__file__).parent.parent.parent
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
EVENTS = 200


def config_in(folder: Path, state: str = "") -> Config:
    return parse_config(f"{default_profile()}\n{STATE}{state}", folder, {})


def header_in(folder: Path) -> Header:
    header = read_header(folder / "state")
    assert header is not None
    return header


def values_of(count: int) -> list[bytes | None]:
    """One event a minute, few cards and merchants; every 23rd is no event, every 31st was there before."""
    values: list[bytes | None] = []
    for number in range(count):
        if number % 23 == 5:
            values.append(b"{")
        elif number % 31 == 30:
            values.append(values[-7])
        else:
            fields = {"card": str(4_000 + number % 3), "merchant": f"m-{number % 2}", "amount": number + 0.25}
            values.append(json_of(event(number, event_time=START_MS + 60_000 * number, **fields)))
    return values


def rows_of(state: Store) -> dict[bytes, bytes]:
    """Everything in a database but its header."""
    return {key: value for key, value in state.scan(b"") if key != b"\x00"}


# --- what is taken in ------------------------------------------------------------------------------------------


def test_the_state_is_that_of_a_worker_that_read_the_same(tmp_path: Path) -> None:
    config = config_in(tmp_path, "ring_events_max = 4")
    values = values_of(EVENTS)
    summary = load_history(
        iter([records_of(values[:120]), records_of(values[120:], offsets=range(120, EVENTS))]), config
    )
    with Store(tmp_path / "other", 1 << 20) as store:
        pipeline = pipeline_of(config, store)
        pipeline.absorb(records_of(values))
        pipeline.state.begin_flush({0: EVENTS})
        pipeline.state.finish_flush()
        with FrozenStore(tmp_path / "state") as loaded:
            assert rows_of(loaded) == rows_of(store)
        expected = pipeline.state.header
    header = header_in(tmp_path)
    assert header.vector == summary.vector == {0: EVENTS}
    assert (header.dedupe, header.entities) == (expected.dedupe, expected.entities)
    assert (header.first_ms, header.newest_ms) == (START_MS, START_MS + 60_000 * (EVENTS - 1))
    assert (header.loaded, header.topic, header.cluster_id, header.topic_id) == (True, "transactions", None, None)
    assert summary.events == summary.accepted + summary.dead_letters + summary.duplicates == EVENTS
    assert (summary.dead_letters, summary.duplicates) == (9, 6)


def test_batches_change_nothing(tmp_path: Path) -> None:
    values, found = values_of(EVENTS), []
    for size in (1, 7, EVENTS):
        folder = tmp_path / str(size)
        batches = (
            records_of(values[at : at + size], offsets=range(at, at + len(values[at : at + size])))
            for at in range(0, EVENTS, size)
        )
        load_history(batches, config_in(folder))
        with FrozenStore(folder / "state") as store:
            found.append(rows_of(store))
    assert found[0] == found[1] == found[2]


def test_what_does_not_fit_into_memory_goes_to_disk_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[int] = []
    begin_flush = LocalState.begin_flush

    def counting(state: LocalState, vector: dict[int, int]) -> None:
        flushed.append(len(vector))
        begin_flush(state, vector)

    monkeypatch.setattr(LocalState, "begin_flush", counting)
    monkeypatch.setattr(LocalState, "dirty_bytes", lambda state: 1 << 40)
    batches = (records_of(values_of(60)[at : at + 10], offsets=range(at, at + 10)) for at in range(0, 60, 10))
    load_history(batches, config_in(tmp_path))
    assert len(flushed) > 3
    assert header_in(tmp_path).vector == {0: 60}


def coordinates(*places: tuple[int, int]) -> Records:
    """Events of their own at these partitions and offsets."""
    values: list[bytes | None] = [
        json_of(event(number, event_id=f"{partition}-{offset}")) for number, (partition, offset) in enumerate(places)
    ]
    partitions, offsets = zip(*places, strict=True)
    return records_of(values, partitions, offsets, "a.jsonl")


def test_every_partition_goes_on_behind_its_newest_offset(tmp_path: Path) -> None:
    batches = [coordinates((0, 0), (2, 5), (0, 1)), coordinates((2, 9), (0, 7))]
    summary = load_history(iter(batches), config_in(tmp_path))
    assert summary.vector == header_in(tmp_path).vector == {0: 8, 2: 10}
    assert summary.accepted == 5


def test_duplicates_are_those_of_their_own_partition(tmp_path: Path) -> None:
    same = json_of(event(1))
    records = records_of([same, same, same, same], [0, 1, 0, 1], [0, 0, 1, 1])
    summary = load_history(iter([records]), config_in(tmp_path))
    assert (summary.accepted, summary.duplicates) == (2, 2)
    assert set(header_in(tmp_path).dedupe) == {0, 1}


def test_rows_that_were_there_before_are_passed_over(tmp_path: Path) -> None:
    """As where two exports overlap: whole rows again, which are no duplicates, for they are the same records."""
    first = coordinates(*((0, offset) for offset in (0, 1, 2, 5, 6)), (1, 3))
    again = coordinates((0, 2), (0, 5), (0, 5), (0, 6), (1, 3), (0, 7), (0, 7), (0, 6))
    summary = load_history(iter([first, again]), config_in(tmp_path))
    assert (summary.events, summary.repeated, summary.accepted, summary.duplicates) == (14, 7, 7, 0)
    assert summary.vector == {0: 8, 1: 4}


@pytest.mark.parametrize("places", [((0, 0), (0, 5), (0, 3)), ((0, 5), (1, 0), (0, 0)), ((0, 4), (0, 6), (0, 5))])
@pytest.mark.parametrize("together", [True, False])
def test_offsets_that_do_not_ascend_are_refused(
    tmp_path: Path, places: Sequence[tuple[int, int]], together: bool
) -> None:
    batches = [coordinates(*places)] if together else [coordinates(place) for place in places]
    late, newest = places[-1][1], max(offset for _, offset in places)
    with pytest.raises(ConfigError, match=rf"^a.jsonl: partition 0: offset {late} comes after offset {newest}; "):
        load_history(iter(batches), config_in(tmp_path))
    assert not (tmp_path / "state" / "rocksdb").exists()


def test_an_event_too_far_from_its_record_timestamp_is_refused_as_it_was_online(tmp_path: Path) -> None:
    records = records_of([json_of(event(1)), json_of(event(2))])
    records.record_times_ms[:] = START_MS + 8 * DAY_MS, START_MS
    letters = tmp_path / "x.jsonl"
    summary = load_history(iter([records]), config_in(tmp_path), dead_letters=letters)
    assert (summary.accepted, summary.dead_letters) == (1, 1)
    (letter,) = lines(letters)
    assert letter["reason"] == "event_time_past"
    assert letter["source"] == {"topic": "transactions", "partition": 0, "offset": 0}


# --- what was before the history -------------------------------------------------------------------------------


def test_history_from_the_first_offset_on_is_whole(tmp_path: Path) -> None:
    summary = load_history(iter([coordinates((0, 0), (1, 0))]), config_in(tmp_path))
    assert summary.cold_ms is None


def test_what_may_have_been_before_the_first_row_is_flagged(tmp_path: Path) -> None:
    """A record before it holds a time up to horizon_future (1 h) after it was written."""
    records = coordinates((0, 0), (1, 3))
    records.record_times_ms[:] = START_MS + 2_000
    summary = load_history(iter([records]), config_in(tmp_path))
    assert summary.cold_ms == header_in(tmp_path).cold_ms == START_MS + 2_000 + HOUR_MS


def test_without_record_timestamps_the_horizon_into_the_past_comes_on_top(tmp_path: Path) -> None:
    """An event (here at START_MS + 1 s) may be written horizon_past (7 d) later."""
    summary = load_history(iter([coordinates((0, 0), (1, 3))]), config_in(tmp_path))
    assert summary.cold_ms == START_MS + 1_000 + 7 * DAY_MS + HOUR_MS


def test_windows_are_exact_as_soon_as_they_lie_behind_what_may_be_missing(tmp_path: Path) -> None:
    """
    history      |119 120 ...          one event an hour, whose record says so
                 |<1h>|                what may have been written before offset 119
                      |<--- 24h --->|  card.24h exact from here on
    """
    config = config_in(tmp_path)
    times_ms = [START_MS + HOUR_MS * hour for hour in range(100, 124)]
    values: list[bytes | None] = [json_of(event(at, event_time=time_ms)) for at, time_ms in enumerate(times_ms)]
    records = records_of(values, 0, range(119, 143))
    records.record_times_ms[:] = times_ms
    load_history(iter([records]), config)
    spec = config.feature_spec()
    card = [entity.name for entity in spec.entities].index("card")
    place = spec.entities[card].windows.index("24h")
    with Store(tmp_path / "state", 1 << 20) as store:
        pipeline = pipeline_of(config, store)
        later = [json_of(event(hour, event_time=START_MS + HOUR_MS * hour)) for hour in (124, 125, 126)]
        batch, _ = pipeline.decoder.decode(records_of(later, 0, range(143, 146)))
        exact = pipeline.state.features(batch).exact_windows[:, card] > place
    assert exact.tolist() == [False, True, True]


# --- whole or not at all ---------------------------------------------------------------------------------------


class StoppedError(Exception):
    """Somebody pressed Ctrl-C."""


def interrupted() -> Iterator[Records]:
    yield coordinates((0, 0))
    raise StoppedError


def test_an_interrupted_load_leaves_no_state(tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        load_history(interrupted(), config_in(tmp_path))
    assert read_header(tmp_path / "state") is None
    assert list((tmp_path / "state").iterdir()) == []
    assert load_history(iter([coordinates((0, 0))]), config_in(tmp_path)).accepted == 1


def test_what_a_killed_load_left_is_cleared_away(tmp_path: Path) -> None:
    left = tmp_path / "state" / LOADING / "rocksdb"
    left.mkdir(parents=True)
    (left / "CURRENT").write_text("half of something")
    assert load_history(iter([coordinates((0, 0))]), config_in(tmp_path)).accepted == 1
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["rocksdb"]


HOLDER = """
import sys
from pathlib import Path
from engine.state.store import Store

with Store(Path(sys.argv[1]), 1 << 20):
    print("ready", flush=True)
    sys.stdin.readline()
"""


def test_two_loads_at_once_are_refused(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "state" / LOADING)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        with pytest.raises(FatalError, match="by another process"):
            load_history(iter([coordinates((0, 0))]), config_in(tmp_path))
        holder.communicate("done\n")
    assert load_history(iter([coordinates((0, 0))]), config_in(tmp_path)).accepted == 1


def test_state_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    load_history(iter([coordinates((0, 0))]), config)
    with pytest.raises(ConfigError, match=r"^state.dir .*state holds state already; .* into an empty one"):
        load_history(iter([coordinates((0, 0), (0, 1))]), config)
    assert header_in(tmp_path).vector == {0: 1}


# --- the command -----------------------------------------------------------------------------------------------


def write_history(rows: list[dict[str, Any]], name: str = "a.jsonl") -> None:
    Path("tidegate.toml").write_text(f"{default_profile()}\n{STATE}")
    Path(name).write_bytes(b"\n".join(orjson.dumps(row) for row in rows))


def test_the_command_reads_coordinates_from_fields(run: Run) -> None:
    rows = [{**event(number), "partition": number % 2, "offset": number // 2} for number in range(10)]
    write_history(rows)
    ended = run("state", "load", "a.jsonl", "--json")
    assert ended.exit_code == 0, ended.err
    summary = orjson.loads(ended.out)
    assert summary["vector"] == {"0": 5, "1": 5}
    assert summary["accepted"] == 10
    assert summary["cold_ms"] is None
    assert header_in(Path()).vector == {0: 5, 1: 5}


def test_the_command_reads_text_and_other_names_too(run: Run) -> None:
    rows = [{**event(number), "p": "3", "o": str(number + 4), "at": START_MS + 1_000} for number in range(4)]
    write_history(rows[:2], "a.jsonl")
    write_history(rows[1:], "b.jsonl")
    fields = ("--partition-field", "p", "--offset-field", "o", "--timestamp-field", "at")
    ended = run("state", "load", "a.jsonl", "b.jsonl", *fields)
    assert ended.exit_code == 0, ended.err
    first, second, third = ended.out.splitlines()
    assert first.startswith("5 events: 4 taken in, 0 dead letters, 0 duplicates, 1 repeated rows in ")
    assert second == "transactions goes on at (partition: offset) 3: 8"
    assert third == "windows that reach back before 2025-01-01 01:00:01 are inexact: the history begins midway"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"offset": 1}, "Object missing required field `partition`"),
        ({"partition": 0}, "Object missing required field `offset`"),
        ({"partition": -1, "offset": 1}, "Expected `int` >= 0 - at `$.partition`"),
        ({"partition": 0, "offset": "one"}, "Expected `int`, got `str` - at `$.offset`"),
    ],
)
def test_a_row_without_coordinates_is_named(run: Run, row: dict[str, Any], said: str) -> None:
    write_history([{**event(1), "partition": 0, "offset": 0}, {**event(2), **row}])
    ended = run("state", "load", "a.jsonl")
    assert refused(ended) == f"tidegate: a.jsonl: row 2: no partition, offset can be read there: {said}"
    assert ended.exit_code == 2
    assert read_header(Path("state")) is None


def test_one_field_is_not_two_coordinates(run: Run) -> None:
    write_history([event(1)])
    ended = run("state", "load", "a.jsonl", "--partition-field", "offset")
    assert "one field cannot be two coordinates: offset, offset" in refused(ended)


def test_state_is_loaded_under_a_configuration_of_its_own(run: Run) -> None:
    write_history([event(1)])
    Path("tidegate.toml").unlink()
    assert "no configuration" in refused(run("state", "load", "a.jsonl"))
