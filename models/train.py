"""Training from a Parquet file of features to a version in the store. Needs the `train` extra."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import file_digest, sha256
from importlib.metadata import version as library_version
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, log_loss, precision_score, recall_score, roc_auc_score

from features.spec import FeatureDef
from models.errors import ModelError
from models.export import OPSET, OUTPUT, settle, to_onnx
from models.manifest import Golden, Input, Manifest, Training
from models.reference import reference_of
from models.session import infer, open_session
from models.store import Located, next_version, publish

Float32 = NDArray[np.float32]
Int8 = NDArray[np.int8]
Int64 = NDArray[np.int64]

PARITY_DIFFERENCE_MAX = 1e-5
GOLDEN_ROWS = 32
LIBRARIES = ("lightgbm", "numpy", "onnx", "onnxmltools", "onnxruntime", "scikit-learn")


@dataclass(frozen=True, slots=True)
class TrainParams:
    """How the trees are grown, with the defaults that suit fraud of half a percent in a million rows.

    `positive_weight` is how often a positive counts. Large weights make LightGBM overfit the few frauds there
    are: on 600,000 events, 13.5 gave an average precision of 0.81, and 1 gave 0.83.
    """

    trees: int = 100
    leaves: int = 31
    learning_rate: float = 0.07
    rows_per_leaf_min: int = 200
    l2: float = 20.0
    positive_weight: float = 2.0
    test_share: float = 0.25
    threads: int = 2


@dataclass(frozen=True, slots=True)
class _Slice:
    features: Float32
    labels: Int8


def train(
    parquet_path: Path,
    out_store: Path,
    name: str,
    *,
    feature_names: Sequence[str],
    definitions: Sequence[FeatureDef],
    seed: int,
    params: TrainParams = TrainParams(),
) -> Located:
    """Trains on the earlier part of the file, measures on the last `test_share` of it by time, and publishes.

    The file has the columns `event_time` (int64 ms), `label` (0 or 1) and every feature by name (float64; null
    and NaN both mean that it has no value). Raises ModelError when the data cannot teach or test anything, or
    when ONNX and LightGBM disagree.
    """
    hashes = {definition.name: definition.definition_hash for definition in definitions}
    if unknown := [feature for feature in feature_names if feature not in hashes]:
        raise ModelError(f"no definition for: {', '.join(unknown)}")
    fit, test, split = _read_split(parquet_path, feature_names, params.test_share)
    booster = _fit(fit, seed, params)
    model = to_onnx(booster, len(feature_names))
    probabilities = _check_parity(model, booster, test.features)
    golden_inputs = _golden_rows(test.features, probabilities)
    manifest = Manifest(
        name=name,
        version=next_version(out_store, name),
        sha256=sha256(model).hexdigest(),
        features=[Input(name=feature, definition_hash=hashes[feature]) for feature in feature_names],
        output=OUTPUT,
        opset=OPSET,
        training=Training(
            data_sha256=_file_sha256(parquet_path),
            rows=len(fit.labels),
            positives=int(fit.labels.sum()),
            test_rows=len(test.labels),
            test_positives=int(test.labels.sum()),
            split=split,
            params={**asdict(params), "seed": seed},
            libraries={library: library_version(library) for library in LIBRARIES},
        ),
        metrics=_metrics(test.labels, probabilities),
        reference=_references(fit, feature_names),
        golden=Golden(inputs=_nullable(golden_inputs), expected=_run(model, golden_inputs).tolist()),
    )
    return publish(out_store, manifest, model)


def _read_split(path: Path, feature_names: Sequence[str], test_share: float) -> tuple[_Slice, _Slice, str]:
    """Rows up to a moment, rows after it, and the moment in words.

    Everything of the first slice happened before anything of the second, so nothing can leak backwards.
    Features are rounded to float32 here, because that is what the model will be given.
    """
    with pq.ParquetFile(path) as file:
        if missing := [name for name in feature_names if name not in file.schema_arrow.names]:
            raise ModelError(f"{path} lacks columns: {', '.join(missing)}")
        times_ms: Int64 = _column(file, "event_time").astype(np.int64)
        labels: Int8 = _column(file, "label").astype(np.int8)
        features = np.empty((len(labels), len(feature_names)), np.float32)
        for column, feature in enumerate(feature_names):
            features[:, column] = _column(file, feature)
    if not len(labels):
        raise ModelError(f"{path} has no rows")
    boundary_ms = int(np.quantile(times_ms, 1 - test_share, method="lower"))
    earlier = times_ms <= boundary_ms
    slices = _Slice(features[earlier], labels[earlier]), _Slice(features[~earlier], labels[~earlier])
    for part, title in zip(slices, ("earlier", "later"), strict=True):
        if len(np.unique(part.labels)) < 2:
            raise ModelError(f"{path}: the {title} slice needs rows of both labels, split at event_time {boundary_ms}")
    return *slices, f"train: event_time <= {boundary_ms}, test: after it"


def _column(file: pq.ParquetFile, name: str) -> NDArray[Any]:
    """One column at a time: the whole table in float64 would be three times as large as what is kept."""
    values: NDArray[Any] = file.read(columns=[name])[name].to_numpy()
    return values


def _fit(data: _Slice, seed: int, params: TrainParams) -> Any:
    settings = {
        "objective": "binary",
        "num_leaves": params.leaves,
        "learning_rate": params.learning_rate,
        "min_data_in_leaf": params.rows_per_leaf_min,
        "lambda_l2": params.l2,
        "scale_pos_weight": params.positive_weight,
        "num_threads": params.threads,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "verbose": -1,
    }
    booster = lightgbm.train(settings, lightgbm.Dataset(data.features, data.labels), params.trees)
    return settle(booster, params.positive_weight)


def _check_parity(model: bytes, booster: Any, inputs: Float32) -> Float32:
    """The probabilities of ONNX, after comparing them with LightGBM's."""
    probabilities = _run(model, inputs)
    worst = float(np.abs(probabilities - booster.predict(inputs.astype(np.float64))).max())
    if not worst <= PARITY_DIFFERENCE_MAX:
        raise ModelError(f"ONNX and LightGBM differ by {worst:.3g}, more than {PARITY_DIFFERENCE_MAX:g}")
    return probabilities


def _run(model: bytes, inputs: Float32) -> Float32:
    return infer(open_session(model), OUTPUT, inputs)


def _golden_rows(inputs: Float32, probabilities: Float32) -> Float32:
    """Rows from the least to the most suspicious; the last quarter partly null, the very last wholly."""
    by_score = np.argsort(probabilities, kind="stable")
    rows = inputs[by_score[np.linspace(0, len(inputs) - 1, GOLDEN_ROWS).astype(np.intp)]]
    nulls = np.arange(GOLDEN_ROWS * 3 // 4, GOLDEN_ROWS)
    for row in nulls:
        rows[row, row % 3 :: 3] = np.nan
    rows[-1] = np.nan
    return rows


def _nullable(rows: Float32) -> list[list[float | None]]:
    return [[None if np.isnan(value) else float(value) for value in row] for row in rows]


def _references(data: _Slice, feature_names: Sequence[str]) -> dict[str, Any]:
    usual = data.features[data.labels == 0].astype(np.float64)
    return {feature: reference_of(usual[:, column]) for column, feature in enumerate(feature_names)}


def _metrics(labels: Int8, probabilities: Float32) -> dict[str, float]:
    """Figures of the test slice; `mean_probability` beside `positive_share` tells how true the level is."""
    flagged = probabilities >= 0.5
    return {
        "auc": float(roc_auc_score(labels, probabilities)),
        "average_precision": float(average_precision_score(labels, probabilities)),
        "log_loss": float(log_loss(labels, probabilities)),
        "precision_at_half": float(precision_score(labels, flagged, zero_division=0.0)),
        "recall_at_half": float(recall_score(labels, flagged)),
        "mean_probability": float(probabilities.mean()),
        "positive_share": float(labels.mean()),
    }


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
