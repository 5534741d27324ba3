"""XGBoost's own format: `booster.save_model("fraud.json")`. Needs the `train` extra."""

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import xgboost
from numpy.typing import NDArray

from models.convert.ensemble import LESS, Ensemble
from models.convert.original import Original
from models.errors import ModelError

Float64 = NDArray[np.float64]

LIBRARIES = ("numpy", "onnx", "onnxruntime", "xgboost-cpu")
_OBJECTIVES = ("binary:logistic", "reg:logistic")
_NO_CHILD = -1


def read_xgboost(path: Path) -> Original:
    """The booster of a JSON file; ModelError where it is no binary classifier by name.

    If training stopped early, it has the trees up to the best iteration, as XGBClassifier uses it.
    """
    booster = xgboost.Booster({"nthread": 1})
    try:
        booster.load_model(path)
    except xgboost.core.XGBoostError as error:
        raise ModelError(f"{path} is no model of XGBoost: {str(error).splitlines()[0]}") from error
    if booster.attr("best_iteration") is not None:
        booster = booster[: booster.best_iteration + 1]
    if booster.feature_names is None:
        raise ModelError(
            "the XGBoost model has columns without a name: give xgboost.DMatrix the names of the features as "
            "feature_names, or train on a DataFrame"
        )
    names = tuple(booster.feature_names)
    learner = orjson.loads(booster.save_raw("json"))["learner"]

    def predict(rows: Float64) -> Float64:
        matrix = xgboost.DMatrix(rows, feature_names=list(names), nthread=1)
        probabilities: Float64 = booster.predict(matrix).astype(np.float64)
        return probabilities

    return Original("xgboost", names, predict, _ensemble(learner).to_onnx(len(names)), LIBRARIES)


def _ensemble(learner: dict[str, Any]) -> Ensemble:
    objective, booster = learner["objective"]["name"], learner["gradient_booster"]
    if objective not in _OBJECTIVES:
        raise ModelError(
            f"the XGBoost model has the objective {objective!r}, not {' or '.join(map(repr, _OBJECTIVES))}"
        )
    if booster["name"] != "gbtree":
        raise ModelError(f"the XGBoost model has the booster {booster['name']!r}, not 'gbtree'")
    ensemble = Ensemble(LESS, _base(learner["learner_model_param"]["base_score"]))
    for number, tree in enumerate(booster["model"]["trees"]):
        if tree["categories_nodes"]:
            raise ModelError("the XGBoost model splits by category, which no feature is: they are numbers")
        rows = zip(
            tree["left_children"],
            tree["right_children"],
            tree["split_indices"],
            tree["split_conditions"],
            tree["default_left"],
            strict=True,
        )
        for node, (left, right, column, value, default_left) in enumerate(rows):
            if left == _NO_CHILD:
                ensemble.leaf(number, node, value)
                continue
            ensemble.split(
                number,
                node,
                column=column,
                threshold=value,
                true=left,
                false=right,
                null_is_true=bool(default_left),
            )
    return ensemble


def _base(base_score: str) -> float:
    """The log odds that the trees start from: `0.5`, or since XGBoost 3.1 a list of one, `[5E-1]`."""
    probability = float(base_score.strip("[]"))
    return float(np.log(probability / (1 - probability)))
