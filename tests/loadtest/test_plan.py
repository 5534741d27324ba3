"""Plans: when events are due, shown against the integral of the rate."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.plan import Piece, Plan, steady

RATES = st.floats(1.0, 20_000.0)
PLANS = st.lists(st.builds(Piece, st.floats(0.1, 100.0), RATES, RATES), min_size=1, max_size=6).map(Plan)


def events_until(plan: Plan, seconds: float) -> float:
    """How many events are due until then, by the trapezoid of each piece."""
    events = 0.0
    for piece in plan.pieces:
        within = min(seconds, piece.seconds)
        rate = piece.start + (piece.end - piece.start) * within / piece.seconds
        events += within * (piece.start + rate) / 2
        seconds -= within
        if seconds <= 0:
            return events
    return events + seconds * plan.pieces[-1].end


@given(PLANS, st.lists(st.floats(0.0, 1.2), min_size=1, max_size=50))
def test_an_event_is_due_when_the_plan_has_come_to_it(plan: Plan, shares: list[float]) -> None:
    steady_ms = np.array([share * plan.seconds * 1_000 for share in sorted(shares)]).astype(np.int64)
    due_ms = plan.due_ms(steady_ms)
    assert (np.diff(due_ms) >= 0).all(), "what comes later is not due earlier"
    for steady_at, due_at in zip(steady_ms.tolist(), due_ms.tolist(), strict=True):
        expected = steady_at / 1_000 * plan.mean_rate
        # A due time is rounded to a millisecond.
        slack = 0.000_6 * plan.rate_max + 1e-6 * plan.events
        assert abs(events_until(plan, due_at / 1_000) - expected) <= slack


def test_a_steady_plan_changes_nothing() -> None:
    times_ms = np.arange(0, 20_000, 7)
    assert steady(1_234.5, 10.0).due_ms(times_ms).tolist() == times_ms.tolist()


def test_a_warm_up_goes_before_at_the_first_rate() -> None:
    plan = Plan([Piece(10, 100, 300)])
    assert plan.after(0) is plan
    assert plan.after(5).pieces == (Piece(5, 100, 100), Piece(10, 100, 300))
    assert plan.after(5).events == 500 + 2_000


@pytest.mark.parametrize("pieces", [[], [Piece(0, 1, 1)], [Piece(1, 0, 1)], [Piece(1, 1, -1)]])
def test_a_plan_without_time_or_events_is_refused(pieces: list[Piece]) -> None:
    with pytest.raises(ValueError, match=r"no pieces|must be positive"):
        Plan(pieces)
