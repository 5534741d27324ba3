"""The benchmarks that need no broker, on less of everything: what they print is whole, and adds up."""

import json

import pytest

from engine.bench_features import BYTES_EVENTS, STATISTICS, STREAM_EVENTS, STREAM_KINDS
from tests.commands import invoke

pytestmark = pytest.mark.slow


def test_features_are_measured() -> None:
    ended = invoke("bench", "features", "--entities", "40", "--repetitions", "1", "--streams", "1", "--json")
    assert ended.exit_code == 0, ended.err
    figures = json.loads(ended.out)
    for rings in ("", "_half_full"):
        assert 0 < figures[f"us_per_entity_event{rings}_min"] <= figures[f"us_per_entity_event{rings}"]
    assert set(figures["tile_error_p99"]) == set(STATISTICS)
    # Ten times what is promised of many streams: of one, a few windows may be the worst there are.
    assert all(0 < figures["tile_error_p99"][name] < 0.1 for name in ("count", "sum", "mean"))
    assert 0 < figures["distinct_error_p99"] < 0.5
    assert set(figures["windows_compared"]) == set(STREAM_KINDS)
    assert all(events > 0 for events in figures["windows_compared"].values())
    weights = [figures["bytes_per_entity"][str(events)] for events in (*BYTES_EVENTS, STREAM_EVENTS)]
    assert weights == sorted(weights)


def test_cold_state_is_measured() -> None:
    ended = invoke("bench", "cold-state", "--entities", "20000", "--events", "3000", "--budget-mib", "64", "--json")
    assert ended.exit_code == 0, ended.err
    figures = json.loads(ended.out)
    assert (figures["entities"], figures["events"]) == (20_000, 3_000)
    # Every entity was read from disk, once, and none was there before.
    assert (figures["misses_per_event"], figures["hits_per_event"]) == (4.0, 0.0)
    assert figures["events_per_second"] > 0
    assert figures["rss_bytes"] > figures["rss_empty_bytes"] > 0
    assert figures["state_bytes_on_disk"] > 20_000
