"""Models that are ONNX already. Needs the `train` extra."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from models.convert.graph import as_scorer
from models.convert.original import Original
from models.errors import ModelError
from models.files import read_below
from models.gate import MODEL_BYTES_MAX, check_graph
from models.graph import read_graph
from models.session import ORT_ERRORS, open_session

Float64 = NDArray[np.float64]

LIBRARIES = ("numpy", "onnx", "onnxruntime")
NAMES_PROPERTY = "feature_names"
_ROWS_MAX = 65_536


def read_onnx(path: Path, names: Sequence[str] | None) -> Original:
    """The graph of a file, checked as every model is before ONNX Runtime sees it, but for what is taken off its end.

    The names of its inputs, in its order, are those of its metadata property `feature_names`, a JSON array, or `names`;
    ModelError where neither or both say it.
    """
    data = read_below(path.parent, path.name, MODEL_BYTES_MAX)
    try:
        model = onnx.load_from_string(data)
    except DecodeError as error:
        raise ModelError(f"{path} is no ONNX model: {error}") from error
    features = _names(model, names)
    onnx_bytes = as_scorer(model, len(features))
    # Without what is taken off its end: a ZipMap is what many converters put there.
    check_graph(onnx_bytes, len(features), read_graph(onnx_bytes).opset)
    session = open_session(data)
    (source,) = session.get_inputs()
    dtype = np.float64 if source.type == "tensor(double)" else np.float32

    def predict(rows: Float64) -> Float64:
        try:
            parts = [
                _fraud(session.run(None, {source.name: rows[start : start + _ROWS_MAX].astype(dtype)}))
                for start in range(0, len(rows), _ROWS_MAX)
            ]
        except ORT_ERRORS as error:
            raise ValueError(str(error)) from error
        return np.concatenate(parts)

    return Original("onnx", features, predict, onnx_bytes, LIBRARIES)


def _names(model: onnx.ModelProto, given: Sequence[str] | None) -> tuple[str, ...]:
    properties = {entry.key: entry.value for entry in model.metadata_props}
    if (given is None) == (NAMES_PROPERTY not in properties):
        stated = "both say" if given else "neither says"
        raise ModelError(
            f"an ONNX graph takes its inputs by position, and {stated} which is which: its metadata property "
            f"{NAMES_PROPERTY!r}, a JSON array of names, or --inputs"
        )
    if given is not None:
        return tuple(given)
    try:
        return msgspec.json.decode(properties[NAMES_PROPERTY], type=tuple[str, ...])
    except msgspec.DecodeError as error:
        raise ModelError(f"the metadata property {NAMES_PROPERTY!r} is no JSON array of names: {error}") from error


def _fraud(outputs: list[Any]) -> Float64:
    """The probabilities among the outputs, in the shapes that `as_scorer` takes: maps, two in a row, or one."""
    for values in outputs:
        if isinstance(values, list):
            return np.array([row[1] for row in values], np.float64)
    (values,) = (values for values in outputs if values.dtype in (np.float32, np.float64))
    return np.asarray(values if values.ndim == 1 else values[:, -1], np.float64)
