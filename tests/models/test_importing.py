"""Models of other libraries, made here, answer in the store as they did at home; what cannot is refused by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import msgspec
import numpy as np
import onnx
import polars as pl
import pytest
import skops.io
import xgboost
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from models.calibration import calibration_of, risk_scores
from models.convert.read import read_original
from models.errors import ModelError
from models.importing import Candidate, accept, prepare
from models.manifest import read_manifest
from models.runtime import load_model
from models.store import MANIFEST_FILE, names, versions
from tests.models.synthetic import DEFINITIONS, NAMES, SPEC, feature_matrix, labels, write_features

ROWS = 50_000
FIT_ROWS = 8_000
THRESHOLDS = (500, 800, 950)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reference") / "features.parquet"
    write_features(path, rows=ROWS, seed=11)
    return path


@pytest.fixture(scope="module")
def known() -> tuple[pl.DataFrame, np.ndarray]:
    """Rows to fit on, other than those of the table, under the features' names but in an order of their own."""
    rng = np.random.default_rng(12)
    matrix = feature_matrix(rng, FIT_ROWS)
    return pl.DataFrame({name: matrix[:, SPEC.names.index(name)] for name in NAMES[::-1]}), labels(rng, matrix)


def save_lightgbm(path: Path, rows: pl.DataFrame, fraud: np.ndarray) -> Path:
    data = lightgbm.Dataset(rows.to_numpy(), fraud, feature_name=rows.columns)
    settings = {"objective": "binary", "verbose": -1, "num_threads": 1, "num_leaves": 31}
    lightgbm.train(settings, data, 100).save_model(path / "model.txt")
    return path / "model.txt"


def save_xgboost(path: Path, rows: pl.DataFrame, fraud: np.ndarray) -> Path:
    data = xgboost.DMatrix(rows.to_numpy(), fraud, feature_names=rows.columns)
    xgboost.train({"objective": "binary:logistic", "nthread": 1}, data, 60).save_model(path / "model.json")
    return path / "model.json"


def save_skops(path: Path, pipeline: Any, rows: pl.DataFrame, fraud: np.ndarray) -> Path:
    skops.io.dump(pipeline.fit(rows, fraud), path / "model.skops")
    return path / "model.skops"


PIPELINES: dict[str, Callable[[], Any]] = {
    "logistic": lambda: make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()),
    "forest": lambda: make_pipeline(SimpleImputer(), RandomForestClassifier(30, max_depth=9)),
    "gradient": lambda: make_pipeline(SimpleImputer(), GradientBoostingClassifier(n_estimators=40)),
    "histogram": lambda: HistGradientBoostingClassifier(max_iter=60),
    "columns": lambda: make_pipeline(
        ColumnTransformer(
            [
                ("scaled", make_pipeline(SimpleImputer(), StandardScaler()), ["card.since_last", "event.amount"]),
                ("kept", SimpleImputer(), ["card.count.10s"]),
            ]
        ),
        LogisticRegression(),
    ),
}
MODELS = ("lightgbm", "xgboost", *PIPELINES)


def save(kind: str, path: Path, known: tuple[pl.DataFrame, np.ndarray]) -> Path:
    if kind in PIPELINES:
        return save_skops(path, PIPELINES[kind](), *known)
    return (save_lightgbm if kind == "lightgbm" else save_xgboost)(path, *known)


def candidate(path: Path, table: Path, inputs: list[str] | None = None) -> Candidate:
    return prepare(
        read_original(path, inputs),
        path,
        table,
        name="fraud",
        version=1,
        definitions=DEFINITIONS,
        thresholds=THRESHOLDS,
    )


@pytest.mark.parametrize("kind", MODELS)
def test_an_imported_model_decides_as_the_original(
    kind: str, tmp_path: Path, table: Path, known: tuple[pl.DataFrame, np.ndarray]
) -> None:
    """50,000 rows that it was not fitted on, and the engine's own matrix, whose columns stand in another order."""
    path = save(kind, tmp_path, known)
    found = candidate(path, table)
    assert found.parity.rows == ROWS
    assert found.parity.max <= 1e-5
    assert found.parity.flipped_rows == 0
    accept(found, tmp_path / "store", DEFINITIONS)
    model = load_model(tmp_path / "store", "fraud/1", DEFINITIONS)
    matrix = feature_matrix(np.random.default_rng(13), 2_000)
    rows = matrix[:, [SPEC.names.index(feature.name) for feature in model.manifest.features]]
    np.testing.assert_allclose(model.score(matrix), read_original(path).predict(rows), atol=1e-5)
    assert model.manifest.metrics["auc"] > 0.9
    assert model.manifest.imported is not None
    assert model.manifest.imported.labelled_rows == ROWS


@pytest.mark.parametrize("named", ["property", "given"])
@pytest.mark.parametrize("maps", [False, True])
def test_onnx_from_elsewhere_needs_names(
    named: str, maps: bool, tmp_path: Path, table: Path, known: tuple[pl.DataFrame, np.ndarray]
) -> None:
    from skl2onnx import to_onnx

    rows, fraud = known
    wide = rows.fill_null(0).fill_nan(0).to_numpy().astype(np.float32)
    forest = RandomForestClassifier(10, max_depth=6, random_state=1).fit(wide, fraud)
    model = to_onnx(forest, wide[:1], options={id(forest): {"zipmap": maps}}, target_opset={"": 15, "ai.onnx.ml": 3})
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    with pytest.raises(ModelError, match="neither says which is which"):
        candidate(path, table)
    inputs = rows.columns
    if named == "property":
        model.metadata_props.add(key="feature_names", value=msgspec.json.encode(rows.columns).decode())
        onnx.save(model, path)
        inputs = None
    found = candidate(path, table, inputs)
    assert found.parity.max <= 1e-6
    assert [feature.name for feature in found.manifest.features] == rows.columns
    accept(found, tmp_path / "store", DEFINITIONS)


def test_a_conversion_that_differs_is_refused_and_leaves_nothing(
    tmp_path: Path, table: Path, known: tuple[pl.DataFrame, np.ndarray]
) -> None:
    """skl2onnx forgets where a forest sends nulls."""
    path = save_skops(tmp_path, RandomForestClassifier(10, max_depth=6, random_state=1), *known)
    found = candidate(path, table)
    assert found.parity.max > 0.01
    worst = found.parity.worst[0]
    assert abs(worst.original - worst.imported) == pytest.approx(found.parity.max)
    with pytest.raises(ModelError, match=r"differs from the original by up to .*would be decided otherwise"):
        accept(found, tmp_path / "store", DEFINITIONS)
    assert names(tmp_path / "store") == []


def test_a_value_within_rounding_of_a_split_is_reported(tmp_path: Path) -> None:
    """A threshold between two float64 values that are one float32."""
    near = 1.0 + 2.0**-26
    rows = np.column_stack([np.where(np.arange(FIT_ROWS) % 2, near, 1.0)])
    data = lightgbm.Dataset(rows, (rows[:, 0] > 1).astype(int), feature_name=["event.amount"])
    lightgbm.train({"objective": "binary", "verbose": -1}, data, 3).save_model(tmp_path / "model.txt")
    table = tmp_path / "table.parquet"
    pl.DataFrame({"event.amount": [1.0, near] * 50}).write_parquet(table)
    parity = candidate(tmp_path / "model.txt", table).parity
    assert parity.max > 0.01


def test_inputs_that_are_no_features_are_named(tmp_path: Path, known: tuple[pl.DataFrame, np.ndarray]) -> None:
    table = tmp_path / "features.parquet"
    rows, fraud = known
    other = rows.rename({"card.count.1m": "velocity"})
    path = save_lightgbm(tmp_path, other, fraud)
    other.write_parquet(table)
    with pytest.raises(ModelError, match=r"no features of the running set: velocity$"):
        candidate(path, table)


def test_columns_that_the_table_lacks_are_named(
    tmp_path: Path, table: Path, known: tuple[pl.DataFrame, np.ndarray]
) -> None:
    narrow = tmp_path / "narrow.parquet"
    pl.read_parquet(table).drop("card.count.1m").write_parquet(narrow)
    with pytest.raises(ModelError, match=r"lacks columns: card\.count\.1m$"):
        candidate(save_xgboost(tmp_path, *known), narrow)


@pytest.mark.parametrize("kind", ["lightgbm", "xgboost", "skops"])
def test_a_model_without_names_is_refused(kind: str, tmp_path: Path, known: tuple[pl.DataFrame, np.ndarray]) -> None:
    rows, fraud = known[0].to_numpy(), known[1]
    if kind == "lightgbm":
        path = tmp_path / "model.txt"
        lightgbm.train({"objective": "binary", "verbose": -1}, lightgbm.Dataset(rows, fraud), 3).save_model(path)
    elif kind == "xgboost":
        path = tmp_path / "model.json"
        xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(rows, fraud), 3).save_model(path)
    else:
        path = tmp_path / "model.skops"
        skops.io.dump(HistGradientBoostingClassifier(max_iter=3).fit(rows, fraud), path)
    with pytest.raises(ModelError, match="columns without a name"):
        read_original(path)


def test_pickles_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(ModelError, match="runs the code in it"):
        read_original(path)


class Foreign(LogisticRegression):
    """No type of scikit-learn."""


def test_types_of_others_are_refused(tmp_path: Path, known: tuple[pl.DataFrame, np.ndarray]) -> None:
    rows, fraud = known
    path = save_skops(tmp_path, make_pipeline(SimpleImputer(), Foreign()), rows, fraud)
    with pytest.raises(ModelError, match="holds more than scikit-learn"):
        read_original(path)


@pytest.mark.parametrize("damage", ["round", "out", "column"])
def test_damaged_trees_are_refused(damage: str, tmp_path: Path, known: tuple[pl.DataFrame, np.ndarray]) -> None:
    rows, fraud = known
    model = HistGradientBoostingClassifier(max_iter=3).fit(rows, fraud)
    nodes = model._predictors[0][0].nodes
    field, value = {"round": ("left", 0), "out": ("right", 10_000), "column": ("feature_idx", 99)}[damage]
    nodes[field][0] = value
    skops.io.dump(model, tmp_path / "model.skops")
    with pytest.raises(ModelError, match="trees are damaged"):
        read_original(tmp_path / "model.skops")


@pytest.mark.parametrize("name", ["model.txt", "model.json", "model.skops", "model.onnx"])
def test_files_that_are_something_else(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"something else")
    with pytest.raises(ModelError):
        read_original(tmp_path / name)


def test_a_model_that_has_no_answer_to_nulls_is_refused(tmp_path: Path, known: tuple[pl.DataFrame, np.ndarray]) -> None:
    rows, fraud = known
    complete = rows.fill_nan(0)
    table = tmp_path / "complete.parquet"
    complete.write_parquet(table)
    path = save_skops(tmp_path, make_pipeline(StandardScaler(), LogisticRegression()), complete, fraud)
    with pytest.raises(ModelError, match="begin the pipeline with an imputer"):
        candidate(path, table)


def test_a_risk_score_is_a_rate_of_false_alarms() -> None:
    genuine = np.random.default_rng(14).beta(1, 60, 200_000).astype(np.float32)
    calibration = calibration_of(genuine, genuine=True)
    scores = risk_scores(calibration, genuine)
    for score, share in ((250, 0.1), (500, 0.01), (750, 0.001)):
        assert (scores >= score).mean() == pytest.approx(share, rel=0.1)
    ends = risk_scores(calibration, np.array([0.0, 1.0]))
    assert ends.tolist() == [0, 1000]


def test_the_manifest_can_be_read_again(tmp_path: Path, table: Path, known: tuple[pl.DataFrame, np.ndarray]) -> None:
    found = candidate(save_lightgbm(tmp_path, *known), table)
    located = accept(found, tmp_path / "store", DEFINITIONS)
    assert versions(tmp_path / "store", "fraud") == [1]
    assert read_manifest(located.directory / MANIFEST_FILE) == found.manifest
