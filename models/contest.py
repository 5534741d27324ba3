"""Two models that have scored the same labelled rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.spec import FeatureDef
from models.errors import ModelError
from models.labelled import LabelledRows, read_labelled
from models.runtime import Model, load_model

Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Side:
    """One model, its inputs [n, F] of the labelled rows, and its probabilities [n]."""

    model: Model
    inputs: Float32
    probabilities: Float32

    @property
    def reference(self) -> str:
        """Name and version, as in fraud/7."""
        return self.model.label


@dataclass(frozen=True, slots=True)
class Contest:
    """Both models on the same n rows; `card_column` is where their cards were looked for."""

    challenger: Side
    champion: Side
    rows: LabelledRows
    card_column: str


def hold(
    store: Path,
    challenger: str,
    champion: str,
    definitions: Sequence[FeatureDef],
    table_path: Path,
    card_column: str,
) -> Contest:
    """Loads both models as a worker would and has them score the labelled rows of the table.

    Raises ModelError where a model is refused, the table does not have what one of them needs, or one fails on a row.
    """
    models = [load_model(store, reference, definitions) for reference in (challenger, champion)]
    needed = [[feature.name for feature in model.manifest.features] for model in models]
    names = list(dict.fromkeys(name for features in needed for name in features))
    rows = read_labelled(table_path, names, card_column)
    sides = [
        _side(model, rows.features[:, [names.index(name) for name in features]])
        for model, features in zip(models, needed, strict=True)
    ]
    return Contest(sides[0], sides[1], rows, card_column)


def _side(model: Model, inputs: Float32) -> Side:
    try:
        return Side(model, inputs, model.score_inputs(inputs))
    except ModelError as error:
        raise ModelError(f"model {model.label}: {error}") from error
