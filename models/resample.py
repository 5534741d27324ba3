"""What a difference of two models may be worth on other data of the same kind: a paired bootstrap over cards.

Frauds of one card come together, and a model finds all of them or none: they are no independent trials. So a card is
drawn with all its events, and both models are judged on the same draw:

    cards     A  B  C  D  E          draw 1    B  B  C  E  A        challenger - champion, draw by draw
    weights   1  2  1  0  1          draw 2    D  A  A  C  E        -> 2.5 % ... 97.5 % of these differences
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.labelled import NO_CARD

Float64 = NDArray[np.float64]
Int8 = NDArray[np.int8]
Int64 = NDArray[np.int64]

RESAMPLES = 400
SEED = 1
# The interval from 2.5 % to 97.5 %.
INTERVAL = (0.025, 0.975)


@dataclass(frozen=True, slots=True)
class Units:
    """What is drawn: `of` [n] is the unit of each row, units [0, cards) are cards in their order, then single rows."""

    of: Int64
    number: int
    cards: int
    frauds: int


def units_of(labels: Int8, cards: Int64 | None) -> Units:
    """Each card is one unit, each row without a card one of its own; `frauds`: units with a fraud."""
    found = np.full(len(labels), NO_CARD) if cards is None else cards
    first = int(found.max()) + 1
    alone = found == NO_CARD
    of = found.astype(np.int64)
    of[alone] = first + np.arange(np.count_nonzero(alone))
    return Units(of, first + int(np.count_nonzero(alone)), first, len(np.unique(of[labels == 1])))


def draws(units: Units, labels: Int8) -> Iterator[Int64]:
    """How often each unit was drawn [number], RESAMPLES times, the same each time it is asked.

    A draw without a fraud or without a genuine row has no figures, and is drawn again.
    """
    rng = np.random.default_rng(SEED)
    left = RESAMPLES
    while left:
        drawn = np.bincount(rng.integers(0, units.number, units.number), minlength=units.number)
        fraud = drawn[units.of] * (labels == 1)
        if 0 < fraud.sum() < drawn[units.of].sum():
            left -= 1
            yield drawn


def interval_of(differences: Float64) -> tuple[float, float]:
    """Between which bounds 95 % of the differences [RESAMPLES] lie."""
    low, high = np.quantile(differences, INTERVAL)
    return float(low), float(high)
