"""scikit-learn pipelines, in the format of skops: `skops.io.dump(pipeline, "fraud.skops")`. Needs the `train` extra.

A skops file is data: the names of types with their values. Nothing is unpickled, and types that skops does not trust
are refused. It does not trust trees, arrays of node numbers that scikit-learn follows blindly: these are checked.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import onnx
import onnx.compose
import skops.io
from numpy.typing import NDArray
from onnx import TensorProto, helper
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType
from skl2onnx.common.exceptions import MissingConverter, MissingShapeCalculator
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.tree._tree import Tree
from skops.io.exceptions import UntrustedTypesFoundException

from models.convert.ensemble import IR_VERSION, LESS_OR_EQUAL, OPSET, Ensemble, float32_nearest
from models.convert.graph import as_scorer
from models.convert.original import Original
from models.errors import ModelError

Float64 = NDArray[np.float64]

LIBRARIES = ("numpy", "onnx", "onnxruntime", "scikit-learn", "skl2onnx", "skops")
_TREES = "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"
TRUSTED = ["numpy.dtype", "sklearn.tree._tree.Tree", _TREES]
_NO_CHILD = -1


def read_skops(path: Path) -> Original:
    """The fitted pipeline of a file; ModelError where it is no binary classifier by name."""
    try:
        pipeline = skops.io.load(path, trusted=TRUSTED)
    except UntrustedTypesFoundException as error:
        raise ModelError(f"{path} holds more than scikit-learn: {str(error).splitlines()[0]}") from error
    except (BadZipFile, KeyError, ValueError, TypeError) as error:
        raise ModelError(f"{path} is no file of skops: {error}") from error
    if not isinstance(pipeline, BaseEstimator) or list(getattr(pipeline, "classes_", ())) != [0, 1]:
        raise ModelError(f"{path} holds no fitted classifier of 0 and 1")
    if not hasattr(pipeline, "feature_names_in_"):
        raise ModelError(
            f"the {type(pipeline).__name__} has columns without a name: fit it on a DataFrame whose columns have the "
            "names of the features"
        )
    _check_trees(pipeline)
    _name_by_position(pipeline)
    names = tuple(map(str, pipeline.feature_names_in_))

    def predict(rows: Float64) -> Float64:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "X does not have valid feature names")  # rows stand in their order
            probabilities: Float64 = pipeline.predict_proba(rows)[:, 1]
        return probabilities

    return Original("scikit-learn", names, predict, _to_onnx(pipeline, len(names)), LIBRARIES)


def _to_onnx(pipeline: Any, columns: int) -> bytes:
    """The last step in float32, which is how scikit-learn's own trees compare; all steps before it in float64.

    In float32 throughout, a scaled value may fall on the other side of a split.
    """
    last = pipeline.steps[-1][1] if isinstance(pipeline, Pipeline) else pipeline
    before = pipeline[:-1] if isinstance(pipeline, Pipeline) and len(pipeline.steps) > 1 else None
    if before is None:
        return as_scorer(_classifier(last, columns), columns)
    prepared = _converted(before, [("rows", DoubleTensorType([None, columns]))], None)
    _settle_imputers(prepared.graph)
    _narrow(prepared.graph)
    classifier = _classifier(last, last.n_features_in_)
    joint = [("before/narrow", f"last/{classifier.graph.input[0].name}")]
    merged = onnx.compose.merge_models(
        onnx.compose.add_prefix(prepared, "before/"), onnx.compose.add_prefix(classifier, "last/"), joint
    )
    return as_scorer(merged, columns)


def _converted(model: Any, inputs: list[tuple[str, Any]], options: Any) -> onnx.ModelProto:
    try:
        graph = convert_sklearn(model, initial_types=inputs, options=options, target_opset=OPSET)
    except (MissingConverter, MissingShapeCalculator, NotImplementedError, RuntimeError) as error:
        raise ModelError(f"skl2onnx cannot convert {type(model).__name__}: {str(error).splitlines()[0]}") from error
    # skl2onnx states the lowest versions that do; two graphs can be joined only if they state the same.
    del graph.opset_import[:]
    graph.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in OPSET.items())
    graph.ir_version = IR_VERSION
    return graph


def _hist_gradient_boosting(model: Any) -> onnx.ModelProto:
    """Its trees compare float64; skl2onnx knows neither their thresholds nor the NumPy of today."""
    ensemble = Ensemble(LESS_OR_EQUAL, float(model._baseline_prediction.item()))
    for number, (tree,) in enumerate(model._predictors):
        for at, node in enumerate(tree.nodes):
            if node["is_leaf"]:
                ensemble.leaf(number, at, float(node["value"]))
                continue
            ensemble.split(
                number,
                at,
                column=int(node["feature_idx"]),
                threshold=float32_nearest(float(node["num_threshold"])),
                true=int(node["left"]),
                false=int(node["right"]),
                null_is_true=bool(node["missing_go_to_left"]),
            )
    return onnx.load_from_string(ensemble.to_onnx(model.n_features_in_))


def _logistic_regression(model: Any) -> onnx.ModelProto:
    """In float64: in float32 the last bits of a row's probability would depend on the rows beside it."""
    columns = model.n_features_in_
    nodes = [
        helper.make_node("Cast", ["rows"], ["wide"], to=TensorProto.DOUBLE),
        helper.make_node("MatMul", ["wide", "weights"], ["weighted"]),
        helper.make_node("Add", ["weighted", "intercept"], ["log_odds"]),
        helper.make_node("Sigmoid", ["log_odds"], ["fraud"]),
    ]
    graph = helper.make_graph(
        nodes,
        "logistic_regression",
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, [None, columns])],
        [helper.make_tensor_value_info("fraud", TensorProto.DOUBLE, [None, 1])],
        [
            helper.make_tensor("weights", TensorProto.DOUBLE, [columns, 1], model.coef_.ravel()),
            helper.make_tensor("intercept", TensorProto.DOUBLE, [1], model.intercept_),
        ],
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in OPSET.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


def _classifier(model: Any, columns: int) -> onnx.ModelProto:
    if isinstance(model, HistGradientBoostingClassifier):
        return _hist_gradient_boosting(model)
    if isinstance(model, LogisticRegression):
        return _logistic_regression(model)
    return _converted(model, [("rows", FloatTensorType([None, columns]))], {id(model): {"zipmap": False}})


def _name_by_position(pipeline: Any) -> None:
    """A first ColumnTransformer is told its columns by position, which is how it and skl2onnx read a matrix."""
    first = pipeline.steps[0][1] if isinstance(pipeline, Pipeline) else pipeline
    if isinstance(first, ColumnTransformer):
        at = {name: position for position, name in enumerate(first.feature_names_in_)}
        first.transformers_ = [
            (name, step, [at.get(column, column) for column in columns]) for name, step, columns in first.transformers_
        ]


def _settle_imputers(graph: onnx.GraphProto) -> None:
    """Imputer nodes as a choice by IsNaN: ONNX Runtime has none for float64."""
    nodes = []
    for number, node in enumerate(graph.node):
        if node.op_type != "Imputer":
            nodes.append(node)
            continue
        values = next(a for a in node.attribute if a.name == "imputed_value_floats").floats
        filled, null = f"filled_{number}", f"null_{number}"
        graph.initializer.append(helper.make_tensor(filled, TensorProto.DOUBLE, [1, len(values)], values))
        nodes.append(helper.make_node("IsNaN", [node.input[0]], [null]))
        nodes.append(helper.make_node("Where", [null, filled, node.input[0]], [node.output[0]]))
    del graph.node[:]
    graph.node.extend(nodes)


def _narrow(graph: onnx.GraphProto) -> None:
    """The graph's output as float32, under the name `narrow`."""
    (output,) = graph.output
    graph.node.append(helper.make_node("Cast", [output.name], ["narrow"], to=TensorProto.FLOAT))
    output.name, output.type.tensor_type.elem_type = "narrow", TensorProto.FLOAT


def _check_trees(pipeline: Any) -> None:
    """Every split's children lie behind it, within its tree, and its column is one: no walk can leave or go round."""
    for part in _parts(pipeline):
        if isinstance(part, Tree):
            left, right, column = part.children_left, part.children_right, part.feature
            is_leaf, columns = left == _NO_CHILD, part.n_features
        else:
            left, right, column = (part.nodes[name].astype(np.int64) for name in ("left", "right", "feature_idx"))
            is_leaf, columns = part.nodes["is_leaf"].astype(bool), pipeline.n_features_in_
            if part.nodes["is_categorical"].any():
                raise ModelError("the trees split by category, which no feature is: they are numbers")
        at, size = np.flatnonzero(~is_leaf), len(left)
        children = np.concatenate([left[at], right[at]])
        if size == 0 or (children <= np.tile(at, 2)).any() or (children >= size).any():
            raise ModelError("the file's trees are damaged: a split leads out of its tree, or back")
        if (column[at] < 0).any() or (column[at] >= columns).any():
            raise ModelError("the file's trees are damaged: a split is over a column that is not there")


def _parts(value: Any, seen: set[int] | None = None) -> Iterator[Any]:
    """All trees below a fitted estimator."""
    seen = set() if seen is None else seen
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Tree) or f"{type(value).__module__}.{type(value).__name__}" == _TREES:
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _parts(inner, seen)
    elif isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.dtype == object):
        for inner in value:
            yield from _parts(inner, seen)
    elif isinstance(value, BaseEstimator):
        yield from _parts(vars(value), seen)
