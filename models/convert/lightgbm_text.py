"""LightGBM's text format: `booster.save_model("fraud.txt")`. Needs the `train` extra."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray

from models.convert.ensemble import LESS_OR_EQUAL, Ensemble, float32_nearest, float32_not_above
from models.convert.original import Original
from models.errors import ModelError

Float64 = NDArray[np.float64]

LIBRARIES = ("lightgbm", "numpy", "onnx", "onnxruntime")
_NUMBERED = re.compile(r"Column_\d+")


def read_lightgbm(path: Path) -> Original:
    """The booster of a text file, up to its best iteration; ModelError where it is no binary classifier by name."""
    try:
        booster = lightgbm.Booster(model_file=path)
    except lightgbm.basic.LightGBMError as error:
        raise ModelError(f"{path} is no model of LightGBM: {error}") from error
    return lightgbm_original(booster)


def lightgbm_original(booster: Any, positive_weight: float = 1.0, *, float32: bool = False) -> Original:
    """A booster as it predicts, less the weight that its positives had in training; `float32`: trained on such values.

    Weighting positives by w multiplies the odds that the booster learns by w; taking log(w) off its raw score undoes
    that (King and Zeng 2001, "Logistic Regression in Rare Events Data", on prior correction).
    """
    tree = booster.dump_model()
    names = tuple(tree["feature_names"])
    if any(_NUMBERED.fullmatch(name) for name in names):
        raise ModelError(
            f"the LightGBM model has columns without a name ({', '.join(names[:3])}, ...): give "
            "lightgbm.Dataset the names of the features as feature_name, or train on a DataFrame"
        )
    if tree["objective"] != "binary sigmoid:1":
        raise ModelError(f"the LightGBM model has the objective {tree['objective']!r}, not 'binary sigmoid:1'")
    if tree["average_output"]:
        raise ModelError("the LightGBM model is a random forest (boosting=rf), which is not supported")
    base = -float(np.log(positive_weight))

    def predict(rows: Float64) -> Float64:
        raw: Float64 = booster.predict(rows, raw_score=True)
        return 1 / (1 + np.exp(-(raw + base)))

    return Original(
        "lightgbm",
        names,
        predict,
        _ensemble(tree, base, float32_not_above if float32 else float32_nearest).to_onnx(len(names)),
        LIBRARIES,
    )


def _ensemble(model: dict[str, Any], base: float, rounded: Callable[[float], float]) -> Ensemble:
    ensemble = Ensemble(LESS_OR_EQUAL, base)
    for number, tree in enumerate(model["tree_info"]):
        waiting, named = [(0, tree["tree_structure"])], 1
        while waiting:
            node, part = waiting.pop()
            if "split_feature" not in part:
                _check_leaf(part)
                ensemble.leaf(number, node, part["leaf_value"])
                continue
            ensemble.split(
                number,
                node,
                column=part["split_feature"],
                threshold=rounded(_threshold(part, model["feature_names"])),
                true=named,
                false=named + 1,
                null_is_true=_null_is_true(part),
            )
            waiting += [(named, part["left_child"]), (named + 1, part["right_child"])]
            named += 2
    return ensemble


def _check_leaf(leaf: dict[str, Any]) -> None:
    if "leaf_coeff" in leaf:
        raise ModelError("the LightGBM model has linear trees (linear_tree=true), which are not supported")


def _threshold(split: dict[str, Any], names: list[str]) -> float:
    if split["decision_type"] != "<=":
        raise ModelError(
            f"the LightGBM model splits {names[split['split_feature']]} by category, but features are numbers"
        )
    return float(split["threshold"])


def _null_is_true(split: dict[str, Any]) -> bool:
    """Where LightGBM sends a null: to the default side, or with 0 where training saw no null."""
    with_zero = bool(split["threshold"] >= 0)
    if split["missing_type"] == "NaN":
        return bool(split["default_left"])
    if split["missing_type"] == "Zero" and split["default_left"] != with_zero:
        raise ModelError("the LightGBM model takes 0 as missing (zero_as_missing=true), which is not supported")
    return with_zero
