"""How far what is seen lies from the manifest's reference: the population stability index, over coarse bins.

PSI = sum over bins of (seen - expected) ln(seen / expected), shares each; 0.1 is called little and 0.25 much (Siddiqi
2006, Credit Risk Scorecards). Of traffic that has not changed it is not zero: with k bins, n events and m in the
reference it is distributed as chi-square with k - 1 degrees times 1/n + 1/m (Yurdakul and Naranjo 2020, Statistical
properties of the population stability index, Journal of Risk Model Validation 14:89-100). `noise` is what it stays
under by chance.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.control.intervals import chi_square_quantile
from models.calibration import RISK_SCORE_MAX, SCORE_PER_DECADE, Calibration
from models.reference import Reference

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

# The manifest knows tails of 0.001%, where one event more or less would be a drift.
BIN_SHARE_MIN = 0.05
# What was never seen in the reference is expected so often, as the logarithm needs something.
EXPECTED_MIN = 1e-4
# Of a normal distribution: one look of a million at traffic that has not changed is beyond.
NOISE_Z = 4.75


class Bins(NamedTuple):
    """`starts`: where in the manifest's bins each coarse one begins; `expected`: its share, and last that of nulls."""

    starts: NDArray[np.intp]
    expected: Float64


def bins_of(reference: Reference) -> Bins:
    """Of a feature: bin i of the manifest is above edges[i - 1], up to edges[i]."""
    shares = np.diff([0.0, *reference.up_to, 1.0]) if reference.up_to else np.ones(1)
    return _coarse(shares * (1 - reference.null_share), reference.null_share)


def score_bins(edges: list[float], calibration: Calibration) -> Bins:
    """Of a model's probability, whose distribution the calibration is."""
    risk = np.interp(edges, calibration.probabilities, calibration.risk_scores)
    above = np.where(risk >= RISK_SCORE_MAX, 0.0, 10 ** (-risk / SCORE_PER_DECADE))
    return _coarse(-np.diff([1.0, *above, 0.0]), 0.0)


def counted_bins(counts: list[int]) -> Bins:
    """Of a histogram that stands for what is usual."""
    shares = np.array(counts, np.float64)
    return _coarse(shares / max(shares.sum(), 1.0), 0.0)


def _coarse(shares: Float64, null_share: float) -> Bins:
    starts, expected = [0], [0.0]
    for at, share in enumerate(shares):
        if expected[-1] >= BIN_SHARE_MIN:
            starts.append(at)
            expected.append(0.0)
        expected[-1] += share
    if expected[-1] < BIN_SHARE_MIN and len(expected) > 1:
        starts.pop()
        last = expected.pop()
        expected[-1] += last
    floored = np.maximum([*expected, null_share], EXPECTED_MIN)
    return Bins(np.array(starts, np.intp), floored / floored.sum())


def psi(bins: Bins, counts: Int64, nulls: int) -> float:
    """Of counts in the manifest's bins, of n >= 1 events.

    As many events as there are bins are added as they are expected: a bin that nothing fell in yet is no infinity.
    """
    seen = np.append(np.add.reduceat(counts, bins.starts), nulls)
    shares = (seen + bins.expected * len(seen)) / (seen.sum() + len(seen))
    return float(np.sum((shares - bins.expected) * np.log(shares / bins.expected)))


def noise(bins: Bins, events: int, reference_events: int) -> float:
    """What the PSI of so many events stays under where nothing has changed."""
    return chi_square_quantile(len(bins.expected) - 1, NOISE_Z) * (1 / events + 1 / max(reference_events, 1))
