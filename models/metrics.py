"""How good probabilities are, in the figures of fraud teams. Needs the `train` extra."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, log_loss, precision_score, recall_score, roc_auc_score

Int8 = NDArray[np.int8]
Int64 = NDArray[np.int64]

FALSE_POSITIVE_RATE = 0.001
CARDS_A_DAY = 100
DAY_MS = 86_400_000


def metrics_of(labels: Int8, probabilities: NDArray[Any]) -> dict[str, float]:
    """Figures of labelled rows [n] of both classes.

    `mean_probability` beside `positive_share` tells how true the level is.
    """
    flagged = probabilities >= 0.5
    return {
        "auc": float(roc_auc_score(labels, probabilities)),
        "average_precision": float(average_precision_score(labels, probabilities)),
        "recall_at_0.1%_false_positives": recall_at(labels, probabilities, FALSE_POSITIVE_RATE),
        "log_loss": float(log_loss(labels, probabilities)),
        "precision_at_half": float(precision_score(labels, flagged, zero_division=0.0)),
        "recall_at_half": float(recall_score(labels, flagged)),
        "mean_probability": float(probabilities.mean()),
        "positive_share": float(labels.mean()),
    }


def recall_at(labels: Int8, probabilities: NDArray[Any], false_positive_rate: float) -> float:
    """The share of frauds above the lowest threshold that at most this share of the genuine rows lies above."""
    genuine = np.sort(probabilities[labels == 0])
    allowed = int(false_positive_rate * len(genuine))
    return float((probabilities[labels == 1] > genuine[len(genuine) - 1 - allowed]).mean())


def card_precision(
    labels: Int8, probabilities: NDArray[Any], cards: NDArray[Any], times_ms: Int64, cards_a_day: int = CARDS_A_DAY
) -> tuple[float, float]:
    """Card precision@100, or at another number of cards, and the best that it could be.

    Each day (UTC) the 100 cards with the highest probability of the day are looked at; counted is the share of them
    with a fraud on that day, and the mean over all days taken. After Le Borgne et al., "Reproducible Machine Learning
    for Credit Card Fraud Detection"; unlike there, cards found on an earlier day stay in.
    """
    found, possible = [], []
    days = times_ms // DAY_MS
    for day in np.unique(days):
        today = days == day
        keys, at = np.unique(cards[today], return_inverse=True)
        highest, fraud = np.zeros(len(keys)), np.zeros(len(keys), bool)
        np.maximum.at(highest, at, probabilities[today])
        np.logical_or.at(fraud, at, labels[today] == 1)
        looked_at = np.argsort(-highest, kind="stable")[:cards_a_day]
        found.append(fraud[looked_at].sum() / cards_a_day)
        possible.append(min(fraud.sum(), cards_a_day) / cards_a_day)
    return float(np.mean(found)), float(np.mean(possible))
