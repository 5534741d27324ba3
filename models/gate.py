"""What a model file may be, judged by its bytes before ONNX Runtime sees them."""

from collections.abc import Sequence
from math import prod

from models.errors import ModelError
from models.graph import Graph, Node, OnnxFile, Tensor, read_graph
from models.operators import ALLOWED, SHAPES_ONLY, SIZED_BY, TREES
from models.trees import check_trees

MODEL_BYTES_MAX = 64 * 1024 * 1024
TENSOR_BYTES_MAX = 64 * 1024 * 1024
NODES_MAX = 10_000
DEPTH_MAX = 1_000
DOMAINS = {"ai.onnx", "ai.onnx.ml"}
# ONNX Runtime can take settings of the session from there, a file to write among them.
SETTINGS_KEY = "ort_config"


def check_graph(model: bytes, inputs: int, opset: dict[str, int]) -> None:
    """Raises ModelError for bytes that are not ONNX, or hold more than a plain graph of allowed operators.

    `inputs` is the number of columns that the model is given, `opset` what its manifest says of it.
    """
    file = read_graph(model)
    if len(file.graphs) != 1:
        raise ModelError("the model file holds no ONNX graph" if not file.graphs else "the model file holds two graphs")
    _check_file(file, opset)
    (graph,) = file.graphs
    _check_tensors(graph)
    for node in graph.nodes:
        _check_node(node)
    # An initializer is a constant even where an old file names it among the inputs.
    from_events = set(graph.inputs) - {tensor.name for tensor in graph.initializers}
    _check_order(graph, from_events)
    for node in graph.nodes:
        if _kind(node) in TREES:
            check_trees(node, inputs if from_events.issuperset(node.inputs) else None)


def _check_file(file: OnnxFile, opset: dict[str, int]) -> None:
    if file.functions:
        raise ModelError("the model defines functions of its own, which are not allowed")
    if file.training:
        raise ModelError("the model holds a training graph, which is not allowed")
    if SETTINGS_KEY in file.metadata:
        raise ModelError("the model brings settings for ONNX Runtime, which is not allowed")
    for domain in file.opset:
        _check_domain(domain)
    if file.opset != opset:
        raise ModelError(f"its operators are those of {_versions(file.opset)}, its manifest says {_versions(opset)}")


def _versions(opset: dict[str, int]) -> str:
    return ", ".join(f"{domain} {version}" for domain, version in sorted(opset.items())) or "none"


def _check_domain(domain: str) -> None:
    if (domain or "ai.onnx") not in DOMAINS:
        raise ModelError(f"the model needs operators of {domain!r}; allowed are those of ai.onnx and ai.onnx.ml")


def _check_tensors(graph: Graph) -> None:
    if graph.sparse:
        raise ModelError("the model holds a sparse tensor, which is not allowed")
    for tensor in graph.initializers:
        _check_tensor(tensor)
    for value in graph.values:
        _check_size(value)


def _check_tensor(tensor: Tensor) -> None:
    if tensor.external:
        raise ModelError("the model keeps tensor data outside its file, which is not allowed")
    if any(dimension < 0 for dimension in tensor.dims):
        raise ModelError(f"tensor {tensor.name!r} has a negative dimension")
    _check_size(tensor)


def _check_size(tensor: Tensor) -> None:
    declared = prod(dimension for dimension in tensor.dims if dimension > 0) * tensor.element_bytes
    if declared > TENSOR_BYTES_MAX:
        raise ModelError(f"tensor {tensor.name!r} would take {declared} bytes, more than {TENSOR_BYTES_MAX}")


def _check_node(node: Node) -> None:
    _check_domain(node.domain)
    if len({attribute.name for attribute in node.attributes}) < len(node.attributes):
        raise ModelError(f"operator {node.operator} has an attribute twice")
    for attribute in node.attributes:
        if attribute.subgraph:
            raise ModelError(f"operator {node.operator} holds a subgraph, which is not allowed")
        if attribute.sparse:
            raise ModelError("the model holds a sparse tensor, which is not allowed")
        for tensor in attribute.tensors:
            _check_tensor(tensor)
    if _kind(node) not in ALLOWED:
        raise ModelError(f"operator {node.operator!r} is not among those that are allowed")


def _check_order(graph: Graph, inputs: set[str]) -> None:
    """Every node after what it reads, none too far down a chain, and no size that the events decide."""
    if len(graph.nodes) > NODES_MAX:
        raise ModelError(f"the graph has {len(graph.nodes)} nodes, more than {NODES_MAX}")
    depths = dict.fromkeys(["", *graph.inputs, *(tensor.name for tensor in graph.initializers)], 0)
    from_events = set(inputs)
    for node in graph.nodes:
        for name in node.inputs:
            if name not in depths:
                raise ModelError(f"operator {node.operator} reads {name!r} before anything gives it")
        depth = 1 + max((depths[name] for name in node.inputs), default=0)
        if depth > DEPTH_MAX:
            raise ModelError(f"the graph has a chain of more than {DEPTH_MAX} nodes")
        if not from_events.isdisjoint(_chosen(node.inputs, SIZED_BY.get(_kind(node), ()))):
            raise ModelError(f"the values of events decide how large the result of operator {node.operator} is")
        given = [name for name in node.outputs if name]
        depths.update(dict.fromkeys(given, depth))
        if _kind(node) not in SHAPES_ONLY and not from_events.isdisjoint(node.inputs):
            from_events.update(given)


def _chosen(names: Sequence[str], places: Sequence[int]) -> list[str]:
    return [names[place] for place in places if place < len(names)]


def _kind(node: Node) -> tuple[str, str]:
    return ("" if node.domain == "ai.onnx" else node.domain, node.operator)
