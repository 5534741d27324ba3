"""Why a score is what it is: the inputs without which it would be lower, in the words of what is usual.

A group is an aggregate of an entity in all its windows, for `card.count.10s` and `card.count.1m` would say one thing
twice. Of each row the groups that are most unusual against what the model was trained on are tried: their inputs take
the usual value, the median of the reference or null, and the model scores the row again, all rows in one run. So the
price is bounded for each row, whatever the model is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import floor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.durations import duration_ms
from models.reference import Reference, References

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
ABOVE, BELOW = 1, -1
NO_REASON = -1
REASONS_PER_ROW = 3
# Groups that are tried of each row, and so rows that are scored for each.
CANDIDATES = 8
TAIL_SHARE_MAX = 0.05


@dataclass(frozen=True, slots=True)
class Reasons:
    """Up to three reasons per row, the weightiest first; all arrays are [n, 3].

    `inputs` index the model's inputs, NO_REASON where there are fewer; `directions` are ABOVE or BELOW; `tail_shares`
    are the shares of the reference that lie as far out as `values` or further; `without` are the probabilities that the
    rows would have with usual values of the group.
    """

    inputs: NDArray[np.intp]
    values: Float64
    directions: NDArray[np.int8]
    tail_shares: Float64
    without: Float64


class Explainer:
    """Finds the reasons of one model's scores."""

    def __init__(self, names: Sequence[str], references: Sequence[Reference], score: Callable[[Any], Float32]) -> None:
        """`score` gives the probabilities [n] of rows [n, F] of the model's inputs, which have these names."""
        self.names = names
        self._references = References(references)
        self._usual = np.array([reference.median for reference in references], np.float32)
        self._score = score
        groups = _groups(names)
        self._same_group = groups[:, None] == groups[None, :]

    def explain(self, inputs: Float64, probabilities: Float32, tail_share_max: float = TAIL_SHARE_MAX) -> Reasons:
        """Reasons for rows [n, F] of the model's inputs, in its order, that have these `probabilities[n]`.

        Each group gives one reason at most, in its most unusual window; nulls are no reason. Groups without which the
        probability would not be lower are none, unless that holds of all that were tried: then nothing is known but
        what is unusual. Ties stand by how unusual they are, and then in input order. Raises as the model.
        """
        found = self._candidates(inputs, tail_share_max)
        found.without[:] = self._without(inputs.astype(np.float32), found.inputs)
        lower = np.where(found.inputs == NO_REASON, -np.inf, probabilities[:, None] - found.without)
        order = np.argsort(-lower, axis=1, kind="stable")[:, :REASONS_PER_ROW]
        known = lower.max(axis=1, initial=-np.inf) > 0
        order[~known] = np.arange(REASONS_PER_ROW)
        rows = np.arange(len(inputs))[:, None]
        counts = (lower[rows, order] > 0) | ~known[:, None]
        return Reasons(
            inputs=np.where(counts, found.inputs[rows, order], NO_REASON),
            values=found.values[rows, order],
            directions=found.directions[rows, order],
            tail_shares=found.tail_shares[rows, order],
            without=found.without[rows, order],
        )

    def _candidates(self, inputs: Float64, tail_share_max: float) -> Reasons:
        """The most unusual groups of each row, [n, CANDIDATES]; `without` means nothing yet."""
        rounded = inputs.astype(np.float32).astype(np.float64)  # as the model and the reference saw them
        above, below = self._references.tail_shares(rounded)
        directions = np.where(above <= below, ABOVE, BELOW)
        tails = np.fmin(above, below)
        tails[~(tails <= tail_share_max)] = np.inf
        rows, shape = np.arange(len(inputs)), (len(inputs), CANDIDATES)
        found = Reasons(
            inputs=np.full(shape, NO_REASON, np.intp),
            values=np.full(shape, np.nan),
            directions=np.zeros(shape, np.int8),
            tail_shares=np.full(shape, np.nan),
            without=np.full(shape, np.nan),
        )
        for rank in range(CANDIDATES):
            chosen = tails.argmin(axis=1)
            some = rows[np.isfinite(tails[rows, chosen])]
            at = chosen[some]
            found.inputs[some, rank] = at
            found.values[some, rank] = inputs[some, at]
            found.directions[some, rank] = directions[some, at]
            found.tail_shares[some, rank] = tails[some, at]
            tails[self._same_group[chosen]] = np.inf
        return found

    def _without(self, inputs: Float32, chosen: NDArray[np.intp]) -> Float32:
        """Probabilities [n, CANDIDATES] of each row with usual values in the group of each chosen input."""
        rows, candidates = chosen.shape
        replaced = self._same_group[chosen] & (chosen != NO_REASON)[:, :, None]
        tried = np.where(replaced, self._usual, inputs[:, None, :])
        return self._score(tried.reshape(rows * candidates, -1)).reshape(rows, candidates)


def reason_text(name: str, value: float, direction: int, tail_share: float) -> str:
    """One reason as a person reads it.

    >>> reason_text("card.count.10m", 14.0, ABOVE, 0.001)
    'card.count.10m = 14, above 99.9% of the reference'
    """
    side = "above" if direction == ABOVE else "below"
    share = "all" if tail_share <= 0 else f"{floor(round((1 - tail_share) * 1e4, 6)) / 100:g}%"
    return f"{name} = {number_text(value)}, {side} {share} of the reference"


def number_text(value: float) -> str:
    """A number as a person reads it.

    >>> number_text(14.0), number_text(0.125)
    ('14', '0.12')
    """
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _groups(names: Sequence[str]) -> NDArray[np.intp]:
    """A number for each name, the same for names that differ in their window only."""
    stems: dict[str, int] = {}
    return np.array([stems.setdefault(_stem(name), len(stems)) for name in names], np.intp)


def _stem(name: str) -> str:
    head, _, last = name.rpartition(".")
    try:
        duration_ms(last)
    except ValueError:
        return name
    return head
