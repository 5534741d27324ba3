"""Why a score is what it is: the inputs that are most unusual against what the model was trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor

import numpy as np
from numpy.typing import NDArray

from features.durations import duration_ms
from models.manifest import Manifest
from models.reference import References

Float64 = NDArray[np.float64]
ABOVE, BELOW = 1, -1
NO_REASON = -1
REASONS_PER_ROW = 3
TAIL_SHARE_MAX = 0.05


@dataclass(frozen=True, slots=True)
class Reasons:
    """Up to three reasons per row, the most unusual first; all arrays are [n, 3].

    `inputs` index the model's inputs, NO_REASON where there are fewer; `directions` are ABOVE or BELOW;
    `tail_shares` are the shares of the reference that lie as far out as `values` or further.
    """

    inputs: NDArray[np.intp]
    values: Float64
    directions: NDArray[np.int8]
    tail_shares: Float64


class Explainer:
    """Finds the reasons of one model's scores."""

    def __init__(self, manifest: Manifest) -> None:
        names = [feature.name for feature in manifest.features]
        self._references = References([manifest.reference[name] for name in names])
        groups = _groups(names)
        self._same_group = groups[:, None] == groups[None, :]

    def explain(self, inputs: Float64, tail_share_max: float = TAIL_SHARE_MAX) -> Reasons:
        """Reasons for rows [n, F] of the model's inputs, in its order (`features[:, model.columns]`).

        Each aggregate of an entity gives one reason at most, in its most unusual window, for `card.count.10s` and
        `card.count.1m` would say one thing twice. Nulls are no reason. Ties stand in input order.
        """
        rounded = inputs.astype(np.float32).astype(np.float64)  # as the model and the reference saw them
        above, below = self._references.tail_shares(rounded)
        directions = np.where(above <= below, ABOVE, BELOW)
        tails = np.fmin(above, below)
        tails[~(tails <= tail_share_max)] = np.inf
        rows = np.arange(len(inputs))
        reasons = Reasons(
            inputs=np.full((len(inputs), REASONS_PER_ROW), NO_REASON, np.intp),
            values=np.full((len(inputs), REASONS_PER_ROW), np.nan),
            directions=np.zeros((len(inputs), REASONS_PER_ROW), np.int8),
            tail_shares=np.full((len(inputs), REASONS_PER_ROW), np.nan),
        )
        for rank in range(REASONS_PER_ROW):
            chosen = tails.argmin(axis=1)
            found = rows[np.isfinite(tails[rows, chosen])]
            at = chosen[found]
            reasons.inputs[found, rank] = at
            reasons.values[found, rank] = inputs[found, at]
            reasons.directions[found, rank] = directions[found, at]
            reasons.tail_shares[found, rank] = tails[found, at]
            tails[self._same_group[chosen]] = np.inf
        return reasons


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
