"""What each challenge threshold would do by itself: alerts by the risk score alone, as if no rule had an action."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.backtest.columns import Decided
from engine.policy.settings import SCORE_MAX

Float64 = NDArray[np.float64]

THRESHOLDS = np.arange(1, SCORE_MAX + 1)


@dataclass(frozen=True, slots=True)
class Curve:
    """Of each of THRESHOLDS, over labelled events; `precision` is NaN where there is no alert, `recall` without frauds.

    `false_alerts` are genuine events, `money_caught` is in minor units.
    """

    precision: Float64
    recall: Float64
    false_alerts: Float64
    money_caught: Float64


def curve_of(decided: Decided, number: int) -> Curve:
    """The curve of one side."""
    scores, frauds, genuine = decided.scores[number], decided.frauds, decided.genuine
    caught = _from_threshold_on(scores[frauds])
    false_alerts = _from_threshold_on(scores[genuine])
    money_caught = _from_threshold_on(scores[frauds], np.maximum(decided.amounts_minor[frauds], 0))
    with np.errstate(invalid="ignore"):
        precision = caught / (caught + false_alerts)
        recall = caught / np.float64(np.count_nonzero(frauds))
    return Curve(precision, recall, false_alerts, money_caught)


def _from_threshold_on(scores: NDArray[np.int16], weights: NDArray[np.int64] | None = None) -> Float64:
    """How many of the events, or how much of their weights, have at least each of THRESHOLDS."""
    counts = np.bincount(scores, weights, SCORE_MAX + 1).astype(np.float64)
    return np.cumsum(counts[::-1])[::-1][THRESHOLDS]
