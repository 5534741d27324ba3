"""A worker that begins behind loaded history is as good as one that read everything itself.

history     0 1 2 ... 24 |
topic               20 21|22 23 24 25 ... 59
worker                   |            25 ...      nothing of the history is decided, nothing after it left out
"""

from pathlib import Path

import orjson
import pytest

import engine.worker
from engine.config import Config, default_profile, parse_config
from engine.errors import FatalError
from engine.history import load_history
from engine.state.header import Header, decode_header
from engine.state.keys import HEADER
from engine.state.peek import FrozenStore
from tests.commands import STATE
from tests.pipelines import START_MS, event, json_of, records_of
from tests.simulation.kafka import Crash, Outside, ScriptedInput, Ticks, by_id, start

EVENTS, HISTORY = 60, 25
POLICY = "challenge = 1\nreview = 3\ndecline = 900\n"


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commits every other turn, and a flush, in small slices, every few commits."""
    monkeypatch.setattr(engine.worker, "time", Ticks(0.06))
    monkeypatch.setattr(engine.worker, "FLUSH_SLICE_ENTITIES", 1)


def config_in(folder: Path) -> Config:
    """The topic's name is the scripted one."""
    state = f"{STATE}ring_events_max = 4\nflush_interval_s = 0.3\n"
    return parse_config(f"{default_profile()}{POLICY}{state}[kafka]\ninput = 'in'\n", folder, {})


def values_of(partition: int) -> list[bytes | None]:
    """Few cards, and none that another partition has; some of it was there before, and some is no event."""
    values: list[bytes | None] = []
    for number in range(EVENTS):
        fields = {
            name: f"{name}-{partition}-{number % kinds}"
            for name, kinds in (("card", 3), ("merchant", 2), ("device", 4), ("ip", 5))
        }
        time_ms = START_MS + 1_000 * number - (120_000 if number % 9 == 4 else 0)
        value = json_of(event(number, event_id=f"{partition}-{number}", event_time=time_ms, **fields))
        values.append(b"{" if number % 13 == 6 else values[-8] if number % 11 == 10 else value)
    return values


def whole(partitions: int) -> Outside:
    return Outside({partition: values_of(partition) for partition in range(partitions)})


def loaded(folder: Path, partitions: int, first: int = 0, history: int = HISTORY) -> Outside:
    """A topic that begins at `first`, and a state from the records before `history` in every partition."""
    config = config_in(folder)
    everything = whole(partitions)
    times = ScriptedInput(everything, None).outside_times  # type: ignore[arg-type]
    batches = []
    for partition in range(partitions):
        records = records_of(everything.log[partition][:history], partition, topic="a.jsonl")
        records.record_times_ms[:] = times(partition, 0, history)
        batches.append(records)
    load_history(iter(batches), config)
    left = {partition: values[first:] for partition, values in everything.log.items()}
    outside = Outside(left, dict.fromkeys(left, first))
    with FrozenStore(folder / "state") as store:
        outside.store.rows = dict(store.scan(b""))
    return outside


def header_of(outside: Outside) -> Header:
    return decode_header(outside.store.rows[HEADER])


def run(outside: Outside, config: Config) -> None:
    start(outside, config).run()


def after(decisions: list[bytes], history: int = HISTORY) -> dict[str, bytes]:
    """The decisions about what came after the history."""
    return {
        decision_id: decision
        for decision_id, decision in by_id(decisions).items()
        if orjson.loads(decision)["source"]["offset"] >= history
    }


def state_of(outside: Outside) -> dict[bytes, bytes]:
    return {key: value for key, value in outside.store.rows.items() if key != HEADER}


@pytest.mark.parametrize("partitions", [1, 2])
@pytest.mark.parametrize("first", [0, 20, HISTORY])
def test_the_rest_is_decided_as_by_a_worker_that_saw_everything(tmp_path: Path, partitions: int, first: int) -> None:
    calm, outside = whole(partitions), loaded(tmp_path, partitions, first)
    run(calm, config_in(tmp_path))
    run(outside, config_in(tmp_path))
    assert by_id(outside.decisions) == after(calm.decisions)
    assert len(outside.decisions) > 20 * partitions
    letters = [(letter.partition, letter.offset) for letter in calm.dead_letters if letter.offset >= HISTORY]
    assert sorted((letter.partition, letter.offset) for letter in outside.dead_letters) == sorted(letters)
    assert outside.committed == calm.committed
    assert state_of(outside) == state_of(calm)


def test_after_a_crash_at_any_step_of_the_first_worker_the_outcome_is_the_same(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    calm = loaded(tmp_path, 1)
    before = dict(calm.store.rows)
    run(calm, config)
    for crash_at in range(len(calm.steps)):
        outside = whole(1)
        outside.store.rows = dict(before)
        outside.restart(crash_at)
        with pytest.raises(Crash):
            run(outside, config)
        outside.restart()
        run(outside, config)
        assert by_id(outside.decisions) == by_id(calm.decisions)
        assert (outside.committed, state_of(outside)) == (calm.committed, state_of(calm))


def test_with_its_first_flush_the_state_is_like_any_other(tmp_path: Path) -> None:
    outside = loaded(tmp_path, 1)
    assert header_of(outside).loaded
    outside.log[0] = outside.log[0][:HISTORY]  # nothing has come since
    run(outside, config_in(tmp_path))
    header = header_of(outside)
    assert not header.loaded
    assert (header.cluster_id, header.topic, header.topic_id) == ("cluster", "in", "topic")
    assert outside.committed == header.vector == {0: HISTORY}
    outside.committed.clear()
    outside.restart()
    with pytest.raises(FatalError, match="the state stands at offset 25, but no offset is committed"):
        run(outside, config_in(tmp_path))


def test_a_gap_between_history_and_topic_is_refused(tmp_path: Path) -> None:
    outside = loaded(tmp_path, 1, first=HISTORY + 1)
    before = dict(outside.store.rows)
    with pytest.raises(FatalError, match="the history ends before offset 25, but the topic begins at 26"):
        run(outside, config_in(tmp_path))
    assert (outside.store.rows, outside.committed, outside.decisions) == (before, {}, [])


def test_the_history_of_another_topic_is_refused(tmp_path: Path) -> None:
    outside = loaded(tmp_path, 1)
    outside.store.rows[HEADER] = outside.store.rows[HEADER].replace(b'"topic":"in"', b'"topic":"other"')
    with pytest.raises(FatalError, match=r"loaded from history of topic 'other', not of 'in'; name another state.dir"):
        run(outside, config_in(tmp_path))
