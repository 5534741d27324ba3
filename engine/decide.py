"""From a probability to a decision: thresholds for now, rules and lists later, over whole columns."""

from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from engine.config import Policy
from models.calibration import risk_scores
from models.explain import ABOVE, NO_REASON, Explainer, reason_text
from models.runtime import Model

DECISIONS = ("approve", "challenge", "review", "decline")
# Any value lies in one half of the reference, so that three reasons are always found among three or more aggregates.
TAIL_SHARE_MAX = 0.5


class Reason(TypedDict):
    """One reason, as it stands in a decision."""

    code: str
    feature: str
    value: float
    text: str


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
    """Decides by the risk score alone, which is the probability as the model's calibration has it."""

    def __init__(self, settings: Policy, model: Model) -> None:
        self._thresholds = np.array([settings.challenge, settings.review, settings.decline])
        self._model = model
        self._explainer = Explainer(model.manifest)
        self._names = [feature.name for feature in model.manifest.features]

    def decide(self, probabilities: NDArray[np.float32], values: NDArray[np.float64]) -> Decisions:
        """Decides for `probabilities[n]`; `values[n, columns]` are the features, from which reasons are taken."""
        scores = risk_scores(self._model.manifest.calibration, probabilities)
        codes = np.searchsorted(self._thresholds, scores, side="right")
        flagged = np.flatnonzero(codes)
        reasons = self._reasons(values[flagged]) if len(flagged) else []
        return Decisions(codes, scores, probabilities, flagged, reasons)

    def _reasons(self, values: NDArray[np.float64]) -> list[list[Reason]]:
        found = self._explainer.explain(values[:, self._model.columns], TAIL_SHARE_MAX)
        names = self._names
        columns = (found.inputs, found.values, found.directions, found.tail_shares)
        return [
            [
                Reason(
                    code="unusually_high" if direction == ABOVE else "unusually_low",
                    feature=names[column],
                    value=value,
                    text=reason_text(names[column], value, direction, share),
                )
                for column, value, direction, share in zip(*row, strict=True)
                if column != NO_REASON
            ]
            for row in zip(*(column.tolist() for column in columns), strict=True)
        ]
