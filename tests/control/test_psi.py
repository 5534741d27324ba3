"""PSI against one that is computed from raw values, and its noise against traffic that has not changed."""

from math import log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.control.psi import BIN_SHARE_MIN, Bins, bins_of, noise, psi, score_bins
from models.calibration import calibration_of
from models.reference import reference_of

VALUES = st.lists(st.integers(0, 30), min_size=30, max_size=300)


def counts_of(values: np.ndarray, edges: list[float]) -> np.ndarray:
    """As the contract has it: bin i is above edges[i - 1], up to edges[i]."""
    return np.bincount(np.searchsorted(edges, values, "left"), minlength=len(edges) + 1)


def slow_psi(bins: Bins, counts: list[int], nulls: int) -> float:
    """One bin after another."""
    ends = [*bins.starts[1:].tolist(), len(counts)]
    seen = [sum(counts[start:end]) for start, end in zip(bins.starts.tolist(), ends, strict=True)] + [nulls]
    total = 0.0
    for count, expected in zip(seen, bins.expected.tolist(), strict=True):
        share = (count + expected * len(seen)) / (sum(seen) + len(seen))
        total += (share - expected) * log(share / expected)
    return total


@given(VALUES, VALUES, st.integers(0, 20))
def test_it_is_what_the_formula_says(reference_values: list[int], values: list[int], nulls: int) -> None:
    reference = reference_of(np.array(reference_values, np.float64))
    bins = bins_of(reference)
    counts = counts_of(np.array(values, np.float64), reference.edges)
    assert psi(bins, counts, nulls) == pytest.approx(slow_psi(bins, counts.tolist(), nulls))
    assert psi(bins, counts, nulls) >= 0


@given(VALUES)
def test_expected_shares_are_those_of_the_sample(values: list[int]) -> None:
    """The sample that a reference was taken of is expected, but for shares that are floored."""
    array = np.array([*values, *[np.nan] * 5], np.float64)
    reference = reference_of(array)
    bins = bins_of(reference)
    counts = counts_of(array[~np.isnan(array)], reference.edges)
    seen = np.append(np.add.reduceat(counts, bins.starts), 5)
    assert bins.expected == pytest.approx(seen / seen.sum(), abs=1e-3)
    assert (bins.expected[:-1] >= BIN_SHARE_MIN / 2).all()


def test_a_feature_of_which_only_nulls_were_seen() -> None:
    bins = bins_of(reference_of(np.full(10, np.nan)))
    assert psi(bins, np.array([0]), 1_000) < 0.001
    assert psi(bins, np.array([1_000]), 0) > 1


@pytest.mark.parametrize("events", [200, 1_000, 30_000])
def test_traffic_that_has_not_changed_stays_under_the_noise(events: int) -> None:
    rng = np.random.default_rng(events)
    reference = reference_of(rng.lognormal(3, 1, 20_000))
    bins = bins_of(reference)
    for _ in range(300):
        counts = counts_of(rng.lognormal(3, 1, events), reference.edges)
        assert psi(bins, counts, 0) < noise(bins, events, 20_000)
    shifted = counts_of(rng.lognormal(4, 1, events), reference.edges)
    assert psi(bins, shifted, 0) > 0.25 + noise(bins, events, 20_000)


def test_scores_are_expected_as_the_calibration_has_them() -> None:
    rng = np.random.default_rng(5)
    calibration = calibration_of(rng.beta(0.5, 20, 50_000), genuine=True)
    edges = np.linspace(0.0, 1.0, 101)[1:-1].tolist()
    bins = score_bins(edges, calibration)
    alike = counts_of(rng.beta(0.5, 20, 20_000), edges)
    other = counts_of(rng.beta(2.0, 20, 20_000), edges)
    assert psi(bins, alike, 0) < 0.02
    assert psi(bins, other, 0) > 0.25
