"""Intervals against exact ones, and how often they hold the truth."""

from math import inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from engine.control.intervals import Z, chi_square_quantile, of_known, share_interval, sum_interval


@given(st.floats(2.0, 1e4))
def test_quantiles_are_those_of_chi_square(degrees: float) -> None:
    assert chi_square_quantile(degrees, Z) == pytest.approx(stats.chi2.ppf(0.975, degrees), rel=0.01)
    # Below they err to the safe side where they err.
    assert chi_square_quantile(degrees, -Z) <= stats.chi2.ppf(0.025, degrees) * 1.01


@given(st.integers(0, 200), st.floats(1.0, 1_000.0))
def test_equal_weights_give_garwoods_interval_of_a_count(count: int, weight: float) -> None:
    low, high = sum_interval(count * weight, count * weight**2, weight)
    exact = stats.chi2.ppf(0.025, 2 * count) / 2 * weight if count else 0.0
    assert low <= exact * 1.01
    assert high == pytest.approx(stats.chi2.ppf(0.975, 2 * count + 2) / 2 * weight, rel=0.01)


def test_without_a_weight_nobody_knows_what_was_missed() -> None:
    assert sum_interval(0.0, 0.0, 0.0) == (0.0, inf)
    assert of_known(10.0, sum_interval(0.0, 0.0, 0.0)) == (0.0, 1.0)


@given(st.integers(0, 500), st.integers(1, 500))
def test_equal_weights_give_wilsons_interval(part: int, rest: int) -> None:
    whole = part + rest
    low, high = share_interval(part, whole, whole)
    exact = stats.binomtest(part, whole).proportion_ci(0.95, "wilson")
    assert (low, high) == pytest.approx((exact.low, exact.high), abs=1e-12)


@pytest.mark.parametrize("truth", [3, 30, 300])
def test_the_interval_of_a_sampled_sum_holds_the_truth(truth: int) -> None:
    """At two rates, as after a change of the configuration, however few there are."""
    rng = np.random.default_rng(truth)
    held = 0
    for _ in range(400):
        weights = np.where(np.arange(truth) % 2, 20.0, 100.0)
        seen = weights[rng.random(truth) < 1 / weights]
        low, high = sum_interval(float(seen.sum()), float((seen**2).sum()), 100.0)
        held += low <= truth <= high
    assert held >= 0.95 * 400
