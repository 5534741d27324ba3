"""Scores a matrix of features with the champion, in one inference per micro-batch."""

import numpy as np
from numpy.typing import NDArray

from engine.errors import FatalError
from engine.state.local import FeatureMatrix
from models.errors import ModelError
from models.runtime import Model


def score(model: Model, matrix: FeatureMatrix) -> NDArray[np.float32]:
    """The champion's probability for each of n rows, float32[n]; FatalError where it has none for one of them."""
    try:
        return model.score(matrix.values)
    except ModelError as error:
        raise FatalError(f"model {model.label}: {error}; choose another one as models.champion") from error
