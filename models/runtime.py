"""Running a model: everything that must hold before it may score, and then one batched inference per call."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from features.spec import FeatureDef
from models.calibration import Calibration
from models.errors import ModelError, one_line
from models.explain import Explainer
from models.gate import MODEL_BYTES_MAX
from models.manifest import MANIFEST_BYTES_MAX, Manifest, parse_manifest
from models.reference import Reference
from models.session import Session, infer
from models.store import MANIFEST_FILE, MODEL_FILE, Located, read_part, resolve
from models.trial import stand_trial
from models.trust import check_probabilities, trusted_session

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Index = NDArray[np.intp]


class Scorer(Protocol):
    """What gives probabilities, and says which one it is: a model, or `models.absent.NoModel`."""

    @property
    def label(self) -> str: ...
    @property
    def facts(self) -> dict[str, str]: ...
    @property
    def version(self) -> int: ...
    @property
    def columns(self) -> Index: ...
    @property
    def calibration(self) -> Calibration | None: ...
    @property
    def references(self) -> dict[str, Reference]: ...
    def score(self, features: Float64) -> Float32: ...
    def explainer(self) -> Explainer: ...


@dataclass(frozen=True, slots=True)
class Model:
    """A verified model. `columns[F]` are the positions of its inputs in the running feature matrix."""

    name: str
    version: int
    sha256: str
    manifest: Manifest
    columns: Index
    session: Session

    @property
    def label(self) -> str:
        """name/version."""
        return f"{self.name}/{self.version}"

    @property
    def facts(self) -> dict[str, str]:
        """Which one it is, as decisions and metrics say it."""
        return {"name": self.name, "version": str(self.version), "sha256": self.sha256}

    @property
    def calibration(self) -> Calibration | None:
        """How its probabilities become risk scores."""
        return self.manifest.calibration

    @property
    def references(self) -> dict[str, Reference]:
        """What is usual of each input, in the model's order."""
        return {feature.name: self.manifest.reference[feature.name] for feature in self.manifest.features}

    def explainer(self) -> Explainer:
        """What finds the reasons of its scores."""
        references = self.references
        return Explainer([*references], [*references.values()], self.score_inputs)

    def score(self, features: Float64) -> Float32:
        """Probabilities [n] of the rows of the whole matrix [n, all features]; NaN is null.

        A row's probability does not depend on the rows beside it, to the last bit. Raises as `score_inputs`.
        """
        return self.score_inputs(np.take(features, self.columns, axis=1).astype(np.float32))

    def score_inputs(self, inputs: Float32) -> Float32:
        """Probabilities [n] of rows [n, F] that hold the model's inputs only, in its order.

        ModelError where the model fails, or answers with what is no probability: no decision may come of that.
        """
        scores = infer(self.session, self.manifest.output, inputs)
        check_probabilities(scores, "row")
        return scores


def load_model(store: Path, reference: str, feature_definitions: Sequence[FeatureDef]) -> Model:
    """Loads, checks, and warms up the model that `reference` names; ModelError says what is wrong with it.

    `feature_definitions` are those of the running feature set, in the order of its matrix.
    """
    located = resolve(store, reference)
    try:
        manifest, model = admit(store, located)
        columns = input_columns(manifest, feature_definitions)
        session = trusted_session(model, manifest)
    except ModelError as error:
        raise ModelError(f"model {located.name}/{located.version}: {one_line(str(error))}") from error
    return Model(located.name, located.version, manifest.sha256, manifest, columns, session)


def admit(store: Path, located: Located) -> tuple[Manifest, bytes]:
    """The gate: everything that must hold of a version before its bytes come near this process's ONNX Runtime.

    Returns the manifest and the bytes that were hashed and tried, which are those to load. ModelError says what does
    not hold, perhaps in the words of the file, which `one_line` makes fit to be shown.
    """
    manifest_bytes = read_part(store, located, MANIFEST_FILE, MANIFEST_BYTES_MAX)
    manifest = parse_manifest(manifest_bytes, located.directory / MANIFEST_FILE)
    if (manifest.name, manifest.version) != (located.name, located.version):
        raise ModelError(f"its manifest is that of {manifest.name}/{manifest.version}")
    model = read_part(store, located, MODEL_FILE, MODEL_BYTES_MAX)
    digest = sha256(model).hexdigest()
    if digest != manifest.sha256:
        raise ModelError(f"sha256 of {MODEL_FILE} is {digest}, the manifest says {manifest.sha256}")
    stand_trial(manifest_bytes, model)
    return manifest, model


def input_columns(manifest: Manifest, definitions: Sequence[FeatureDef]) -> Index:
    """Where in the running set each input of the model stands; ModelError where it lacks one, or has another one."""
    running = {definition.name: (i, definition.definition_hash) for i, definition in enumerate(definitions)}
    missing = [feature.name for feature in manifest.features if feature.name not in running]
    if missing:
        raise ModelError(f"it needs features that the running set does not have: {', '.join(missing)}")
    other = [f.name for f in manifest.features if running[f.name][1] != f.definition_hash]
    if other:
        raise ModelError(f"it was trained on other definitions of: {', '.join(other)}")
    return np.array([running[feature.name][0] for feature in manifest.features], np.intp)
