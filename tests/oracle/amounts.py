"""Statistics of a list of amounts in minor units: exact rational numbers up to the last step.

Each returns NaN for null.
"""

import math
from fractions import Fraction

NULL = math.nan


def total(amounts: list[int], minor_per_major: float) -> float:
    """The sum; 0 of nothing."""
    return sum(amounts) / minor_per_major


def mean(amounts: list[int], minor_per_major: float) -> float:
    """The mean."""
    return sum(amounts) / (len(amounts) * minor_per_major) if amounts else NULL


def least(amounts: list[int], minor_per_major: float) -> float:
    """The minimum."""
    return min(amounts) / minor_per_major if amounts else NULL


def greatest(amounts: list[int], minor_per_major: float) -> float:
    """The maximum."""
    return max(amounts) / minor_per_major if amounts else NULL


def variance(amounts: list[int]) -> Fraction:
    """The sample variance, in squared minor units, of at least two amounts."""
    count = len(amounts)
    return Fraction(count * sum(a * a for a in amounts) - sum(amounts) ** 2, count * (count - 1))


def std(amounts: list[int], minor_per_major: float) -> float:
    """The sample standard deviation; null below two amounts."""
    return math.sqrt(variance(amounts)) / minor_per_major if len(amounts) > 1 else NULL


def zscore(amount: int, amounts: list[int]) -> float:
    """How many standard deviations an amount lies above the mean of others; null where there is no spread."""
    if len(amounts) < 2 or variance(amounts) == 0:
        return NULL
    apart = amount - Fraction(sum(amounts), len(amounts))
    return math.copysign(math.sqrt(apart**2 / variance(amounts)), apart)


def ratio(amount: int, amounts: list[int]) -> float:
    """An amount as a multiple of the mean of others; null where that is 0 or there is none."""
    return float(Fraction(amount * len(amounts), sum(amounts))) if sum(amounts) else NULL
