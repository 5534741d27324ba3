"""What `tidegate state inspect` shows of one entity, while nobody or a worker has the state open."""

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from engine.assemble import open_state
from engine.config import Config, load_config
from engine.decode import Decoder
from engine.errors import FatalError
from engine.inspect import inspect
from engine.state.local import LocalState
from engine.state.peek import FrozenStore, is_held
from tests.commands import Run, refused
from tests.pipelines import START_MS, event, json_of, records_of

CONFIG = """
[mapping]
numbers = ["lat", "lon", "score"]
location = { latitude = "lat", longitude = "lon" }
[predicates]
small = "amount < 2.00"
[entities.card]
windows = ["1m", "1h"]
aggregates = ["count", "sum.amount", "mean.amount", "count.small", "distinct.merchant", "last.score", "geo_speed",
    "since_last", "zscore.amount"]
[entities.merchant]
windows = ["1h"]
aggregates = ["count"]
[state]
cache_bytes_max = 33554432
dirty_bytes_max = 8388608
ring_events_max = 4
"""
ROOT = Path(__file__).parent.parent.parent
CARD = "4000123412341234"
HOUR_MS = 3_600_000


def configured() -> Config:
    Path("tidegate.toml").write_text(CONFIG)
    return load_config(Path("tidegate.toml"), {})


def take_in(state: LocalState, config: Config, count: int, first: int = 0, **fields: Any) -> None:
    """One event a minute, of amounts 0, 1, 2, ..."""
    values: list[bytes | None] = [
        json_of(event(number, amount=number, event_time=START_MS + 60_000 * number, merchant=f"m-{number}", **fields))
        for number in range(first, first + count)
    ]
    decoder = Decoder(config, config.feature_spec(), None)
    batch, letters = decoder.decode(records_of(values, offsets=range(first, first + count)))
    assert letters == []
    state.features(state.accept(batch))


def flush(state: LocalState) -> None:
    state.begin_flush({0: 1})
    state.finish_flush()


def made(count: int, **fields: Any) -> Config:
    """A state in ./state in which one card has so many events."""
    config = configured()
    with ExitStack() as resources_open:
        state = open_state(config, config.feature_spec(), None, resources_open)
        take_in(state, config, count, **fields)
        flush(state)
    return config


def shown(run: Run, *arguments: str) -> dict[str, Any]:
    ended = run("state", "inspect", *arguments, "--json")
    assert ended.exit_code == 0, ended.err
    found: dict[str, Any] = orjson.loads(ended.out)
    return found


# --- what is shown ---------------------------------------------------------------------------------------------


def test_events_and_values_of_a_young_entity(run: Run) -> None:
    made(3, lat=50.0, lon=-8.5, score=0)
    found = shown(run, "card", CARD)
    assert (found["at_ms"], found["newest_ms"], found["first_ms"]) == (START_MS + 120_000, START_MS + 120_000, START_MS)
    assert found["dropped_ms"] is None
    assert found["tiles"] == []
    assert [held["time_ms"] for held in found["ring"]] == [START_MS, START_MS + 60_000, START_MS + 120_000]
    assert [held["amount"] for held in found["ring"]] == [0.0, 1.0, 2.0]
    assert [held["predicates"] for held in found["ring"]] == [["small"], ["small"], []]
    for held in found["ring"]:
        assert held["fields"].keys() == {"location", "merchant", "score"}
        assert held["fields"]["location"] == [50.0, -8.5]
        assert held["fields"]["score"] == 0.0
    assert len({held["fields"]["merchant"] for held in found["ring"]}) == 3
    assert found["inexact"] == []
    values = found["features"]
    assert (values["card.count.1m"], values["card.count.1h"], values["card.count.1h.small"]) == (1, 3, 2)
    assert (values["card.sum.amount.1h"], values["card.mean.amount.1h"]) == (3, 1)
    assert (values["card.distinct.merchant.1h"], values["card.last.score"], values["card.since_last"]) == (3, 0, 0)
    assert values["card.geo_speed"] is values["card.zscore.amount.1h"] is None
    assert set(values) == {name for name in configured().feature_spec().names if name.startswith("card.")}


def test_a_field_that_an_event_does_not_have_is_not_shown(run: Run) -> None:
    made(1)
    (held,) = shown(run, "card", CARD)["ring"]
    assert held["fields"].keys() == {"merchant"}


def test_tiles_and_what_is_not_exact_after_an_overflow(run: Run) -> None:
    made(20, lat=1.5, lon=2.5, score=1)
    found = shown(run, "card", CARD)
    assert [held["amount"] for held in found["ring"]] == [16.0, 17.0, 18.0, 19.0]
    assert found["dropped_ms"] == START_MS + 15 * 60_000
    assert sum(tile["count"] for tile in found["tiles"]) == 16
    assert sum(tile["sum"] for tile in found["tiles"]) == sum(range(16))
    for tile in found["tiles"]:
        assert tile["start_ms"] <= tile["first_ms"] <= tile["last_ms"] < tile["end_ms"]
        assert 0 <= tile["min"] <= tile["max"] <= 15
    assert found["inexact"] == ["card.1h"]
    assert found["features"]["card.count.1m"] == 1


def test_at_another_moment(run: Run) -> None:
    made(3)
    found = shown(run, "card", CARD, "--at", "2025-01-01T01:01:30")
    assert found["at_ms"] == START_MS + HOUR_MS + 90_000
    values = found["features"]
    assert (values["card.count.1m"], values["card.count.1h"], values["card.since_last"]) == (0, 1, HOUR_MS / 1_000 - 30)
    assert values["card.mean.amount.1m"] is None


def test_the_key_is_masked_unless_it_is_asked_for(run: Run) -> None:
    made(3)
    for arguments in (("--json",), ()):
        masked = run("state", "inspect", "card", CARD, *arguments)
        assert masked.exit_code == 0
        assert "************1234" in masked.out
        assert CARD not in masked.out + masked.err
        assert CARD in run("state", "inspect", "card", CARD, "--unmasked", *arguments).out


def test_people_see_tables_that_fit(run: Run) -> None:
    made(20, lat=1.5, lon=2.5, score=1)
    ended = run("state", "inspect", "card", CARD, "--rows", "2")
    text = [line.rstrip() for line in ended.out.splitlines()]
    assert max(map(len, text)) <= 120
    assert text[0] == "card ************1234: events from 2025-01-01 00:00:00 to 2025-01-01 00:19:00"
    assert "events in the ring; 2 older ones are not shown" in text
    assert any(line.split() == ["card.sum.amount.1m", "19", "yes"] for line in text)
    assert any(line.startswith("card.count.1h ") and line.endswith(" no") for line in text)
    assert any(line.split() == ["card.geo_speed", "null", "yes"] for line in text)
    assert any(line.startswith("2025-01-01 00:19:00 ") and "[1.5, 2.5]" in line for line in text)


# --- while a worker runs ---------------------------------------------------------------------------------------


WORKER = """
import sys
from contextlib import ExitStack
from pathlib import Path
from engine.assemble import open_state
from engine.config import load_config
from tests.unit.test_inspect import flush, take_in

config = load_config(Path("tidegate.toml"), {})
with ExitStack() as resources_open:
    state = open_state(config, config.feature_spec(), None, resources_open)
    for first in range(0, 20, 5):
        take_in(state, config, 5, first)
        flush(state)
    print("ready", flush=True)
    sys.stdin.readline()
    take_in(state, config, 5, 20)
    flush(state)
"""


def test_the_state_of_a_running_worker_can_be_looked_at(run: Run) -> None:
    """The worker is a process of its own, as it is in life; it is neither stopped nor disturbed."""
    configured()
    with subprocess.Popen(
        [sys.executable, "-c", WORKER],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
        assert is_held(Path("state"))
        with FrozenStore(Path("state")) as before:
            rows = list(before.scan(b""))
            assert shown(run, "card", CARD)["newest_ms"] == START_MS + 19 * 60_000
            worker.communicate("go on\n")
            assert worker.returncode == 0
            assert list(before.scan(b"")) == rows
    assert shown(run, "card", CARD)["newest_ms"] == START_MS + 24 * 60_000


def test_looking_changes_nothing(run: Run) -> None:
    made(5)
    before = {path: path.read_bytes() for path in Path("state").rglob("*") if path.is_file()}
    shown(run, "card", CARD)
    assert run("state", "inspect", "card", "4999").exit_code == 1
    assert {path: path.read_bytes() for path in Path("state").rglob("*") if path.is_file()} == before


# --- what is refused -------------------------------------------------------------------------------------------


def test_a_key_that_nothing_is_known_of(run: Run) -> None:
    made(1)
    ended = run("state", "inspect", "card", "4999999999991111")
    assert refused(ended) == "tidegate: the state has no card ************1111"
    assert ended.exit_code == 1


def test_an_entity_that_is_not_configured(run: Run) -> None:
    made(1)
    ended = run("state", "inspect", "terminal", "1")
    assert refused(ended) == "tidegate: entity 'terminal' is not configured; there are: card, merchant"
    assert ended.exit_code == 2


def test_no_state_yet(run: Run) -> None:
    configured()
    ended = run("state", "inspect", "card", CARD)
    assert "holds no state yet" in refused(ended)
    assert ended.exit_code == 2


def test_a_state_with_other_columns_than_the_configuration(run: Run) -> None:
    made(1)
    Path("tidegate.toml").write_text(CONFIG.replace('"distinct.merchant"', '"distinct.device"'))
    ended = run("state", "inspect", "card", CARD)
    assert "was made under other rules" in refused(ended)
    assert ended.exit_code == FatalError.exit_code


def test_new_windows_are_answered_from_the_state_that_is_there(run: Run) -> None:
    made(4)
    Path("tidegate.toml").write_text(CONFIG.replace('windows = ["1m", "1h"]', 'windows = ["2m", "30m", "6h"]'))
    values = shown(run, "card", CARD)["features"]
    assert [values[f"card.count.{window}"] for window in ("2m", "30m", "6h")] == [2, 4, 4]


def test_every_stored_kind_of_word_is_readable_again(run: Run) -> None:
    config = made(1, lat=-89.9999999, lon=179.9999999, score=-1.5e-7)
    fields = inspect(config, "card", CARD, None).as_json()["ring"][0]["fields"]
    assert np.allclose(fields["location"], [-89.9999999, 179.9999999], rtol=0, atol=1e-9)
    assert fields["score"] == -1.5e-7
