"""Event-level features: values of the event itself, which need no state."""

import math
from collections.abc import Mapping
from functools import cache

import numpy as np
from numpy.typing import NDArray

from features.spec import AMOUNT, FeatureSpec
from features.words import text_word

Int64 = NDArray[np.int64]
UInt64 = NDArray[np.uint64]
Float64 = NDArray[np.float64]

MS_PER_HOUR = 3_600_000
MS_PER_DAY = 86_400_000
# 1970-01-01 was a Thursday; a week begins with Monday, day 0.
FIRST_WEEKDAY = 3


def event_values(
    spec: FeatureSpec,
    times_ms: Int64,
    amounts_minor: Int64,
    minor_per_major: float,
    numbers: Mapping[str, Float64],
    categories: Mapping[str, UInt64],
    flags: Int64,
) -> Float64:
    """Values of n events, float64[n, k], by the columns of `spec.event.names()`; NaN where there is none.

    `numbers` and `categories` have a column for each field that is asked for, NaN and 0 where an event does not have
    it; bit i of `flags[n]` says whether `spec.predicates[i]` holds.
    """
    event = spec.event
    values = np.empty((len(times_ms), len(event.names())))
    columns = iter(values.T)
    for name, column in zip(event.features, columns, strict=False):
        if name == AMOUNT:
            column[:] = amounts_minor / minor_per_major
        elif name == "hour_of_day":
            column[:] = times_ms // MS_PER_HOUR % 24
        elif name == "day_of_week":
            column[:] = (times_ms // MS_PER_DAY + FIRST_WEEKDAY) % 7
        elif name in spec.types.numbers:
            column[:] = numbers[name]
        else:
            column[:] = flags >> spec.predicates.index(name) & 1
    for name, texts in event.one_hot:
        for text, column in zip(texts, columns, strict=False):
            column[:] = categories[name] == _word(name, text)
    for (name, buckets), column in zip(event.hashed, columns, strict=True):
        column[:] = np.where(categories[name] == 0, math.nan, categories[name] % np.uint64(buckets))
    return values


@cache
def _word(field: str, text: str) -> np.uint64:
    return np.uint64(text_word(field, text))
