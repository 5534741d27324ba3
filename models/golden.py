"""Golden rows: inputs with the probabilities that one file gives for them, by which it is known again."""

import numpy as np
from numpy.typing import NDArray

from models.convert.original import OUTPUT
from models.errors import ModelError
from models.manifest import Golden
from models.session import infer, open_session

Float32 = NDArray[np.float32]

GOLDEN_ROWS = 32


def golden_of(model: bytes, inputs: Float32, probabilities: Float32) -> Golden:
    """GOLDEN_ROWS of `inputs` [n, F], from the least to the most suspicious by `probabilities` [n].

    The last quarter is partly null, the very last row wholly, for any feature may be null at an event; ModelError where
    the model has no answer then.
    """
    by_score = np.argsort(probabilities, kind="stable")
    rows = inputs[by_score[np.linspace(0, len(inputs) - 1, GOLDEN_ROWS).astype(np.intp)]]
    for row in range(GOLDEN_ROWS * 3 // 4, GOLDEN_ROWS):
        rows[row, row % 3 :: 3] = np.nan
    rows[-1] = np.nan
    expected = infer(open_session(model), OUTPUT, rows)
    if not np.isfinite(expected).all():
        raise ModelError("the model gives no probability where a feature is null: begin the pipeline with an imputer")
    nullable = [[None if np.isnan(value) else float(value) for value in row] for row in rows]
    return Golden(inputs=nullable, expected=expected.tolist())
