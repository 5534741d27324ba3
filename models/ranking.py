"""Figures of how a model ranks rows, where each row counts as often as its weight says.

With weights of 1 they are those of `models.metrics`. What is sorted is sorted once, for a bootstrap asks hundreds of
times.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.metrics import CARDS_A_DAY, DAY_MS, FALSE_POSITIVE_RATE

Bool = NDArray[np.bool_]
Float64 = NDArray[np.float64]
Index = NDArray[np.intp]
Int8 = NDArray[np.int8]
Int64 = NDArray[np.int64]


class Figures(NamedTuple):
    """What one ranking is worth."""

    auc: float
    average_precision: float
    recall: float


@dataclass(frozen=True, slots=True)
class Ranking:
    """Rows by descending probability: `order` [n], which of them are `fraud` [n], and where equal ones `end` [ties]."""

    order: Index
    fraud: Bool
    end: Index

    def figures(self, weights: Int64) -> Figures:
        """AUC, average precision, and recall at 0.1 % false positives; `weights` [n] count rows of both labels."""
        counted = weights[self.order]
        frauds = np.cumsum(counted * self.fraud)[self.end]
        genuine = np.cumsum(counted)[self.end] - frauds
        gained = np.diff(frauds, prepend=0)
        # A row of no weight at the very top leaves 0 of 0, which gains nothing.
        precision = frauds / np.maximum(frauds + genuine, 1)
        below = genuine[-1] - genuine + np.diff(genuine, prepend=0) / 2
        allowed = int(FALSE_POSITIVE_RATE * genuine[-1])
        within = int(np.searchsorted(genuine, allowed, "right"))
        return Figures(
            auc=float((gained * below).sum() / (frauds[-1] * genuine[-1])),
            average_precision=float((gained * precision).sum() / frauds[-1]),
            recall=float(frauds[within - 1] / frauds[-1]) if within else 0.0,
        )


def ranking_of(labels: Int8, probabilities: NDArray[Any]) -> Ranking:
    """The ranking of rows [n], n >= 1."""
    order = np.argsort(-probabilities, kind="stable")
    end = np.append(np.flatnonzero(np.diff(probabilities[order])), len(order) - 1)
    return Ranking(order, labels[order] == 1, end)


@dataclass(frozen=True, slots=True)
class CardRanking:
    """The cards of each day by descending probability, [c] cards in all, days one after another from `start` [days]."""

    cards: Int64
    fraud: Bool
    start: Index

    def precision(self, weights: Int64) -> float:
        """Card precision@100; `weights` [number of cards] say how often each card counts."""
        counted = weights[self.cards]
        before = np.cumsum(counted) - counted
        days = np.diff(self.start, append=len(counted))
        looked_at = np.clip(CARDS_A_DAY - (before - np.repeat(before[self.start], days)), 0, counted)
        return float((np.add.reduceat(looked_at * self.fraud, self.start) / CARDS_A_DAY).mean())


def card_ranking_of(labels: Int8, probabilities: NDArray[Any], cards: Int64, times_ms: Int64) -> CardRanking:
    """The ranking of rows [n], n >= 1, by card and day (UTC); `cards` are numbers from 0."""
    days = times_ms // DAY_MS
    pairs, at = np.unique(np.stack((days, cards), axis=1), axis=0, return_inverse=True)
    at = at.reshape(-1)
    highest, fraud = np.zeros(len(pairs), probabilities.dtype), np.zeros(len(pairs), bool)
    np.maximum.at(highest, at, probabilities)
    np.logical_or.at(fraud, at, labels == 1)
    order = np.lexsort((-highest, pairs[:, 0]))
    start = np.flatnonzero(np.diff(pairs[order, 0], prepend=pairs[order[0], 0] - 1))
    return CardRanking(pairs[order, 1], fraud[order], start)
