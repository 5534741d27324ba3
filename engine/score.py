"""Scores a matrix of features with the champion, in one inference per micro-batch."""

import logging

import numpy as np
from numpy.typing import NDArray

from engine.errors import FatalError
from models.errors import ModelError
from models.runtime import Scorer

_log = logging.getLogger("tidegate.models")


def score(model: Scorer, values: NDArray[np.float64], *, goes_on: bool) -> NDArray[np.float32]:
    """The champion's probability for each of n rows of features, float32[n].

    Where it has none for one of them: FatalError, or, if the policy `goes_on` without a model, NaN for that row. Rows
    are then asked one by one, so that it is the same ones however batches are cut.
    """
    try:
        return model.score(values)
    except ModelError as error:
        if not goes_on:
            raise FatalError(f"model {model.label}: {error}; choose another one as models.champion") from error
        _log.error("the model has no answer to some events", extra={"model": model.label, "why": str(error)})
    return np.concatenate([_alone(model, values[row : row + 1]) for row in range(len(values))])


def _alone(model: Scorer, row: NDArray[np.float64]) -> NDArray[np.float32]:
    try:
        return model.score(row)
    except ModelError:  # said of the whole batch
        return np.full(1, np.nan, np.float32)
