"""Running a model: everything that must hold before it may score, and then one batched inference per call."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from features.spec import FeatureDef
from models.errors import ModelError
from models.gate import check_graph, read_model
from models.manifest import Manifest, read_manifest
from models.session import ORT_ERRORS, infer, open_session
from models.store import MANIFEST_FILE, MODEL_FILE, Located, resolve

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Index = NDArray[np.intp]

GOLDEN_DIFFERENCE_MAX = 1e-6
WARM_UP_ROWS = (1, 16, 256, 2_048)


@dataclass(frozen=True, slots=True)
class Model:
    """A verified model. `columns[F]` are the positions of its inputs in the running feature matrix."""

    name: str
    version: int
    sha256: str
    manifest: Manifest
    columns: Index
    session: onnxruntime.InferenceSession

    def score(self, features: Float64) -> Float32:
        """Probabilities [n] of the rows of the whole matrix [n, all features]; NaN is null.

        A row's probability does not depend on the rows beside it, to the last bit.
        """
        return self.score_inputs(np.take(features, self.columns, axis=1).astype(np.float32))

    def score_inputs(self, inputs: Float32) -> Float32:
        """Probabilities [n] of rows [n, F] that hold the model's inputs only, in its order."""
        if not len(inputs):
            return np.zeros(0, np.float32)
        return infer(self.session, self.manifest.output, inputs)


def load_model(store: Path, reference: str, feature_definitions: Sequence[FeatureDef]) -> Model:
    """Loads, checks, and warms up the model that `reference` names; ModelError says what is wrong with it.

    `feature_definitions` are those of the running feature set, in the order of its matrix.
    """
    located = resolve(store, reference)
    try:
        return _load(located, feature_definitions)
    except ModelError as error:
        raise ModelError(f"model {located.name}/{located.version}: {error}") from error


def _load(located: Located, definitions: Sequence[FeatureDef]) -> Model:
    manifest = read_manifest(located.directory / MANIFEST_FILE)
    if (manifest.name, manifest.version) != (located.name, located.version):
        raise ModelError(f"its manifest is that of {manifest.name}/{manifest.version}")
    columns = _columns(manifest, definitions)
    data = read_model(located.directory / MODEL_FILE)
    digest = sha256(data).hexdigest()
    if digest != manifest.sha256:
        raise ModelError(f"sha256 of {MODEL_FILE} is {digest}, the manifest says {manifest.sha256}")
    check_graph(data)
    session = open_session(data)
    _check_interface(session, manifest)
    model = Model(located.name, located.version, digest, manifest, columns, session)
    _check_golden(model)
    for rows in WARM_UP_ROWS:
        model.score_inputs(np.zeros((rows, len(columns)), np.float32))
    return model


def _columns(manifest: Manifest, definitions: Sequence[FeatureDef]) -> Index:
    running = {definition.name: (i, definition.definition_hash) for i, definition in enumerate(definitions)}
    missing = [feature.name for feature in manifest.features if feature.name not in running]
    if missing:
        raise ModelError(f"it needs features that the running set does not have: {', '.join(missing)}")
    other = [f.name for f in manifest.features if running[f.name][1] != f.definition_hash]
    if other:
        raise ModelError(f"it was trained on other definitions of: {', '.join(other)}")
    return np.array([running[feature.name][0] for feature in manifest.features], np.intp)


def _check_interface(session: onnxruntime.InferenceSession, manifest: Manifest) -> None:
    inputs = session.get_inputs()
    wanted = ("tensor(float)", [len(manifest.features)])
    if len(inputs) != 1 or (inputs[0].type, inputs[0].shape[1:]) != wanted:
        raise ModelError(f"it must take one float matrix of {len(manifest.features)} columns")
    outputs = {output.name: output.type for output in session.get_outputs()}
    if outputs.get(manifest.output) != "tensor(float)":
        raise ModelError(f"it has no float output {manifest.output!r}")


def _check_golden(model: Model) -> None:
    """The golden rows must give what they gave at export, alone and in a batch alike."""
    inputs = np.array(model.manifest.golden.inputs, np.float64).astype(np.float32)
    expected = np.array(model.manifest.golden.expected)
    try:
        scores = model.score_inputs(inputs)
        alone = np.concatenate([model.score_inputs(inputs[i : i + 1]) for i in range(len(inputs))])
    except ORT_ERRORS as error:
        raise ModelError(f"it fails on its golden rows: {error}") from error
    if scores.shape != expected.shape:
        raise ModelError(f"it gives {scores.size} values for {len(expected)} golden rows")
    worst = float(np.abs(scores - expected).max())
    if not worst <= GOLDEN_DIFFERENCE_MAX:
        raise ModelError(f"its golden rows are off by {worst:.3g}, more than {GOLDEN_DIFFERENCE_MAX:g}")
    if not np.array_equal(scores, alone):
        raise ModelError("it gives a row another probability alone than in a batch")
