"""A model made elsewhere becomes a version in the store, once it answers as the original does.

Needs the `train` extra.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version as library_version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from numpy.typing import NDArray

from features.spec import FeatureDef
from models.calibration import calibration_of, risk_scores
from models.convert.original import OUTPUT, Original
from models.errors import ModelError
from models.golden import golden_of
from models.manifest import Import, Input, Manifest
from models.metrics import metrics_of
from models.parity import Parity, parity_of
from models.reference import reference_of
from models.runtime import load_model
from models.session import infer, open_session
from models.store import Located, publish
from models.table import UNLABELLED, FeatureTable, file_sha256, read_table

Float64 = NDArray[np.float64]

TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True)
class Candidate:
    """A converted model that is in no store yet; `parity` says whether it should be."""

    manifest: Manifest
    onnx: bytes
    parity: Parity


def prepare(
    original: Original,
    path: Path,
    table_path: Path,
    *,
    name: str,
    version: int,
    definitions: Sequence[FeatureDef],
    thresholds: Sequence[int],
) -> Candidate:
    """Compares the model of `path` with its conversion on the feature table, and writes down what is known of it.

    `thresholds` are the risk scores at which decisions change. Raises ModelError where the model needs features that
    the table or `definitions` do not have, or gives no probability for a row.
    """
    hashes = {definition.name: definition.definition_hash for definition in definitions}
    if unknown := [feature for feature in original.features if feature not in hashes]:
        raise ModelError(f"the model has inputs that are no features of the running set: {', '.join(unknown)}")
    table = read_table(table_path, original.features)
    rounded = table.features.astype(np.float32)
    probabilities = infer(open_session(original.onnx), OUTPUT, rounded)
    asked = _asked(original, table.features, table_path)
    usual = table.labels == 0 if (table.labels == 0).any() else np.ones(len(table.labels), bool)
    calibration = calibration_of(probabilities[usual], genuine=bool((table.labels == 0).any()))
    scores = risk_scores(calibration, asked), risk_scores(calibration, probabilities)
    parity = parity_of(asked, probabilities, scores, np.array(thresholds))
    known = table.labels != UNLABELLED
    both = len(np.unique(table.labels[known])) == 2
    manifest = Manifest(
        name=name,
        version=version,
        sha256=sha256(original.onnx).hexdigest(),
        features=[Input(name=feature, definition_hash=hashes[feature]) for feature in original.features],
        output=OUTPUT,
        opset=_opset(original.onnx),
        imported=_origin(original, path, table, parity),
        calibration=calibration,
        metrics=metrics_of(table.labels[known], probabilities[known]) if both else {},
        reference={
            feature: reference_of(rounded[usual, column].astype(np.float64))
            for column, feature in enumerate(original.features)
        },
        golden=golden_of(original.onnx, rounded, probabilities),
    )
    return Candidate(manifest, original.onnx, parity)


def accept(
    candidate: Candidate, store: Path, definitions: Sequence[FeatureDef], tolerance: float = TOLERANCE
) -> Located:
    """Adds the candidate to the store, whole or not at all, after loading it as the engine will.

    Raises ModelError where a probability moves by more than `tolerance`, or the engine would refuse it.
    """
    found = candidate.parity
    if not found.max <= tolerance:
        raise ModelError(
            f"the imported model differs from the original by up to {found.max:.3g}, more than {tolerance:g}; "
            f"{found.flipped_rows} of {found.rows} rows would be decided otherwise"
        )
    manifest = candidate.manifest
    with TemporaryDirectory() as folder:
        publish(Path(folder), manifest, candidate.onnx)
        load_model(Path(folder), f"{manifest.name}/{manifest.version}", definitions)
    return publish(store, manifest, candidate.onnx)


def _asked(original: Original, rows: Float64, path: Path) -> Float64:
    try:
        probabilities = original.predict(rows)
    except ValueError as error:
        raise ModelError(f"the original refuses rows of {path}: {str(error).splitlines()[0]}") from error
    if silent := int(np.count_nonzero(~np.isfinite(probabilities))):
        raise ModelError(f"the original gives no probability for {silent} rows of {path}")
    return probabilities


def _origin(original: Original, path: Path, table: FeatureTable, parity: Parity) -> Import:
    libraries = ("tidegate", *original.libraries)
    return Import(
        format=original.format,
        file_sha256=file_sha256(path),
        reference_sha256=table.sha256,
        rows=len(table.labels),
        labelled_rows=int(np.count_nonzero(table.labels != UNLABELLED)),
        positives=int(np.count_nonzero(table.labels == 1)),
        parity=parity,
        libraries={library: library_version(library) for library in libraries},
    )


def _opset(model: bytes) -> dict[str, int]:
    return {entry.domain or "ai.onnx": entry.version for entry in onnx.load_from_string(model).opset_import}
