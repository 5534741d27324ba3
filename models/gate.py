"""What a model file may contain, read from the protobuf bytes before ONNX Runtime sees them.

Only what the decision needs is parsed: operator domains, and whether any tensor's data lies outside the file.
Field numbers are those of onnx.proto3; the encoding is https://protobuf.dev/programming-guides/encoding/.
"""

from collections.abc import Iterator
from pathlib import Path

from models.errors import ModelError

MODEL_BYTES_MAX = 64 * 1024 * 1024
DOMAINS = {"", "ai.onnx", "ai.onnx.ml"}

_MODEL_GRAPH, _MODEL_OPSET, _MODEL_FUNCTIONS = 7, 8, 25
_OPSET_DOMAIN = 1
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE_INITIALIZER = 1, 5, 15
_NODE_ATTRIBUTE, _NODE_DOMAIN = 5, 7
_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS = 5, 10
_ATTRIBUTE_REFUSED = {6: "a subgraph", 11: "a subgraph", 22: "a sparse tensor", 23: "a sparse tensor"}
_TENSOR_EXTERNAL_DATA, _TENSOR_DATA_LOCATION = 13, 14

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def read_model(path: Path) -> bytes:
    """The bytes of a model file, read once; ModelError where it is missing or larger than MODEL_BYTES_MAX."""
    try:
        with path.open("rb") as file:
            model = file.read(MODEL_BYTES_MAX + 1)
    except FileNotFoundError as error:
        raise ModelError(f"{path} does not exist") from error
    if len(model) > MODEL_BYTES_MAX:
        raise ModelError(f"{path} has more than {MODEL_BYTES_MAX} bytes")
    return model


def check_graph(model: bytes) -> None:
    """Raises ModelError for bytes that are not ONNX, or hold more than a plain graph of known operators."""
    graphs = 0
    for field, value in _fields(memoryview(model)):
        if field == _MODEL_FUNCTIONS:
            raise ModelError("the model defines functions of its own, which are not allowed")
        if field == _MODEL_OPSET:
            for inner, domain in _fields(_message(value)):
                if inner == _OPSET_DOMAIN:
                    _check_domain(_message(domain))
        elif field == _MODEL_GRAPH:
            graphs += 1
            _check_nodes(_message(value))
    if graphs != 1:
        raise ModelError("the model file holds no ONNX graph")


def _check_nodes(graph: memoryview) -> None:
    for field, value in _fields(graph):
        if field == _GRAPH_INITIALIZER:
            _check_tensor(_message(value))
        elif field == _GRAPH_SPARSE_INITIALIZER:
            raise ModelError("the model holds a sparse tensor, which is not allowed")
        elif field == _GRAPH_NODE:
            for inner, part in _fields(_message(value)):
                if inner == _NODE_DOMAIN:
                    _check_domain(_message(part))
                elif inner == _NODE_ATTRIBUTE:
                    _check_attribute(_message(part))


def _check_attribute(attribute: memoryview) -> None:
    for field, value in _fields(attribute):
        if field in _ATTRIBUTE_REFUSED:
            raise ModelError(f"the model holds {_ATTRIBUTE_REFUSED[field]}, which is not allowed")
        if field in (_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS):
            _check_tensor(_message(value))


def _check_tensor(tensor: memoryview) -> None:
    for field, value in _fields(tensor):
        if field == _TENSOR_EXTERNAL_DATA or (field == _TENSOR_DATA_LOCATION and value != 0):
            raise ModelError("the model keeps tensor data outside its file, which is not allowed")


def _check_domain(domain: memoryview) -> None:
    name = bytes(domain).decode("utf-8", "replace")
    if name not in DOMAINS:
        raise ModelError(f"the model needs operators of {name!r}; allowed are those of ai.onnx and ai.onnx.ml")


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ModelError("the model file is not valid ONNX: a number where a message belongs")
    return value


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of one message: number and value, an int for a varint and the bytes for everything else."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        wire = key & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if wire == _BYTES:
            size, at = _varint(data, at)
        elif wire in (_FIXED64, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
        else:
            raise ModelError(f"the model file is not valid ONNX: wire type {wire} at byte {at}")
        if size > len(data) - at:
            raise ModelError(f"the model file is not valid ONNX: it ends within a field at byte {at}")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at == len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ModelError("the model file is not valid ONNX: a number does not end")
