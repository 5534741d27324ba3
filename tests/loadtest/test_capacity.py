"""The search for a capacity, on a worker that is a formula."""

import msgspec
import pytest

from loadtest.run import capacity
from loadtest.run.capacity import (
    FELL_BEHIND,
    GROWTH,
    HALVINGS,
    Bound,
    Capacity,
    Step,
    knee,
    limited_by_generator,
    search,
)
from loadtest.run.profile import Profile
from loadtest.run.run import Asked
from loadtest.run.stage import Target


def step(rate: float, p99_ms: float, *, held: bool = True) -> Step:
    return Step(rate, rate, p99_ms / 3, p99_ms, None, held, "" if held else "p99 beyond the bound")


@pytest.mark.parametrize("most", [2_000.0, 9_000.0, 31_337.0])
def test_the_search_comes_close_to_the_highest_rate_that_is_held(most: float) -> None:
    steps = search(lambda rate, _: step(rate, 10.0, held=rate <= most), 1_000.0)
    best = max(one.rate for one in steps if one.held)
    assert best <= most
    assert most - best <= most * (GROWTH - 1) / 2**HALVINGS


def test_where_the_first_rate_is_not_held_nothing_else_is_tried() -> None:
    assert len(search(lambda rate, _: step(rate, 10.0, held=False), 1_000.0)) == 1


def test_the_knee_is_where_the_curve_bends_most() -> None:
    rates = [1_000.0 * n for n in range(1, 11)]
    bent = [step(rate, 10.0 if rate <= 7_000 else 10.0 + (rate - 7_000) / 5) for rate in rates]
    assert knee(bent) == 7_000
    assert knee(bent[:2]) is None
    assert knee([step(rate, 10.0) for rate in rates]) is None


def test_a_rate_at_which_nothing_is_decided_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    nothing = msgspec.structs.replace(step(2_000.0, 0.0, held=False), p50_ms=None, p99_ms=None)
    monkeypatch.setattr(capacity, "run", lambda *_: None)
    monkeypatch.setattr(capacity, "judged", lambda *_: nothing)
    profile = msgspec.convert({"plan": [{"seconds": 1, "rate": 1}]}, Profile)
    target = Target("", "", "", "", "", "at_least_once", None, None)
    found = capacity.find_capacity(Asked("test", profile, 1), target, Bound(200.0, 2_000.0, 1.0), said.append)
    assert found.events_per_second == 0
    assert said == ["2,000 events/s: p99 none, p99 beyond the bound"]


def test_where_the_generator_is_the_limit_nothing_is_said_of_the_worker() -> None:
    behind = msgspec.structs.replace(step(3_000.0, 40.0, held=False), why=FELL_BEHIND)
    slow = step(4_000.0, 900.0, held=False)
    assert limited_by_generator([step(2_000.0, 10.0), behind, slow])
    assert not limited_by_generator([step(2_000.0, 10.0), slow, behind])
    assert not limited_by_generator([step(2_000.0, 10.0)])
    found = Capacity("smoke", "at_least_once", Bound(200.0, 2_000.0, 20.0), 2_000.0, None, True, [])
    assert found.sentence.startswith("2,000 events/s are held")
    assert found.sentence.endswith("so the worker may hold more")
    none = msgspec.structs.replace(found, events_per_second=0.0)
    assert none.sentence == "the generator fell behind at 2,000 events/s, which says nothing of the worker"
