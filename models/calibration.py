"""From a probability to the risk score: how few of the genuine events look as suspicious.

    risk score                   0        250        500        750       1000
    genuine events as high    100 %       10 %        1 %      0.1 %     0.01 %

So a threshold on the risk score is a rate of false alarms, and stays one when another model comes, whatever the level
of its probabilities.
"""

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

RISK_SCORE_MAX = 1000
SCORE_PER_DECADE = 250
_KNOTS = 41


class Calibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Points between which the risk score is linear in the probability; both lists ascend strictly from 0.

    `rows`: how many it was taken from; `genuine`: whether those were known to be genuine, or all for want of labels.
    """

    probabilities: list[float]
    risk_scores: list[float]
    rows: int
    genuine: bool

    def __post_init__(self) -> None:
        if not 2 <= len(self.probabilities) == len(self.risk_scores):
            raise ValueError("calibration: needs two points or more, each with both values")
        if not all((np.diff(values) > 0).all() for values in (self.probabilities, self.risk_scores)):
            raise ValueError("calibration: probabilities and risk_scores must ascend")


def calibration_of(probabilities: NDArray[Any], *, genuine: bool) -> Calibration:
    """The calibration on a sample [n], n >= 1.

    A probability that the share s of the sample reaches has the score -250 log10(s). Above the highest of the sample it
    rises to 1000 at probability 1.
    """
    present = np.sort(probabilities.astype(np.float64))
    shares = 10 ** (-np.linspace(0, RISK_SCORE_MAX, _KNOTS) / SCORE_PER_DECADE)
    knots = np.unique(np.quantile(present, 1 - shares, method="inverted_cdf"))
    reached = 1 - np.searchsorted(present, knots, "left") / len(present)
    scores = np.minimum(-SCORE_PER_DECADE * np.log10(reached), RISK_SCORE_MAX)
    inner = (knots > 0) & (knots < 1) & (scores > 0) & (scores < RISK_SCORE_MAX)
    return Calibration(
        probabilities=[0.0, *knots[inner].tolist(), 1.0],
        risk_scores=[0.0, *scores[inner].tolist(), float(RISK_SCORE_MAX)],
        rows=len(present),
        genuine=genuine,
    )


def risk_scores(calibration: Calibration | None, probabilities: NDArray[Any]) -> NDArray[np.int64]:
    """Risk scores [n], 0 to 1000; without a calibration the probability in thousandths."""
    wide = probabilities.astype(np.float64)
    if calibration is None:
        return np.rint(wide * RISK_SCORE_MAX).astype(np.int64)
    return np.rint(np.interp(wide, calibration.probabilities, calibration.risk_scores)).astype(np.int64)
