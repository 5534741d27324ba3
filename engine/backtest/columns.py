"""What a backtest keeps of each event: a few numbers, so that half a year fits into memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from engine.events import Bool, Int64, UInt64
from models.table import UNLABELLED

Int8 = NDArray[np.int8]
Int16 = NDArray[np.int16]

# The rows of what there is for both sides.
RUNNING, CANDIDATE = 0, 1
NO_CARD = 0


@dataclass(frozen=True, slots=True)
class Decided:
    """n events, and how both sides decided them: 31 bytes each.

    `amounts_minor` in minor units of the base currency. `cards`: the hash of the key, NO_CARD where there is none.
    `labels` of 0, 1 or UNLABELLED. `codes[2, n]` index DECISIONS, `scores[2, n]` are risk scores.
    """

    times_ms: Int64
    amounts_minor: Int64
    cards: UInt64
    labels: Int8
    codes: Int8
    scores: Int16

    def __len__(self) -> int:
        return len(self.times_ms)

    @property
    def frauds(self) -> Bool:
        frauds: Bool = self.labels == 1
        return frauds

    @property
    def genuine(self) -> Bool:
        genuine: Bool = self.labels == 0
        return genuine

    @property
    def labelled(self) -> Bool:
        labelled: Bool = self.labels != UNLABELLED
        return labelled

    @property
    def alerts(self) -> Bool:
        """Which of the events are not approved, by side: bool[2, n]."""
        alerts: Bool = self.codes != 0
        return alerts

    @classmethod
    def joined(cls, chunks: Sequence[Self]) -> Self:
        """One after another."""
        return cls(
            times_ms=np.concatenate([np.zeros(0, np.int64), *(chunk.times_ms for chunk in chunks)]),
            amounts_minor=np.concatenate([np.zeros(0, np.int64), *(chunk.amounts_minor for chunk in chunks)]),
            cards=np.concatenate([np.zeros(0, np.uint64), *(chunk.cards for chunk in chunks)]),
            labels=np.concatenate([np.zeros(0, np.int8), *(chunk.labels for chunk in chunks)]),
            codes=np.concatenate([np.zeros((2, 0), np.int8), *(chunk.codes for chunk in chunks)], axis=1),
            scores=np.concatenate([np.zeros((2, 0), np.int16), *(chunk.scores for chunk in chunks)], axis=1),
        )
