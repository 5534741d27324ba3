"""The search for the highest rate held, against engines of known capacity."""

from typing import Any

import pytest

from loadtest.run.capacity import Search, climb, held, knee
from loadtest.run.outcome import machine

GOOD = {"valid": True, "invalid_because": [], "missing": 0, "duplicated": 0, "p50_ms": 3.0, "p99_ms": 20.0}


def step(rate: float, p99_ms: float) -> dict[str, Any]:
    return {**GOOD, "rate": rate, "held": p99_ms < 100, "p99_ms": p99_ms, "p999_ms": p99_ms, "cpu_us_per_event": 30.0}


CAPACITY: dict[str, Any] = {
    "profile": "smoke",
    "delivery": "at_least_once",
    "valid": True,
    "invalid_because": [],
    "capacity_per_second": 7_000.0,
    "knee_per_second": 7_000.0,
    "p99_bound_ms": 100.0,
    "ended_because": "9,800 events/s was not held",
    "steps": [step(5_000.0, 10.0), step(7_000.0, 14.0), step(9_800.0, 900.0)],
    "machine": machine(),
}


def engine(capacity: float) -> Any:
    """One whose p99 leaps once it is asked for more."""
    return lambda rate: {**GOOD, "p99_ms": 20.0 if rate <= capacity else 5_000.0}


def test_it_climbs_until_a_rate_is_not_held_and_narrows_it_down() -> None:
    steps, ended = climb(Search(first=1_000, factor=2, halvings=2), engine(5_100))
    assert [(s["rate"], s["held"]) for s in steps] == [
        (1_000, True),
        (2_000, True),
        (4_000, True),
        (8_000, False),
        (6_000, False),
        (5_000, True),
    ]
    assert ended == "6,000 events/s was not held"


def test_it_ends_where_the_first_rate_is_not_held() -> None:
    steps, _ = climb(Search(first=1_000), engine(10))
    assert [s["held"] for s in steps] == [False]


def test_it_ends_where_the_generator_cannot_follow() -> None:
    steps, ended = climb(Search(first=1_000), lambda rate: {**GOOD, "valid": rate < 1_500})
    assert [s["held"] for s in steps] == [True, True, False]
    assert "says nothing of the engine" in ended


def test_it_does_not_go_beyond_what_was_asked() -> None:
    steps, ended = climb(Search(first=1_000, factor=2, rate_max=3_000), engine(1e9))
    assert len(steps) == 2
    assert "was to end at 3,000" in ended


@pytest.mark.parametrize(
    "wrong", [{"valid": False}, {"missing": 1}, {"duplicated": 1}, {"p99_ms": 101.0}, {"p99_ms": None}]
)
def test_a_rate_is_not_held_where_anything_is_amiss(wrong: dict[str, Any]) -> None:
    assert held(GOOD, 100)
    assert not held({**GOOD, **wrong}, 100)


def test_the_knee_is_where_the_curve_bends() -> None:
    rates = [1.0, 2.0, 3.0, 4.0, 5.0]
    assert knee(rates, [2.0, 2.1, 2.3, 2.6, 50.0]) == 4.0
    assert knee(rates, [1.0, 2.0, 3.0, 4.0, 5.0]) is None
    assert knee(rates, [5.0, 4.0, 3.0, 2.0, 1.0]) is None
    assert knee(rates[:2], [1.0, 9.0]) is None
