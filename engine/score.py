"""Scores a matrix of features with the champion, in one inference per micro-batch."""

import numpy as np
from numpy.typing import NDArray

from engine.state.local import FeatureMatrix
from models.runtime import Model


def score(model: Model, matrix: FeatureMatrix) -> NDArray[np.float32]:
    """The champion's probability for each of n rows, float32[n]."""
    return model.score(matrix.values)
