"""Boosted trees as one ONNX node that decides every split as its library does.

ONNX compares float32. A library that compares float64 needs its thresholds rounded so that the comparison of any
float32 value gives the same answer; one that has float32 thresholds keeps them.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper

from models.convert.original import INPUT, OUTPUT

OPSET = {"": 15, "ai.onnx.ml": 3}
IR_VERSION = 8
LESS_OR_EQUAL, LESS = "BRANCH_LEQ", "BRANCH_LT"
_LEAF = "LEAF"


def float32_not_above(threshold: float) -> float:
    """The largest float32 not above t: for every float32 x, `x <= t` means the same for both."""
    with np.errstate(over="ignore"):  # thresholds of 1e300 set nulls apart: the largest float32 does too
        rounded = np.float32(threshold)
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
            class_weights=weights,
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
