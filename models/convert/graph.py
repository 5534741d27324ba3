"""ONNX graphs from elsewhere, brought into the one shape that is served."""

from collections.abc import MutableSequence

import onnx
from onnx import TensorProto, helper

from models.convert.original import INPUT, OUTPUT
from models.errors import ModelError

IR_VERSION_MAX = 10
_MAPS = "ZipMap"


def as_scorer(model: onnx.ModelProto, columns: int) -> bytes:
    """The graph with one float32 input `features` [rows, columns] and one float32 output `probability` [rows].

    Taken is the output with the probability of fraud: the second column of two, or the only number of each row.
    Maps of probabilities (ZipMap) and all else that nobody asks for are cut off. ModelError where that fails.
    """
    graph = model.graph
    source, type_ = _input(graph, columns)
    probabilities, columns_out = _probabilities(model)
    nodes = [node for node in graph.node if node.op_type != _MAPS]
    taken = {name for node in nodes for name in (*node.input, *node.output)} | {
        value.name for value in graph.initializer
    }
    if {INPUT, OUTPUT} & (taken - {source, probabilities}):
        raise ModelError(f"the ONNX graph uses the names {INPUT!r} or {OUTPUT!r} for something else")
    for node in nodes:
        _rename(node.input, source, "served")
        _rename(node.input, probabilities, "asked")
        _rename(node.output, probabilities, "asked")
    before = helper.make_node("Cast", [INPUT], ["served"], to=type_)
    after = [helper.make_node("Cast", ["asked"], ["single"], to=TensorProto.FLOAT)]
    after.append(helper.make_node("Clip", ["single", "none", "all"], ["clipped"]))  # sums of shares pass 1 by rounding
    constants = list(graph.initializer)
    constants += [helper.make_tensor(name, TensorProto.FLOAT, [], [at]) for name, at in (("none", 0.0), ("all", 1.0))]
    if columns_out == 2:
        constants.append(helper.make_tensor("fraud_column", TensorProto.INT64, [], [1]))
        after.append(helper.make_node("Gather", ["clipped", "fraud_column"], [OUTPUT], axis=1))
    else:
        constants.append(helper.make_tensor("flat", TensorProto.INT64, [1], [-1]))
        after.append(helper.make_node("Reshape", ["clipped", "flat"], [OUTPUT]))
    served = helper.make_model(
        helper.make_graph(
            _needed([before, *nodes, *after]),
            "tidegate",
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["rows", columns])],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["rows"])],
            constants,
        ),
        opset_imports=model.opset_import,
        ir_version=min(model.ir_version, IR_VERSION_MAX),
        producer_name="tidegate",
    )
    onnx.checker.check_model(served)
    data: bytes = served.SerializeToString(deterministic=True)
    return data


def _input(graph: onnx.GraphProto, columns: int) -> tuple[str, int]:
    constant = {value.name for value in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constant]
    if len(inputs) != 1:
        raise ModelError(f"the ONNX graph has {len(inputs)} inputs, not one matrix of {columns} features")
    tensor = inputs[0].type.tensor_type
    width = tensor.shape.dim[1].dim_value if len(tensor.shape.dim) == 2 else None
    if tensor.elem_type not in (TensorProto.FLOAT, TensorProto.DOUBLE) or width not in (0, columns):
        raise ModelError(f"the ONNX graph takes {_described(inputs[0])}, not a float matrix of {columns} features")
    return inputs[0].name, tensor.elem_type


def _probabilities(model: onnx.ModelProto) -> tuple[str, int]:
    """The name of the tensor with the probabilities, and how many there are in a row (1 or 2)."""
    maps = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == _MAPS}
    candidates = [(maps[value.name], 2) for value in model.graph.output if value.name in maps]
    for value in model.graph.output:
        tensor = value.type.tensor_type
        if tensor.elem_type not in (TensorProto.FLOAT, TensorProto.DOUBLE):
            continue
        sizes = [dim.dim_value for dim in tensor.shape.dim]
        if sizes[1:] in ([], [1], [2]):
            candidates.append((value.name, sizes[1] if sizes[1:] else 1))
    if len(candidates) != 1:
        shown = "; ".join(_described(value) for value in model.graph.output)
        raise ModelError(
            f"the ONNX graph has {len(candidates)} outputs that may be the probability, a float for each row or two "
            f"of which the second is that of fraud; it has: {shown}"
        )
    return candidates[0]


def _described(value: onnx.ValueInfoProto) -> str:
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        return f"{value.name} (no tensor)"
    sizes = [str(dim.dim_value or dim.dim_param or "?") for dim in tensor.shape.dim]
    return f"{value.name} ({TensorProto.DataType.Name(tensor.elem_type).lower()} [{', '.join(sizes)}])"


def _rename(names: MutableSequence[str], old: str, new: str) -> None:
    for at, name in enumerate(names):
        if name == old:
            names[at] = new


def _needed(nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The nodes that the output rests on, in their order."""
    wanted, kept = {OUTPUT}, []
    for node in reversed(nodes):
        if wanted & set(node.output):
            wanted |= set(node.input)
            kept.append(node)
    return kept[::-1]
