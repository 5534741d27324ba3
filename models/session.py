"""ONNX Runtime, set up so that a row's result never depends on the batch it is in."""

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort

from models.errors import ModelError

Float32 = NDArray[np.float32]

ORT_ERRORS = (
    ort.Fail,
    ort.InvalidArgument,
    ort.InvalidGraph,
    ort.InvalidProtobuf,
    ort.NotImplemented,
    ort.RuntimeException,
    UnicodeDecodeError,  # its own message quotes a name of the model that is not UTF-8
)
_LOG_ERRORS_ONLY = 3


def open_session(model: bytes) -> onnxruntime.InferenceSession:
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
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"], enable_fallback=0)
    except ORT_ERRORS as error:
        raise ModelError(f"ONNX Runtime refuses the model: {error}") from error


def infer(session: onnxruntime.InferenceSession, output: str, inputs: Float32) -> Float32:
    """One output, flat, for the rows of the only input."""
    result: Float32 = session.run([output], {session.get_inputs()[0].name: inputs})[0]
    return result.reshape(-1)
