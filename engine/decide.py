"""From a probability to a decision: thresholds for now, rules and lists later, over whole columns."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.config import Policy
from models.explain import Explainer, Reason

DECISIONS = ("approve", "challenge", "review", "decline")
RISK_SCORE_MAX = 1000


@dataclass(slots=True)
class Decisions:
    """What was decided for n events: `codes[n]` index DECISIONS, `risk_scores[n]` in 0..1000, `probabilities[n]`.

    `flagged` are the rows that are not approve, ascending; `reasons` has one list for each of them.
    """

    codes: NDArray[np.int64]
    risk_scores: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    flagged: NDArray[np.intp]
    reasons: list[list[Reason]]


class ThresholdPolicy:
    """Decides by the risk score alone: the probability in thousandths."""

    def __init__(self, settings: Policy, explainer: Explainer) -> None:
        self._thresholds = np.array([settings.challenge, settings.review, settings.decline])
        self._explainer = explainer

    def decide(self, probabilities: NDArray[np.float32], values: NDArray[np.float64]) -> Decisions:
        """Decides for `probabilities[n]`; `values[n, columns]` are the features, from which reasons are taken."""
        risk_scores = np.rint(probabilities.astype(np.float64) * RISK_SCORE_MAX).astype(np.int64)
        codes = np.searchsorted(self._thresholds, risk_scores, side="right")
        flagged = np.flatnonzero(codes)
        reasons = self._explainer.reasons(values[flagged]) if len(flagged) else []
        return Decisions(codes, risk_scores, probabilities, flagged, reasons)
