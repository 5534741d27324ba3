"""What both Python jobs are told, and the model, where there is one. Runs in a peer's environment."""

import argparse
from collections.abc import Callable

Score = Callable[[float, float, float], float]


def options(*, windows: tuple[str, ...] = ()) -> argparse.Namespace:
    """The options that `loadtest.peers.peer.Run.options` writes, and `--window` where there is a choice."""
    parser = argparse.ArgumentParser()
    for name in ("bootstrap", "input", "output", "group", "state", "delivery", "model"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("partitions", "parallelism"):
        parser.add_argument(f"--{name}", type=int, required=True)
    if windows:
        parser.add_argument("--window", required=True, choices=windows)
    return parser.parse_args()


def scorer(model: str) -> Score | None:
    """The model as a function of amount, count and sum; None without one. Like Tidegate's session: one thread."""
    if not model:
        return None
    # Imported only where it is needed: the job without a model should not carry it.
    import numpy as np  # noqa: PLC0415
    import onnxruntime  # noqa: PLC0415

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
    (given,) = (entry.name for entry in session.get_inputs())
    (wanted,) = (entry.name for entry in session.get_outputs())

    def score(amount: float, count: float, total: float) -> float:
        inputs = np.array([[amount, count, total]], np.float32)
        return float(session.run([wanted], {given: inputs})[0].reshape(-1)[0])

    return score
