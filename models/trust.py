"""From bytes to a session that may score: its interface is the manifest's, and its answers are probabilities.

The same runs twice: in the subprocess of `models.trial`, and then where the model is to score, where it warms it up.
"""

import numpy as np
from numpy.typing import NDArray

from models.errors import ModelError
from models.manifest import Manifest
from models.session import ROWS_MAX, Float32, Session, infer, open_session

GOLDEN_DIFFERENCE_MAX = 1e-6
# Rows of smaller batches, and how many rows are scored in such ones.
BATCHES_ROWS = ((1, 64), (16, 256), (256, ROWS_MAX))
PROBE_SEED = 1
PROBE_NULL_SHARE = 0.1
FAR_TIMES = 1_000.0

Float64 = NDArray[np.float64]


def trusted_session(model: bytes, manifest: Manifest) -> Session:
    """A warm session of a model that `check_graph` let pass; ModelError says what is wrong with it."""
    session = open_session(model)
    _check_interface(session, manifest)
    _check_golden(session, manifest)
    _check_probes(session, manifest)
    return session


def _check_interface(session: Session, manifest: Manifest) -> None:
    """One float matrix in, rows free and columns the manifest's; one float per row out, under its name."""
    columns = len(manifest.features)
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1:
        raise ModelError(f"it must take one float matrix of {columns} columns, and it takes {len(inputs)} inputs")
    if inputs[0].type != "tensor(float)" or inputs[0].shape[1:] != [columns] or isinstance(inputs[0].shape[0], int):
        found = f"{inputs[0].type} {inputs[0].shape}"
        raise ModelError(f"it must take one float matrix of {columns} columns and any number of rows, not {found}")
    if len(outputs) != 1 or outputs[0].name != manifest.output:
        names = ", ".join(repr(output.name) for output in outputs)
        raise ModelError(f"it must have {manifest.output!r} as its one output, and it has {names}")
    shape = outputs[0].shape
    if outputs[0].type != "tensor(float)" or shape[1:] not in ([], [1]) or isinstance((shape or [0])[0], int):
        raise ModelError(f"its output must be one float per row, not {outputs[0].type} {shape}")


def _check_golden(session: Session, manifest: Manifest) -> None:
    """The golden rows must give what they gave at export."""
    inputs = _as_float32(np.array(manifest.golden.inputs, np.float64))
    expected = np.array(manifest.golden.expected)
    worst = float(np.abs(_probabilities(session, manifest, inputs, "golden row") - expected).max())
    if not worst <= GOLDEN_DIFFERENCE_MAX:
        raise ModelError(f"its golden rows are off by {worst:.3g}, more than {GOLDEN_DIFFERENCE_MAX:g}")
    _check_batches(session, manifest, inputs)


def _check_probes(session: Session, manifest: Manifest) -> None:
    """Rows of every kind that the stream may hold must give probabilities, and the same ones in every batch."""
    inputs = probes(manifest)
    _probabilities(session, manifest, inputs, "probe")
    _check_batches(session, manifest, inputs)


def probes(manifest: Manifest) -> Float32:
    """Rows [ROWS_MAX, F], the same each time, for which a model must have a probability.

    Values of the reference put together at random, a tenth of them null; and as the first rows nothing but nulls,
    nothing but zeros, and values far beyond the reference: an event may lack every entity, and thieves are no sample.
    """
    rng = np.random.default_rng(PROBE_SEED)
    rows = np.empty((ROWS_MAX, len(manifest.features)))
    far = np.empty(len(manifest.features))
    for column, feature in enumerate(manifest.features):
        edges = np.array(manifest.reference[feature.name].edges or [0.0])
        rows[:, column] = rng.choice(edges, ROWS_MAX)
        far[column] = FAR_TIMES * max(1.0, np.abs(edges).max())
    rows[rng.random(rows.shape) < PROBE_NULL_SHARE] = np.nan
    rows[0], rows[1], rows[2] = np.nan, 0.0, far
    return _as_float32(rows)


def _as_float32(rows: Float64) -> Float32:
    """Rounded, and what is too large for it the largest that there is; NaN stays."""
    largest = np.finfo(np.float32).max
    return np.clip(rows, -largest, largest).astype(np.float32)


def _probabilities(session: Session, manifest: Manifest, inputs: Float32, what: str) -> Float32:
    scores = infer(session, manifest.output, inputs)
    if scores.shape != (len(inputs),):
        raise ModelError(f"it gives {scores.size} values for {len(inputs)} rows")
    check_probabilities(scores, what)
    return scores


def check_probabilities(scores: Float32, what: str) -> None:
    """Raises ModelError for the first score that lies not between 0 and 1, NaN included; `what` names a row."""
    fine = (scores >= 0) & (scores <= 1)
    if not fine.all():
        wrong = int(np.flatnonzero(~fine)[0])
        raise ModelError(f"it gives {scores[wrong]:g} for {what} {wrong}, which is no probability")


def _check_batches(session: Session, manifest: Manifest, inputs: Float32) -> None:
    whole = infer(session, manifest.output, inputs)
    for batch, rows_max in BATCHES_ROWS:
        rows = min(rows_max, len(inputs))
        parts = [infer(session, manifest.output, inputs[i : min(i + batch, rows)]) for i in range(0, rows, batch)]
        if not np.array_equal(np.concatenate(parts), whole[:rows]):
            raise ModelError(f"it gives a row another probability {_in(batch)} than in a batch of {len(inputs)}")


def _in(batch: int) -> str:
    return "alone" if batch == 1 else f"in a batch of {batch}"
