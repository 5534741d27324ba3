"""How far a model's stand-in is from it, row by row."""

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

WORST_ROWS = 5


class Pair(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One row, counted from 0 in the file, and both probabilities."""

    row: int
    original: float
    imported: float


class Parity(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The imported model against the original on `rows` reference rows.

    The original is given the float64 values of the file, the imported model the same as float32, as when it scores: so
    rounding counts. |dp| over all rows, the rows that would be decided otherwise, and those farthest apart, the worst
    first.
    """

    rows: int
    max: float
    p99: float
    flipped_rows: int
    worst: list[Pair]


def parity_of(original: NDArray[Any], imported: NDArray[Any], scores: tuple[Int64, Int64], thresholds: Int64) -> Parity:
    """Compares probabilities [n], n >= 1, and the decisions that `thresholds` on their risk `scores` make of them."""
    apart = np.abs(original.astype(np.float64) - imported)
    codes = [np.searchsorted(thresholds, column, side="right") for column in scores]
    worst = np.argsort(-apart, kind="stable")[:WORST_ROWS]
    return Parity(
        rows=len(apart),
        max=float(apart.max()),
        p99=float(np.quantile(apart, 0.99)),
        flipped_rows=int(np.count_nonzero(codes[0] != codes[1])),
        worst=[
            Pair(row=int(at), original=float(original[at]), imported=float(imported[at])) for at in worst if apart[at]
        ],
    )
