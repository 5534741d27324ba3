"""What values of a feature are usual: quantiles of a sample, and how far out in its tails a value lies."""

from collections.abc import Sequence
from math import nan

import msgspec
import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

_TAIL = np.array([1e-5, 1e-4, 1e-3, 5e-3, 0.01, 0.02, 0.05])
LEVELS = np.concatenate([[0.0], _TAIL, np.arange(0.1, 0.91, 0.1), 1 - _TAIL[::-1], [1.0]])


class Reference(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The distribution of one feature over a sample.

    `edges` are distinct observed values, ascending, at the quantiles LEVELS; `below[i]` is the share of the
    sample under edges[i], `up_to[i]` the share under or at it. Nulls count in `null_share` and nowhere else.
    """

    edges: list[float]
    below: list[float]
    up_to: list[float]
    null_share: float

    def __post_init__(self) -> None:
        if not len(self.edges) == len(self.below) == len(self.up_to):
            raise ValueError("edges, below and up_to: must have the same length")

    @property
    def median(self) -> float:
        """The middle of the sample, NaN where that is null: of half of it or more."""
        if self.null_share >= 0.5:
            return nan
        return next((edge for edge, up_to in zip(self.edges, self.up_to, strict=True) if up_to >= 0.5), nan)

    def bin_shares(self) -> list[float]:
        """The shares of the sample in the bins that its edges make, one more than there are edges.

        An edge belongs to the bin below it, so the last bin holds what lies beyond the sample, which is nothing.

            edges          10          20          30
            bins    ..10] |   (10..20]  | (20..30]  |  (30..
        """
        return np.diff([0.0, *self.up_to, 1.0]).tolist() if self.edges else [1.0]


def reference_of(values: Float64) -> Reference:
    """The reference of a sample [n], n >= 1; NaN is null."""
    present = np.sort(values[~np.isnan(values)])
    null_share = 1 - len(present) / len(values)
    if not len(present):
        return Reference(edges=[], below=[], up_to=[], null_share=null_share)
    edges = np.unique(np.quantile(present, LEVELS, method="inverted_cdf"))
    return Reference(
        edges=edges.tolist(),
        below=(np.searchsorted(present, edges, "left") / len(present)).tolist(),
        up_to=(np.searchsorted(present, edges, "right") / len(present)).tolist(),
        null_share=null_share,
    )


class References:
    """The references of F features, side by side, so that a few rows cost no more than one."""

    def __init__(self, references: Sequence[Reference]) -> None:
        edges_max = max((len(reference.edges) for reference in references), default=0)
        shape = (len(references), edges_max + 1)
        # No value lies above infinity, so none is found beyond a feature's own edges.
        self._edges = np.full(shape, np.inf)
        self._below, self._up_to = np.ones(shape), np.ones(shape)
        self._lengths = np.array([len(reference.edges) for reference in references], np.intp)
        for row, reference in enumerate(references):
            length = len(reference.edges)
            self._edges[row, :length] = reference.edges
            self._below[row, :length] = reference.below
            # One place on, for what is up to the edge before.
            self._up_to[row, : length + 1] = [0.0, *reference.up_to]

    def tail_shares(self, values: Float64) -> tuple[Float64, Float64]:
        """Shares of the samples at or above, and at or below, each value [n, F].

        Exact at an edge; between two edges the larger bound: no value is called rarer than it is. NaN for null, and of
        a feature of which only nulls were seen.

            edges      10        20        30
            value 25              |   ^     |     at or above: 1 - up_to[20], at or below: below[30]
        """
        features = np.arange(len(self._lengths))
        at = (self._edges[:, :-1] < values[:, :, None]).sum(axis=2)  # edges under the value
        on_edge = self._edges[features, at] == values
        above = 1 - np.where(on_edge, self._below[features, at], self._up_to[features, at])
        next_edge = np.minimum(at + 1, self._lengths)
        beneath = np.where(on_edge, self._up_to[features, next_edge], self._below[features, at])
        null = np.isnan(values) | (self._lengths == 0)
        above[null] = beneath[null] = np.nan
        return above, beneath
