"""Words: what is stored of an event's fields, 64 bits each, where 0 means that the event does not have the field."""

from collections.abc import Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray

UInt64 = NDArray[np.uint64]
Float64 = NDArray[np.float64]

# The bits of -0.0, which stand for both zeros: those of 0.0 would mean that there is none.
ZERO_WORD = np.uint64(1 << 63)
# A degree in units of the location word: 1e-7 degrees are about a centimetre.
UNITS_PER_DEGREE = 1e7
_HALF = 1 << 31
_LOW = np.uint64(32)


def column_seed(name: str) -> int:
    """What keeps equal texts in different columns apart."""
    return xxhash.xxh32_intdigest(name.encode())


def key_hashes(texts: Sequence[str | None], seed: int) -> UInt64:
    """XXH3-64 of each text: uint64[n], where 0 stands for None alone."""
    digest = xxhash.xxh3_64_intdigest
    return np.array([0 if text is None else digest(text.encode(), seed) or 1 for text in texts], np.uint64)


def text_word(field: str, text: str) -> int:
    """The word of one text in a column."""
    return int(key_hashes([text], column_seed(field))[0])


def number_words(numbers: Float64) -> UInt64:
    """The bits of each number, both zeros as those of -0.0; 0 for NaN, which stands for an absent number."""
    words = np.where(numbers == 0, ZERO_WORD, numbers.view(np.uint64))
    return np.where(np.isnan(numbers), np.uint64(0), words)


def location_words(latitudes: Float64, longitudes: Float64) -> UInt64:
    """Both coordinates in units of 1e-7 degrees, from -180 degrees on: latitude in the upper half, longitude below.

    0 where either is NaN; a coordinate within its range never gives that.
    """
    absent = np.isnan(latitudes) | np.isnan(longitudes)
    upper, lower = (
        (np.rint(np.where(absent, 0.0, degrees) * UNITS_PER_DEGREE).astype(np.int64) + _HALF).astype(np.uint64)
        for degrees in (latitudes, longitudes)
    )
    return np.where(absent, np.uint64(0), upper << _LOW | lower)
