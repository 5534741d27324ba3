"""Boosted trees as one ONNX node that decides every split as its library does.

ONNX compares float32. A library that compares float64 needs its thresholds rounded: how, depends on the values that it
is asked with.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper

from models.convert.original import INPUT, OUTPUT

OPSET = {"": 15, "ai.onnx.ml": 3}
IR_VERSION = 8
LESS_OR_EQUAL, LESS = "BRANCH_LEQ", "BRANCH_LT"
_LEAF = "LEAF"
_FLOAT32 = np.finfo(np.float32)


def float32_nearest(threshold: float) -> float:
    """The float32 nearest to t, for float64 values that are rounded likewise: x <= t stays true, x > t nearly always.

    Decimals such as 12.35 are halfway between two that training saw, and so are their own thresholds: rounded down, t
    would lie under the rounded x.
    """
    with np.errstate(over="ignore"):  # thresholds of 1e300 set nulls apart: the largest float32 does too
        return float(np.clip(np.float32(threshold), _FLOAT32.min, _FLOAT32.max))


def float32_not_above(threshold: float) -> float:
    """The largest float32 not above t, for float32 values: `x <= t` means the same for both."""
    rounded = np.float32(float32_nearest(threshold))
    return float(np.nextafter(rounded, np.float32(-np.inf)) if float(rounded) > threshold else rounded)


class Ensemble:
    """Nodes of all trees, gathered one by one; the probability is the sigmoid of `base` plus one leaf of each tree.

    `comparison`: the branch that a value takes when it is LESS_OR_EQUAL, or LESS, to the threshold.
    """

    def __init__(self, comparison: str, base: float) -> None:
        self._comparison = comparison
        self._base = base
        self._nodes: list[tuple[int, int, int, str, float, int, int, bool]] = []
        self._leaves: list[tuple[int, int, float]] = []

    def split(
        self, tree: int, node: int, *, column: int, threshold: float, true: int, false: int, null_is_true: bool
    ) -> None:
        """Adds a node that sends rows to the nodes `true` and `false` of its tree; `threshold` is a float32."""
        self._nodes.append((tree, node, column, self._comparison, threshold, true, false, null_is_true))

    def leaf(self, tree: int, node: int, weight: float) -> None:
        """Adds a node that adds `weight` to the log odds."""
        self._nodes.append((tree, node, 0, _LEAF, 0.0, 0, 0, False))
        self._leaves.append((tree, node, weight))

    def to_onnx(self, inputs: int) -> bytes:
        """An ONNX graph: input `features` [rows, inputs], output `probability` [rows], both float32.

        The node is a classifier because that applies the sigmoid row by row; a Sigmoid node is vectorised and may
        compute the end of a batch otherwise. ONNX Runtime ignores the LOGISTIC post-transform of a
        TreeEnsembleRegressor.
        """
        trees, nodes, columns, modes, thresholds, trues, falses, nulls = zip(*self._nodes, strict=True)
        leaf_trees, leaf_nodes, weights = zip(*self._leaves, strict=True)
        node = helper.make_node(
            "TreeEnsembleClassifier",
            [INPUT],
            ["label", "both"],
            name="trees",
            domain="ai.onnx.ml",
            post_transform="LOGISTIC",
            base_values=[self._base],
            classlabels_int64s=[0, 1],
            nodes_treeids=trees,
            nodes_nodeids=nodes,
            nodes_featureids=columns,
            nodes_modes=modes,
            nodes_values=thresholds,
            nodes_truenodeids=trues,
            nodes_falsenodeids=falses,
            nodes_missing_value_tracks_true=[int(null) for null in nulls],
            class_treeids=leaf_trees,
            class_nodeids=leaf_nodes,
            class_ids=[0] * len(weights),
            class_weights=[float(weight) for weight in weights],
        )
        graph = helper.make_graph(
            [node, helper.make_node("Gather", ["both", "fraud"], [OUTPUT], axis=1, name="fraud_only")],
            "tidegate",
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["rows", inputs])],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["rows"])],
            [helper.make_tensor("fraud", TensorProto.INT64, [], [1])],
        )
        opsets = [helper.make_opsetid(domain, version) for domain, version in OPSET.items()]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="tidegate")
        onnx.checker.check_model(model, full_check=True)
        data: bytes = model.SerializeToString(deterministic=True)
        return data
