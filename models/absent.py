"""What stands in a model's place where none can be loaded: it has no answer to anything."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.calibration import Calibration
from models.explain import Explainer
from models.reference import Reference


@dataclass(frozen=True, slots=True)
class NoModel:
    """A `models.runtime.Scorer` without answers."""

    version: int = 0
    calibration: Calibration | None = None

    @property
    def label(self) -> str:
        """name/version."""
        return "none/0"

    @property
    def facts(self) -> dict[str, str]:
        """As of a model, whose bytes have no hash here."""
        return {"name": "none", "version": "0", "sha256": ""}

    @property
    def columns(self) -> NDArray[np.intp]:
        """It reads no features."""
        return np.zeros(0, np.intp)

    @property
    def references(self) -> dict[str, Reference]:
        """Of no features."""
        return {}

    def score(self, features: NDArray[np.float64]) -> NDArray[np.float32]:
        """NaN for each of n rows."""
        return np.full(len(features), np.nan, np.float32)

    def explainer(self) -> Explainer:
        """Of nothing."""
        return Explainer([], [], self.score)
