"""What an ONNX file declares: nodes, tensors and shapes, without their numbers. Nothing is judged here.

Field numbers are those of onnx.proto3. Where protobuf takes the last of several values, so does this.
"""

from dataclasses import dataclass, field

import numpy as np

from models.errors import ModelError
from models.wire import Int64, Value, fields, varints

# Bytes of one element by TensorProto.DataType; a string is counted as what an empty one takes in memory.
ELEMENT_BYTES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 8: 32, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 14: 8, 16: 2}
ELEMENT_BYTES_MAX = 32
UNKNOWN_DIMENSION = -1


@dataclass(frozen=True, slots=True)
class Tensor:
    """Name, dimensions (a value's may be UNKNOWN_DIMENSION) and what one element takes; `external`: data elsewhere."""

    name: str
    dims: tuple[int, ...]
    element_bytes: int
    external: bool = False


@dataclass(slots=True)
class Attribute:
    """One attribute of a node: its whole numbers, its tensors, and whether it holds what is not to be followed."""

    name: str = ""
    ints: list[Int64] = field(default_factory=list)
    strings: list[bytes] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    subgraph: bool = False
    sparse: bool = False

    def numbers(self) -> Int64:
        """All whole numbers in order, int64[n]."""
        return np.concatenate(self.ints) if self.ints else np.zeros(0, np.int64)


@dataclass(slots=True)
class Node:
    """One operator; `inputs` may hold empty names, for those that are left out."""

    operator: str = ""
    domain: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    attributes: list[Attribute] = field(default_factory=list)


@dataclass(slots=True)
class Graph:
    """The graph in file order; `values` are the tensors whose shapes it declares, inputs and outputs among them.

    `inputs` names initializers too, where an old file does.
    """

    nodes: list[Node] = field(default_factory=list)
    initializers: list[Tensor] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    sparse: bool = False


@dataclass(slots=True)
class OnnxFile:
    """The whole file; `graphs` is as long as the file says, one in a proper one."""

    graphs: list[Graph] = field(default_factory=list)
    opset: dict[str, int] = field(default_factory=dict)
    metadata: list[str] = field(default_factory=list)
    functions: bool = False
    training: bool = False


def read_graph(model: bytes) -> OnnxFile:
    """Everything that a decision about the file needs; ModelError for bytes that are not ONNX."""
    file = OnnxFile()
    for number, value in fields(memoryview(model)):
        match number:
            case 7:
                file.graphs.append(_graph(_message(value)))
            case 8:  # opset_import
                domain, version = _opset(_message(value))
                file.opset[domain] = version
            case 14:  # metadata_props
                file.metadata += [_text(key) for inner, key in fields(_message(value)) if inner == 1]
            case 20:  # training_info
                file.training = True
            case 25:
                file.functions = True
    return file


def _opset(data: memoryview) -> tuple[str, int]:
    domain, version = "", 0
    for number, value in fields(data):
        match number:
            case 1:
                domain = _text(value)
            case 2:
                version = _last(value)
    return domain or "ai.onnx", version


def _graph(data: memoryview) -> Graph:
    graph = Graph()
    for number, value in fields(data):
        match number:
            case 1:
                graph.nodes.append(_node(_message(value)))
            case 5:
                graph.initializers.append(_tensor(_message(value)))
            case 11:
                graph.values.append(_value(_message(value)))
                graph.inputs.append(graph.values[-1].name)
            case 12:
                graph.values.append(_value(_message(value)))
                graph.outputs.append(graph.values[-1].name)
            case 13:  # value_info
                graph.values.append(_value(_message(value)))
            case 15:  # sparse_initializer
                graph.sparse = True
    return graph


def _node(data: memoryview) -> Node:
    node = Node()
    for number, value in fields(data):
        match number:
            case 1:
                node.inputs.append(_text(value))
            case 2:
                node.outputs.append(_text(value))
            case 4:  # op_type
                node.operator = _text(value)
            case 5:
                node.attributes.append(_attribute(_message(value)))
            case 7:
                node.domain = _text(value)
    return node


def _attribute(data: memoryview) -> Attribute:
    attribute = Attribute()
    for number, value in fields(data):
        match number:
            case 1:
                attribute.name = _text(value)
            case 3 | 8:  # i, ints
                attribute.ints.append(_numbers(value))
            case 5 | 10:  # t, tensors
                attribute.tensors.append(_tensor(_message(value)))
            case 9:
                attribute.strings.append(bytes(_message(value)))
            case 6 | 11:  # g, graphs
                attribute.subgraph = True
            case 22 | 23:  # sparse_tensor, sparse_tensors
                attribute.sparse = True
    return attribute


def _tensor(data: memoryview) -> Tensor:
    name, element_bytes, external = "", ELEMENT_BYTES_MAX, False
    dims: list[int] = []
    for number, value in fields(data):
        match number:
            case 1:
                dims += _numbers(value).tolist()
            case 2:  # data_type
                element_bytes = ELEMENT_BYTES.get(_last(value), ELEMENT_BYTES_MAX)
            case 8:
                name = _text(value)
            case 13:  # external_data
                external = True
            case 14:  # data_location, 0 for within
                external = external or _last(value) != 0
    return Tensor(name, tuple(dims), element_bytes, external)


def _value(data: memoryview) -> Tensor:
    """A ValueInfoProto; one that declares no shape of a tensor has no dimensions here."""
    name, element_bytes = "", ELEMENT_BYTES_MAX
    dims: list[int] = []
    for number, value in fields(data):
        if number == 1:
            name = _text(value)
        elif number == 2:
            for inner, part in (field for tensor in _within(_message(value), 1) for field in fields(tensor)):
                if inner == 1:  # elem_type
                    element_bytes = ELEMENT_BYTES.get(_last(part), ELEMENT_BYTES_MAX)
                elif inner == 2:
                    dims = [_dimension(dimension) for dimension in _within(_message(part), 1)]
    return Tensor(name, tuple(dims), element_bytes)


def _dimension(data: memoryview) -> int:
    known = [_last(value) for number, value in fields(data) if number == 1]
    return known[-1] if known else UNKNOWN_DIMENSION


def _within(data: memoryview, wanted: int) -> list[memoryview]:
    return [_message(value) for number, value in fields(data) if number == wanted]


def _message(value: Value) -> memoryview:
    if not isinstance(value, memoryview):
        raise ModelError("the model file is not valid ONNX: a number where a message belongs")
    return value


def _text(value: Value) -> str:
    return bytes(_message(value)).decode("utf-8", "replace")


def _numbers(value: Value) -> Int64:
    """Repeated numbers, which a writer may pack into one field."""
    return varints(value) if isinstance(value, memoryview) else value


def _last(value: Value) -> int:
    if isinstance(value, memoryview):
        raise ModelError("the model file is not valid ONNX: a message where a number belongs")
    return int(value[-1])
