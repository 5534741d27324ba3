"""ONNX Runtime, set up so that a row's result never depends on the batch it is in; its only importer."""

from typing import TypeAlias

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort

from models.errors import ModelError, one_line

Float32 = NDArray[np.float32]
Session: TypeAlias = onnxruntime.InferenceSession

ORT_ERRORS = (
    ort.Fail,
    ort.InvalidArgument,
    ort.InvalidGraph,
    ort.InvalidProtobuf,
    ort.NotImplemented,
    ort.RuntimeException,
    UnicodeDecodeError,  # its own message quotes a name of the model that is not UTF-8
)
# The most rows of one inference.
ROWS_MAX = 2_048
_LOG_ERRORS_ONLY = 3
# ONNX Runtime says what, where in its sources, and then much more.
_CHARACTERS_MAX = 300


def open_session(model: bytes) -> Session:
    """A session with one thread; ModelError where ONNX Runtime refuses the model.

    With more threads, ONNX Runtime sums the trees of batches of up to 50 rows in another order than those of
    larger batches, and the same row gets probabilities that differ in the last bits.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _LOG_ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Bytes that begin like ONNX Runtime's own format would be read as such, and the gate knows ONNX alone.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    try:
        return Session(model, options, providers=["CPUExecutionProvider"], enable_fallback=0)
    except ORT_ERRORS as error:
        raise ModelError(f"ONNX Runtime refuses the model: {one_line(str(error), _CHARACTERS_MAX)}") from error


def infer(session: Session, output: str, inputs: Float32) -> Float32:
    """One output, flat, for the rows of the only input; ModelError where ONNX Runtime fails on them.

    At most ROWS_MAX rows go in at once, for what more of them take was never tried.
    """
    name = session.get_inputs()[0].name
    parts = [_run(session, output, name, inputs[i : i + ROWS_MAX]) for i in range(0, len(inputs), ROWS_MAX)]
    return parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0, np.float32), *parts])


def _run(session: Session, output: str, name: str, inputs: Float32) -> Float32:
    """A single row goes in twice: other code multiplies it than rows of a batch, and differs in the last bits."""
    rows = len(inputs)
    given = inputs if rows > 1 else np.repeat(inputs, 2, axis=0)
    try:
        result: Float32 = session.run([output], {name: given})[0]
    except ORT_ERRORS as error:
        raise ModelError(f"ONNX Runtime fails on {rows} rows: {one_line(str(error), _CHARACTERS_MAX)}") from error
    return result.reshape(-1) if rows > 1 else result.reshape(-1)[:1]
