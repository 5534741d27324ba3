"""What `tidegate features list` says: names, units, definitions, and since when the state can answer for them.

first                     newest
|<-- 1h -->|              |
           | complete for events from here on
"""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import orjson
import pytest

from engine.assemble import open_state
from engine.catalog import catalog, complete_from
from engine.config import default_profile, parse_config
from engine.state.header import Header
from features.arena import NEVER
from features.spec import WINDOWED
from tests.commands import STATE, Run

START_MS = 1_735_689_600_000
HOUR_MS = 3_600_000
EVERYTHING = """
[mapping]
currency = { default = "USD" }
numbers = ["lat", "lon", "score"]
location = { latitude = "lat", longitude = "lon" }
[predicates]
small = "amount < 2.00"
[entities.card]
windows = ["1h", "7d"]
aggregates = ["count", "rate", "sum.amount", "mean.amount", "std.amount", "min.amount", "max.amount", "zscore.amount",
    "ratio.amount", "distinct.merchant", "is_new.merchant", "since_last", "since_first", "geo_speed", "last.amount",
    "last.merchant", "last.score", "count.small.prior"]
[event]
features = ["amount", "hour_of_day", "day_of_week", "score", "small"]
one_hot = { entry_mode = ["chip", "ecom"] }
hashed = { category = 64 }
"""


def listed(run: Run) -> dict[str, Any]:
    ended = run("features", "list", "--json")
    assert ended.exit_code == 0, ended.err
    found: dict[str, Any] = orjson.loads(ended.out)
    return found


def write_state(header: dict[str, int]) -> None:
    """A state whose header says this."""
    config = parse_config(Path("tidegate.toml").read_text(), Path(), {})
    with ExitStack() as resources_open:
        state = open_state(config, config.feature_spec(), None, resources_open)
        state.begin_cold(header.get("cold_ms", NEVER))
        state._times_ms[:] = header["first_ms"], NEVER, header["newest_ms"]
        state.begin_flush({})
        state.finish_flush()


# --- features --------------------------------------------------------------------------------------------------


def test_every_feature_of_the_set_in_its_order() -> None:
    config = parse_config(EVERYTHING, Path(), {})
    spec = config.feature_spec()
    entries = catalog(config, None)
    assert [(entry.name, entry.definition) for entry in entries] == [(f.name, f.definition_hash) for f in spec.features]
    assert {entry.entity for entry in entries} == {"card", ""}
    for entry in entries:
        kind = entry.name.split(".")[1]
        assert bool(entry.window) == (kind in WINDOWED)
        assert f".{entry.window}" in entry.name or not entry.window
        assert entry.complete_from_ms is None


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("card.count.1h", "events"),
        ("card.rate.7d", "events/h"),
        ("card.sum.amount.1h", "USD"),
        ("card.std.amount.1h", "USD"),
        ("card.last.amount", "USD"),
        ("card.zscore.amount.1h", "standard deviations"),
        ("card.ratio.amount.1h", "times the mean"),
        ("card.distinct.merchant.1h", "values"),
        ("card.is_new.merchant.1h", "0 or 1"),
        ("card.since_first", "s"),
        ("card.geo_speed", "km/h"),
        ("card.last.merchant", "category"),
        ("card.last.score", "number"),
        ("card.count.7d.small.prior", "events"),
        ("event.amount", "USD"),
        ("event.hour_of_day", "0 to 23, UTC"),
        ("event.day_of_week", "0 (Monday) to 6, UTC"),
        ("event.score", "number"),
        ("event.small", "0 or 1"),
        ("event.entry_mode.chip", "0 or 1"),
        ("event.category.hash", "bucket of 64"),
    ],
)
def test_units(name: str, unit: str) -> None:
    (found,) = [entry.unit for entry in catalog(parse_config(EVERYTHING, Path(), {}), None) if entry.name == name]
    assert found == unit


# --- since when ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first_ms", "cold_ms", "window_ms", "expected"),
    [
        (NEVER, NEVER, HOUR_MS, None),
        (START_MS, NEVER, HOUR_MS, START_MS + HOUR_MS),
        (START_MS, START_MS - 5, HOUR_MS, START_MS + HOUR_MS),
        (START_MS, START_MS + 5, HOUR_MS, START_MS + 5 + HOUR_MS),
        (START_MS, NEVER, None, START_MS),
        (START_MS, START_MS - 5, None, None),
    ],
)
def test_a_window_is_complete_once_it_lies_behind_what_was_not_seen(
    first_ms: int, cold_ms: int, window_ms: int | None, expected: int | None
) -> None:
    assert complete_from(Header("", first_ms=first_ms, cold_ms=cold_ms), window_ms) == expected


def test_completeness_is_that_of_the_state_in_its_folder(run: Run) -> None:
    Path("tidegate.toml").write_text(default_profile() + STATE)
    assert listed(run)["state"] is None
    write_state({"first_ms": START_MS, "newest_ms": START_MS + 24 * HOUR_MS, "cold_ms": START_MS + 5})
    found = listed(run)
    assert found["state"] == {
        "first_ms": START_MS,
        "newest_ms": START_MS + 24 * HOUR_MS,
        "cold_ms": START_MS + 5,
    }
    complete = {entry["name"]: entry["complete_from_ms"] for entry in found["features"]}
    assert complete["card.count.1h"] == START_MS + 5 + HOUR_MS
    assert complete["card.distinct.merchant.7d"] == START_MS + 5 + 7 * 24 * HOUR_MS
    assert complete["card.since_last"] is None
    assert complete["event.amount"] is None
    assert found["feature_set"] == parse_config(default_profile(), Path(), {}).feature_spec().fingerprint()


def test_people_see_what_is_complete_and_what_is_not_yet(run: Run) -> None:
    Path("tidegate.toml").write_text(default_profile() + STATE)
    write_state({"first_ms": START_MS, "newest_ms": START_MS + 24 * HOUR_MS})
    ended = run("features", "list")
    text = [line.rstrip() for line in ended.out.splitlines()]
    assert max(map(len, text)) <= 120
    assert text[1] == "state: events from 2025-01-01 00:00:00 to 2025-01-02 00:00:00"
    rows = {line.split()[0]: line for line in text if line}
    assert rows["card.count.10s"].endswith("  2025-01-01 00:00:10")
    assert rows["card.count.24h"].endswith("  2025-01-02 00:00:00")
    assert rows["card.count.7d"].endswith("  2025-01-08 00:00:00, not yet reached")
    assert rows["card.since_last"].endswith("  2025-01-01 00:00:00")
    assert "EUR" in rows["merchant.max.amount.1h"]


@pytest.mark.parametrize(("change", "said"), [(None, "state: none in "), ("64", "was made under other rules")])
def test_a_state_that_cannot_answer_is_said(run: Run, change: str | None, said: str) -> None:
    Path("tidegate.toml").write_text(default_profile() + STATE)
    if change:
        write_state({"first_ms": START_MS, "newest_ms": START_MS})
        Path("tidegate.toml").write_text(f"{default_profile()}{STATE}ring_events_max = {change}")
    ended = run("features", "list")
    assert ended.exit_code == 0
    assert said in ended.out
    assert "complete for" not in ended.out


def test_without_a_configuration_the_features_are_those_that_ship(run: Run) -> None:
    names = [entry["name"] for entry in listed(run)["features"]]
    assert names == list(parse_config(default_profile(), Path(), {}).feature_spec().names)
