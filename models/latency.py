"""How long two models take beside each other."""

import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice

import numpy as np
from numpy.typing import NDArray

from models.runtime import Model

Float32 = NDArray[np.float32]
Clock = Callable[[], float]

BATCH_ROWS = 256
ROUNDS = 200
WARM_UP_ROUNDS = 20


def median_seconds(
    models: tuple[Model, Model], inputs: tuple[Float32, Float32], clock: Clock = time.perf_counter
) -> tuple[float, float]:
    """The median time of one inference of 256 rows, of each model on its inputs [n, F], n >= 1.

    In every round each model scores one batch, in turns the first or the second to go first, so that whatever slows the
    machine slows both. Raises as `Model.score_inputs`.
    """
    batches = [islice(cycle(_batches(rows)), WARM_UP_ROUNDS + ROUNDS) for rows in inputs]
    seconds = np.zeros((WARM_UP_ROUNDS + ROUNDS, 2))
    for number, pair in enumerate(zip(*batches, strict=True)):
        for which in (0, 1) if number % 2 == 0 else (1, 0):
            began = clock()
            models[which].score_inputs(pair[which])
            seconds[number, which] = clock() - began
    first, second = np.median(seconds[WARM_UP_ROUNDS:], axis=0)
    return float(first), float(second)


def _batches(rows: Float32) -> Iterator[Float32]:
    """Whole batches of the rows; one of repeated rows where there are fewer."""
    if len(rows) < BATCH_ROWS:
        yield np.resize(rows, (BATCH_ROWS, rows.shape[1]))
    for at in range(0, len(rows) - BATCH_ROWS + 1, BATCH_ROWS):
        yield rows[at : at + BATCH_ROWS]
