"""When events are due, against the integral of the rate."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.plan import Piece, Plan

rates = st.floats(0, 5_000)
pieces = st.builds(
    lambda seconds, rate, rate_to: Piece(seconds, rate, rate_to or (rate == 0)), st.floats(0.05, 20), rates, rates
)


def integral(plan: Plan, t_s: float) -> float:
    """Events due by then, piece by piece."""
    total, left = 0.0, t_s
    for piece in plan.pieces:
        within = min(left, piece.seconds)
        total += piece.rate * within + (piece.rate_to - piece.rate) / piece.seconds * within**2 / 2
        left -= within
        if left <= 0:
            break
    return total


@given(st.lists(pieces, min_size=1, max_size=4))
def test_no_event_is_ahead_of_the_integral_and_all_of_it_is_sent(made: list[Piece]) -> None:
    plan = Plan(made)
    due_ms = plan.due_ms(np.arange(plan.events + 1))
    inside, beyond = due_ms[:-1], due_ms[-1]
    assert plan.events == int(integral(plan, plan.seconds) + 1e-6)
    assert (np.diff(due_ms) >= 0).all()
    assert (inside <= np.ceil(plan.seconds * 1_000)).all()
    assert beyond > plan.seconds * 1_000
    for number in {0, len(inside) // 3, len(inside) // 2, len(inside) - 1} if len(inside) else ():
        at_s = inside[number] / 1_000
        assert integral(plan, at_s) >= number + 1 - 1e-3
        # Due in the first whole millisecond that has it.
        assert integral(plan, max(0.0, at_s - 0.001)) < number + 1 + 1e-3


def test_a_constant_rate_is_evenly_spaced() -> None:
    plan = Plan([Piece(2.0, 500.0, 500.0)])
    assert plan.events == 1_000
    assert plan.due_ms(np.arange(1_000)).tolist() == list(range(2, 2_001, 2))


def test_a_burst_is_three_times_as_dense() -> None:
    r"""
    1000/s  __|^^|__
            0  1  2  3 s
    """
    plan = Plan([Piece(1, 1_000, 1_000), Piece(1, 3_000, 3_000), Piece(1, 1_000, 1_000)])
    due_ms = plan.due_ms(np.arange(plan.events))
    assert np.bincount((due_ms - 1) // 1_000).tolist() == [1_000, 3_000, 1_000]
    assert [plan.rate_at(t_s) for t_s in (0.5, 1.5, 2.5, 3.0)] == [1_000, 3_000, 1_000, 0]


def test_a_ramp_has_three_quarters_of_its_events_in_its_second_half() -> None:
    plan = Plan([Piece(10.0, 0.0, 200.0)])
    due_ms = plan.due_ms(np.arange(1_000))
    assert (due_ms <= 5_000).sum() == 250
    assert plan.mean_rate == 100


@pytest.mark.parametrize("wrong", [(0, 1, 1), (1, -1, 1), (1, 0, 0), (float("nan"), 1, 1)])
def test_what_is_no_pace_is_refused(wrong: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        Piece(*wrong)
