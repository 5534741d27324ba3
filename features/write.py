"""From what windows hold to feature values: one aggregate after another, adjacent windows in adjacent columns.

`n` and `total` are those of the window with the event itself (`mine` is 1) or without it (0). Null is NaN.
Variance is the sample's (n - 1), from sums: n * sum of squares - total^2, over n (n - 1); in 128 bits where the window
is exact, so that equal amounts give exactly 0.
"""

from math import asin, cos, nan, pi, sin, sqrt

import numpy as np
from numpy.typing import NDArray

from features.bits import high_square, squares_about_mean
from features.jit import inlined, kernel
from features.program import COUNT, DISTINCT, IS_NEW, MAX, MEAN, MIN, RATE, RATIO, STD, SUM, ZSCORE
from features.windows import (
    MAXIMUM,
    MINIMUM,
    NOTHING_LEAST,
    NOTHING_MOST,
    SQ_HIGH,
    SQ_LOW,
    SUM_ROWS,
    SUMS,
    TILE_ROWS,
    TOTAL,
    TWO_64,
    N,
)

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]

MS_PER_HOUR = 3_600_000.0
# n values of this size over n: n * their squares stays below 2^63.
SMALL_MAX = 3.0e9
EARTH_RADIUS_KM = 6371.0088  # mean radius, IUGG
MS_MIN = 1000
UNITS_PER_DEGREE = 1e7
HALF = 1 << 31
HALF_TURN = 1_800_000_000  # 180 degrees
TURN = 3_600_000_000
LOW_32 = 0xFFFFFFFF


@inlined
def _small_deviation(ints: Int64, row: int, window: int, mine: int, amount: int) -> float:
    """Sample standard deviation in minor units, null below two events; of an exact window whose squares fit a word."""
    count, total = ints[row + N, window] + mine, ints[row + TOTAL, window] + mine * amount
    spread = count * (ints[row + SQ_LOW, window] + mine * amount * amount) - total * total
    deviation = sqrt(spread / (float(count) * (count - 1)))
    # Below two events this is the root of 0 / 0, a NaN of another sign.
    return deviation if count > 1 else nan


@inlined
def _deviation(
    ints: Int64, reals: Float64, accumulator: int, window: int, exact: bool, mine: int, amount: int
) -> float:
    """Sample standard deviation in minor units, null below two events."""
    row = SUMS + SUM_ROWS * accumulator
    count, total = ints[row + N, window] + mine, ints[row + TOTAL, window] + mine * amount
    low = np.uint64(ints[row + SQ_LOW, window])
    high = np.uint64(ints[row + SQ_HIGH, window])
    if mine:
        sum_low = low + np.uint64(amount * amount)
        high += np.uint64(high_square(amount)) + (np.uint64(1) if sum_low < low else np.uint64(0))
        low = sum_low
    if exact:
        if count < 2:
            return nan
        return sqrt(squares_about_mean(count, low, high, total) / (float(count) * (count - 1)))
    about = count + reals[TILE_ROWS * accumulator, window]
    if about < 2:
        return nan
    sums = total + reals[TILE_ROWS * accumulator + 1, window]
    squares = low + TWO_64 * high + reals[TILE_ROWS * accumulator + 2, window]
    return sqrt(max(0.0, (squares - sums * sums / about) / (about - 1)))


@inlined
def is_small(events: int, peak: int, amount: int) -> bool:
    """Whether sums of squares about the mean of so many events, none above `peak`, and one of `amount` fit 63 bits."""
    return (events + 1.0) * max(float(peak), abs(float(amount))) < SMALL_MAX


@inlined
def _count(ints: Int64, reals: Float64, accumulator: int, window: int, mine: int) -> float:
    return float(ints[SUMS + SUM_ROWS * accumulator + N, window] + mine) + reals[TILE_ROWS * accumulator, window]


@inlined
def _total(ints: Int64, reals: Float64, accumulator: int, window: int, own: int) -> float:
    return float(ints[SUMS + SUM_ROWS * accumulator + TOTAL, window] + own) + reals[TILE_ROWS * accumulator + 1, window]


@inlined
def write_sums(
    values: Float64, to: int, kind: int, accumulator: int, windows: int, exact: int, small: bool, mine: int,
    amount: int, minor_per_major: float, windows_ms: Int64, ints: Int64, reals: Float64,
) -> None:  # fmt: skip
    """Writes the values of an aggregate of counts or amounts, one for each window. `amount` is the event's.

    One loop for each kind, and as few choices within as can be: then several windows are written at once.
    """
    row, own = SUMS + SUM_ROWS * accumulator, mine * amount
    if kind == COUNT:
        for window in range(windows):
            values[to + window] = _count(ints, reals, accumulator, window, mine)
    elif kind == RATE:
        for window in range(windows):
            count = _count(ints, reals, accumulator, window, mine)
            values[to + window] = count / (windows_ms[window] / MS_PER_HOUR)
    elif kind == SUM:
        for window in range(windows):
            values[to + window] = _total(ints, reals, accumulator, window, own) / minor_per_major
    elif kind == MEAN:
        for window in range(windows):
            count = _count(ints, reals, accumulator, window, mine)
            total = _total(ints, reals, accumulator, window, own)
            values[to + window] = total / (count * minor_per_major) if count > 0 else nan
    elif kind == RATIO:
        for window in range(windows):
            count = _count(ints, reals, accumulator, window, mine)
            total = _total(ints, reals, accumulator, window, own)
            values[to + window] = amount / (total / count) if count > 0 and total != 0 else nan
    elif kind == MIN:
        own = amount if mine else NOTHING_LEAST
        for window in range(windows):
            least = min(ints[row + MINIMUM, window], own)
            values[to + window] = least / minor_per_major if least != NOTHING_LEAST else nan
    elif kind == MAX:
        own = amount if mine else NOTHING_MOST
        for window in range(windows):
            most = max(ints[row + MAXIMUM, window], own)
            values[to + window] = most / minor_per_major if most != NOTHING_MOST else nan
    elif kind == STD:
        rest = exact if small else 0
        for window in range(rest):
            values[to + window] = _small_deviation(ints, row, window, mine, amount) / minor_per_major
        for window in range(rest, windows):
            deviation = _deviation(ints, reals, accumulator, window, window < exact, mine, amount)
            values[to + window] = deviation / minor_per_major
    elif kind == ZSCORE:
        for window in range(windows):
            if window < exact and small:
                deviation = _small_deviation(ints, row, window, mine, amount)
            else:
                deviation = _deviation(ints, reals, accumulator, window, window < exact, mine, amount)
            count = _count(ints, reals, accumulator, window, mine)
            above = amount - _total(ints, reals, accumulator, window, own) / count if count > 0 else nan
            if window < exact and count > 0:
                # In whole numbers, since a mean of large amounts has no digits left for small differences.
                number = ints[row + N, window] + mine
                above = (amount * number - ints[row + TOTAL, window] - own) / number
            values[to + window] = above / deviation if deviation > 0 else nan


@inlined
def write_values(
    values: Float64, to: int, kind: int, windows: int, exact: int, mine: int, word: int, counts: Int64, among: Int64,
    about: Float64,
) -> None:  # fmt: skip
    """Writes `distinct` or `is_new` of a column, one for each window. `word` is the event's own, 0 where absent."""
    for window in range(windows):
        if kind == IS_NEW:
            values[to + window] = 1.0 - among[window] if word != 0 else nan
        elif kind == DISTINCT:
            count = float(counts[window]) if window < exact else about[window]
            values[to + window] = count + (mine if word != 0 and among[window] == 0 else 0)


@kernel
def speed_kmh(word: int, other: int, apart_ms: int) -> float:
    """Great-circle speed between two located events, between which at least a second lies.

    By the haversine formula, which beyond a quarter turn is applied to the way to the antipode: it loses digits near a
    half turn. Differences are taken of whole units, so that none are lost between neighbours either.
    """
    latitude, other_latitude = (word >> 32 & LOW_32) - HALF, (other >> 32 & LOW_32) - HALF
    east = (word & LOW_32) - (other & LOW_32)
    east -= HALF_TURN * 2 if east > HALF_TURN else 0
    east += HALF_TURN * 2 if east < -HALF_TURN else 0
    cosines = cos(_radians(latitude)) * cos(_radians(other_latitude))
    half_north, half_east = _radians(latitude - other_latitude) / 2, _radians(east) / 2
    square = sin(half_north) ** 2 + cosines * sin(half_east) ** 2
    angle = 2 * asin(min(1.0, sqrt(square)))
    if square > 0.5:
        half_sum = _radians(latitude + other_latitude) / 2
        angle = pi - 2 * asin(min(1.0, sqrt(sin(half_sum) ** 2 + cosines * cos(half_east) ** 2)))
    return EARTH_RADIUS_KM * angle / (max(apart_ms, MS_MIN) / MS_PER_HOUR)


@inlined
def _radians(units: int) -> float:
    return units / UNITS_PER_DEGREE * (pi / 180)
