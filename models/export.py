"""From LightGBM to ONNX without changing a single decision.

Two things are settled in the booster before it is converted. LightGBM compares float64, ONNX float32. And a
booster trained with weighted positives gives inflated probabilities.
"""

import re
from collections.abc import Callable
from typing import Any

import lightgbm
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnxmltools.convert import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType

Float64 = NDArray[np.float64]

INPUT, OUTPUT = "features", "probability"
OPSET = {"ai.onnx": 15, "ai.onnx.ml": 3}
IR_VERSION = 8


def settle(booster: Any, positive_weight: float) -> Any:
    """The same booster with float32 thresholds, and the weight of the positives taken off again.

    Weighting positives by w multiplies the odds that the booster learns by w; taking log(w) off its raw score
    undoes that (King and Zeng 2001, "Logistic Regression in Rare Events Data", on prior correction).
    """
    text = re.sub(r"(?m)^tree_sizes=.*\n", "", booster.model_to_string())
    head, *trees = re.split(r"(?m)^(?=Tree=\d+$)", text)
    settled = [_rewrite(tree, "threshold", _float32_not_above) for tree in trees]
    shift = float(np.log(positive_weight))
    settled[0] = _rewrite(settled[0], "leaf_value", lambda values: values - shift)
    return lightgbm.Booster(model_str=head + "".join(settled))


def _float32_not_above(thresholds: Float64) -> Float64:
    """The largest float32 not above each t: for a float32 x, `x <= t` means the same for both."""
    rounded = thresholds.astype(np.float32)
    lower = np.nextafter(rounded, np.float32(-np.inf))
    return np.where(rounded > thresholds, lower, rounded).astype(np.float64)


def _rewrite(tree: str, key: str, change: Callable[[Float64], Float64]) -> str:
    """Changes one line of numbers in LightGBM's text of a tree; a single leaf has no thresholds."""

    def line(match: re.Match[str]) -> str:
        values = change(np.array(match[1].split(), np.float64))
        return f"{key}={' '.join(repr(value) for value in values.tolist())}"

    return re.sub(rf"(?m)^{key}=(.*)$", line, tree, count=1)


def to_onnx(booster: Any, inputs: int) -> bytes:
    """An ONNX graph: input `features` [rows, inputs], output `probability` [rows], both float32.

    Only the tree node of the converter's graph is kept: the graph declares output shapes that do not hold,
    and has a label, a cast and a multiplication that nobody needs. The node stays a classifier because that
    applies the sigmoid row by row; a Sigmoid node is vectorised and may compute the end of a batch otherwise.
    ONNX Runtime ignores the LOGISTIC post-transform of a TreeEnsembleRegressor.
    """
    initial = [(INPUT, FloatTensorType([None, inputs]))]
    converted = convert_lightgbm(booster, initial_types=initial, zipmap=False, target_opset=OPSET["ai.onnx"])
    trees = next(node for node in converted.graph.node if node.op_type == "TreeEnsembleClassifier")
    kept = [attribute for attribute in trees.attribute if attribute.name not in ("name", "nodes_hitrates")]
    node = helper.make_node(trees.op_type, [INPUT], ["label", "both"], domain="ai.onnx.ml", name="trees")
    node.attribute.extend(kept)
    graph = helper.make_graph(
        [node, helper.make_node("Gather", ["both", "fraud"], [OUTPUT], axis=1, name="fraud_only")],
        "tidegate",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["rows", inputs])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["rows"])],
        [helper.make_tensor("fraud", TensorProto.INT64, [], [1])],
    )
    opsets = [helper.make_opsetid("" if domain == "ai.onnx" else domain, n) for domain, n in OPSET.items()]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="tidegate")
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString(deterministic=True)
    return data
