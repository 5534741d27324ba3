"""95% intervals of sums that were sampled, and of shares.

A sampled decision stands for `weight` of its kind, and of those that are rarely seen only a few are there: the interval
of a normal distribution would reach below zero, and be a point where none was seen.

Fay and Feuer (1997), Confidence intervals for directly standardized rates: a method based on the gamma distribution,
Statistics in Medicine 16:791-801, treat a weighted sum of Poisson counts as gamma distributed. With equal weights it is
Garwood's exact interval of a count, times the weight. Quantiles are those of Wilson and Hilferty (1931), The
distribution of chi-square, PNAS 17:684-688: from two degrees on within 1% above, and below too low rather than too
high.
"""

from math import inf, sqrt
from statistics import NormalDist
from typing import NamedTuple

CONFIDENCE = 0.95
Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)


class Interval(NamedTuple):
    """Where the truth lies; `high` is infinite where nothing says how high."""

    low: float
    high: float


def chi_square_quantile(degrees: float, z: float) -> float:
    """The quantile of a chi-square distribution at the probability where a normal one has `z`."""
    if degrees <= 0:
        return 0.0
    part = 2 / (9 * degrees)
    return float(degrees * max(0.0, 1 - part + z * sqrt(part)) ** 3)


def sum_interval(total: float, squares: float, weight_max: float) -> Interval:
    """Of what `total` is an estimate of: the sum of the weights of what was seen, `squares` that of their squares.

    `weight_max`: the most that one that was not seen could have stood for; 0 where nobody knows.

    >>> low, high = sum_interval(0.0, 0.0, 100.0)
    >>> low, round(high)
    (0.0, 367)
    """
    low = 0.0 if total <= 0 else squares / (2 * total) * chi_square_quantile(2 * total**2 / squares, -Z)
    total, squares = total + weight_max, squares + weight_max**2
    if weight_max <= 0 or total <= 0:
        return Interval(low, inf)
    return Interval(low, squares / (2 * total) * chi_square_quantile(2 * total**2 / squares, Z))


def share_interval(part: float, whole: float, squares: float) -> Interval:
    """Of part/whole, sums of weights whose squares add up to `squares`, by Wilson's score interval.

    Wilson (1927), Probable inference, the law of succession, and statistical inference, JASA 22:209-212. What is
    weighted counts as Kish's effective number, whole^2 / squares, of equals.
    """
    if whole <= 0:
        return Interval(0.0, 1.0)
    count, share = whole**2 / squares, part / whole
    centre = (share + Z**2 / (2 * count)) / (1 + Z**2 / count)
    half = Z / (1 + Z**2 / count) * sqrt(share * (1 - share) / count + Z**2 / (4 * count**2))
    return Interval(min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half)))


def of_known(known: float, other: Interval) -> Interval:
    """Of known / (known + other), where only `other` is uncertain."""
    if known <= 0:
        return Interval(0.0, 1.0 if other.low <= 0 else 0.0)
    return Interval(known / (known + other.high), known / (known + other.low))
