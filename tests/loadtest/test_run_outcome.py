"""What a run is counted as, from what was sent and what came back."""

from dataclasses import replace

import numpy as np
import pytest

from loadtest.driver import Progress
from loadtest.measure import Decision, Tally
from loadtest.plan import Piece, Plan
from loadtest.run.outcome import counts_of, figures_of, percentiles, series_of
from loadtest.run.profile import LoadProfile, parse_load_profile
from loadtest.run.sampler import Sample, cpu_between, sample_of
from loadtest.truth import Truth

START_MS = 1_700_000_000_000
PROFILE = parse_load_profile("warm_up_s = 1.0\nplan = [{ seconds = 3.0, rate = 100.0 }]\n", "own")


def told(tally: Tally, poison: int = 0) -> None:
    """300 events, 10 ms apart; the last `poison` of them are broken."""
    broken = np.arange(300) >= 300 - poison
    none = np.zeros(300, np.int8)
    due_ms = START_MS + 10 * np.arange(1, 301)
    tally.expect(Truth(np.arange(300), due_ms, none, np.full(300, -1), np.zeros(300, np.bool_), broken))


def decide(tally: Tally, numbers: range, took_ms: int) -> None:
    for number in numbers:
        arrived_us = (START_MS + 10 * (number + 1) + took_ms) * 1_000
        tally.add_decisions([Decision(f"t00c0ffee-{number:010d}", "approve")], arrived_us)


def progress(**changed: int | float) -> Progress:
    return Progress(**{"events": 300, "duplicates": 0, "poison": 0, "until_ms": START_MS + 3_000, **changed})


def figures(tally: Tally, sent: Progress, profile: LoadProfile = PROFILE) -> dict[str, object]:
    samples = [Sample(START_MS / 1e3 + t, 0.1 * t, 1e8 + t, 5.0, {"score": 0.02 * t}) for t in range(-1, 5)]
    return figures_of(profile, sent, tally, samples, "broker:9092")


@pytest.fixture
def tally() -> Tally:
    tally = Tally(str)
    told(tally)
    return tally


def test_only_what_was_due_after_the_warm_up_is_timed(tally: Tally) -> None:
    decide(tally, range(100), took_ms=900)
    decide(tally, range(100, 300), took_ms=20)
    found = figures(tally, progress())
    assert (found["sent"], found["decided"], found["missing"], found["events_counted"]) == (300, 300, 0, 200)
    assert found["valid"] is True
    assert found["max_ms"] == pytest.approx(20, rel=1e-2)
    # In these two seconds came what was due in them but for the last 20 ms, and 90 of the events before.
    assert found["cpu_us_per_event"] == pytest.approx(0.2e6 / 288)
    assert found["events_per_second"] == 144
    assert found["rss_bytes_first"] == 1e8 + 1


def test_what_never_came_is_missing(tally: Tally) -> None:
    decide(tally, range(290), took_ms=20)
    assert counts_of(progress(), tally).missing == 10
    # Broken records want a dead letter each, repeats want nothing.
    assert counts_of(progress(poison=6, duplicates=4), tally).missing == 6
    tally.dead_letters = 6
    assert counts_of(progress(poison=6, duplicates=4), tally).missing == 0


def test_what_comes_twice_is_counted_apart(tally: Tally) -> None:
    decide(tally, range(300), took_ms=20)
    decide(tally, range(7), took_ms=50)
    found = figures(tally, progress())
    assert (found["decided"], found["duplicated"], found["missing"]) == (300, 7, 0)


def test_a_generator_that_fell_behind_makes_the_result_invalid(tally: Tally) -> None:
    decide(tally, range(300), took_ms=20)
    found = figures(tally, progress(late=4, delay_ms_max=55.0))
    assert found["valid"] is False
    (reason,) = found["invalid_because"]  # type: ignore[misc]
    assert reason.startswith("the generator fell behind: 4 of 300 events")
    assert figures(tally, progress(late=3))["valid"] is True


def test_a_plan_that_was_not_sent_makes_the_result_invalid(tally: Tally) -> None:
    decide(tally, range(300), took_ms=20)
    longer = replace(PROFILE, plan=Plan([Piece(4.0, 100.0, 100.0)]))
    assert figures(tally, progress(), longer)["invalid_because"] == ["300 of the 400 events of the plan were sent"]


def test_percentiles_are_those_of_the_events() -> None:
    took_us = np.arange(1, 100_001, dtype=np.int32)
    found = percentiles(took_us)
    assert found == pytest.approx({"p50_ms": 50.0, "p99_ms": 99.0, "p999_ms": 99.9, "max_ms": 100.0}, rel=2e-3)
    assert set(percentiles(took_us[:0]).values()) == {None}


def test_a_series_is_by_due_second_and_by_arrival() -> None:
    r"""
    due at ms   500  900 | 1500 | 2500
    took ms     100  800 |    - |   10
    arrived     600      | 1700 | 2510
    """
    due_ms = START_MS + np.array([500, 900, 1_500, 2_500])
    series = series_of(due_ms, np.array([100_000, 800_000, 0, 10_000], np.int32), START_MS)
    assert series.max_ms == [800.0, None, 10.0]
    assert (series.due, series.decided, series.open) == ([2, 0, 1], [1, 1, 1], [1, 0, 0])


def test_cpu_is_not_known_where_samples_do_not_reach() -> None:
    samples = [Sample(float(t), 2.0 * t, 0.0, 0.0) for t in range(5)]
    assert cpu_between(samples, 0.5, 2.5) == pytest.approx(4.0)
    assert cpu_between(samples, 0.5, 9.0) is None
    assert cpu_between([], 0.0, 1.0) is None


def test_a_sample_keeps_what_the_report_shows() -> None:
    metrics = {
        "process_cpu_seconds_total": 3.5,
        "process_resident_memory_bytes": 2e8,
        'tidegate_consumer_lag_events{partition="0"}': 4.0,
        'tidegate_consumer_lag_events{partition="1"}': 5.0,
        'tidegate_stage_seconds_sum{stage="score"}': 0.25,
        'tidegate_stage_seconds_count{stage="score"}': 9.0,
    }
    assert sample_of(metrics, 7.0) == Sample(7.0, 3.5, 2e8, 9.0, {"score": 0.25})
