"""Whether the trees of a model end: ONNX Runtime follows them by recursion, and one that is too deep crashes it."""

import numpy as np

from models.errors import ModelError
from models.graph import Node
from models.wire import Int64

TREE_DEPTH_MAX = 1_000
_LEAF = b"LEAF"
_NOWHERE = -1


def check_trees(node: Node, inputs: int | None) -> None:
    """Raises ModelError for trees that are deeper than TREE_DEPTH_MAX, run in circles, or read unknown columns.

    `inputs` is the number of columns that the node is given; None where that is not known.
    """
    attributes = {attribute.name: attribute for attribute in node.attributes}
    needed = [f"nodes_{name}" for name in ("treeids", "nodeids", "truenodeids", "falsenodeids", "featureids", "modes")]
    if not attributes.keys() >= set(needed):
        raise ModelError("its trees lack an attribute")
    trees, nodes, true, false, columns = (attributes[name].numbers() for name in needed[:-1])
    branches = np.array([mode != _LEAF for mode in attributes["nodes_modes"].strings], np.bool_)
    if not len(nodes) or any(len(column) != len(nodes) for column in (trees, true, false, columns, branches)):
        raise ModelError("its trees have attributes of different lengths")
    read = columns[branches]
    if len(read) and (read.min() < 0 or (inputs is not None and read.max() >= inputs)):
        raise ModelError("its trees read a column that there is none of")
    children = np.full((2, len(nodes)), _NOWHERE, np.int64)
    children[:, branches] = _places(trees, nodes, trees[branches], np.stack([true[branches], false[branches]]))
    _check_depth(children)


def _places(trees: Int64, nodes: Int64, of_trees: Int64, targets: Int64) -> Int64:
    """Where in the arrays each of `targets[2, m]`, a node of tree `of_trees[m]`, stands."""
    tree_ids, node_ids = np.unique(trees), np.unique(nodes)

    def codes(tree: Int64, node_at: Int64) -> Int64:
        return np.searchsorted(tree_ids, tree) * len(node_ids) + node_at

    own = codes(trees, np.searchsorted(node_ids, nodes))
    order = np.argsort(own)
    if (np.diff(own[order]) == 0).any():
        raise ModelError("its trees have a node twice")
    node_at = np.minimum(np.searchsorted(node_ids, targets), len(node_ids) - 1)
    wanted = codes(of_trees, node_at)
    places = order[np.minimum(np.searchsorted(own[order], wanted), len(own) - 1)]
    if (node_ids[node_at] != targets).any() or (own[places] != wanted).any():
        raise ModelError("its trees lead to a node that there is none of")
    return places


def _check_depth(children: Int64) -> None:
    """`children[2, n]`: the places of the two nodes under each one, _NOWHERE under a leaf."""
    count = children.shape[1]
    reached = np.zeros(count, np.bool_)
    level = np.setdiff1d(np.arange(count), children)
    for _ in range(TREE_DEPTH_MAX):
        reached[level] = True
        level = np.setdiff1d(children[:, level], [_NOWHERE])
        if not len(level):
            break
    else:
        raise ModelError(f"its trees are deeper than {TREE_DEPTH_MAX} nodes, or run in circles")
    # Where every node is under another one, there is no root to come from.
    if not reached.all():
        raise ModelError("its trees run in circles")
