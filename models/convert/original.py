"""A model as its own library has it, with what is needed to ask it and to replace it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

INPUT, OUTPUT = "features", "probability"


@dataclass(frozen=True, slots=True)
class Original:
    """A binary classifier and the ONNX graph that is to stand for it.

    `features` are the names of its inputs, in its own order. `predict` takes rows [n, features] in that order, NaN for
    null, and gives the probabilities [n] of fraud that the library itself computes; ValueError for rows that it
    refuses. `onnx` is a graph from float32 `features` [rows, features] to float32 `probability` [rows]. `libraries` are
    the distributions that made both.
    """

    format: str
    features: tuple[str, ...]
    predict: Callable[[Float64], Float64]
    onnx: bytes
    libraries: tuple[str, ...]
