"""The search for a capacity, on a worker that is a formula."""

import pytest

from loadtest.run.capacity import GROWTH, HALVINGS, Step, knee, search


def step(rate: float, p99_ms: float, *, held: bool = True) -> Step:
    return Step(rate, rate, p99_ms / 3, p99_ms, None, held, "" if held else "p99 beyond the bound")


@pytest.mark.parametrize("capacity", [2_000.0, 9_000.0, 31_337.0])
def test_the_search_comes_close_to_the_highest_rate_that_is_held(capacity: float) -> None:
    steps = search(lambda rate, _: step(rate, 10.0, held=rate <= capacity), 1_000.0)
    best = max(one.rate for one in steps if one.held)
    assert best <= capacity
    assert capacity - best <= capacity * (GROWTH - 1) / 2**HALVINGS


def test_where_the_first_rate_is_not_held_nothing_else_is_tried() -> None:
    assert len(search(lambda rate, _: step(rate, 10.0, held=False), 1_000.0)) == 1


def test_the_knee_is_where_the_curve_bends_most() -> None:
    rates = [1_000.0 * n for n in range(1, 11)]
    bent = [step(rate, 10.0 if rate <= 7_000 else 10.0 + (rate - 7_000) / 5) for rate in rates]
    assert knee(bent) == 7_000
    assert knee(bent[:2]) is None
    assert knee([step(rate, 10.0) for rate in rates]) is None
