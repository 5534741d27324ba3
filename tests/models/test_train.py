"""Training learns what is there, nothing from what is not, and hands LightGBM's own answers to ONNX."""

from pathlib import Path

import lightgbm
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.convert.lightgbm_text import lightgbm_original
from models.errors import ModelError
from models.manifest import read_manifest
from models.runtime import load_model
from models.session import infer, open_session
from models.store import MANIFEST_FILE, MODEL_FILE, Located
from models.train import TrainParams, train
from tests.models.conftest import PARAMS
from tests.models.synthetic import DEFINITIONS, NAMES, write_features


def test_it_learns_and_is_measured_on_the_later_slice(trained: Located) -> None:
    manifest = read_manifest(trained.directory / MANIFEST_FILE)
    assert manifest.metrics["auc"] > 0.95
    assert manifest.metrics["average_precision"] > 0.5
    assert (manifest.training.rows, manifest.training.test_rows) == (9_000, 3_000)
    assert manifest.training.positives + manifest.training.test_positives == 480
    assert (trained.directory / MODEL_FILE).stat().st_size < 1_000_000


def test_probabilities_are_those_of_the_stream_not_of_the_weighted_sample(trained: Located) -> None:
    manifest = read_manifest(trained.directory / MANIFEST_FILE)
    assert manifest.training.params["positive_weight"] == 5.0
    assert manifest.metrics["mean_probability"] == pytest.approx(manifest.metrics["positive_share"], rel=0.15)


def test_shuffled_labels_teach_nothing(tmp_path: Path) -> None:
    path = tmp_path / "shuffled.parquet"
    write_features(path, rows=12_000, seed=2, shuffle_labels=True)
    located = train(path, tmp_path, "noise", feature_names=NAMES, definitions=DEFINITIONS, seed=1, params=PARAMS)
    assert 0.4 < read_manifest(located.directory / MANIFEST_FILE).metrics["auc"] < 0.6


def test_the_later_slice_is_never_trained_on(features_file: Path, trained: Located, tmp_path: Path) -> None:
    """Other labels after the split change the metrics, and not one byte of the model."""
    table = pq.read_table(features_file)
    flipped = table["label"].to_numpy().copy()
    flipped[9_000:] = 1 - flipped[9_000:]
    at = table.column_names.index("label")
    path = tmp_path / "flipped.parquet"
    pq.write_table(table.set_column(at, "label", pa.array(flipped)), path)
    located = train(path, tmp_path, "fraud", feature_names=NAMES, definitions=DEFINITIONS, seed=1, params=PARAMS)
    assert (located.directory / MODEL_FILE).read_bytes() == (trained.directory / MODEL_FILE).read_bytes()
    assert read_manifest(located.directory / MANIFEST_FILE).metrics["auc"] < 0.05


def test_the_order_of_the_rows_does_not_leak(features_file: Path, trained: Located, tmp_path: Path) -> None:
    """The split goes by time, wherever a row stands in the file."""
    path = tmp_path / "reversed.parquet"
    table = pq.read_table(features_file)
    pq.write_table(table.take(np.arange(len(table))[::-1]), path)
    located = train(path, tmp_path, "fraud", feature_names=NAMES, definitions=DEFINITIONS, seed=1, params=PARAMS)
    ours, theirs = (read_manifest(at.directory / MANIFEST_FILE).training for at in (located, trained))
    assert (ours.split, ours.rows, ours.positives) == (theirs.split, theirs.rows, theirs.positives)


def test_the_same_data_gives_the_same_bytes(features_file: Path, trained: Located, tmp_path: Path) -> None:
    again = train(features_file, tmp_path, "fraud", feature_names=NAMES, definitions=DEFINITIONS, seed=1, params=PARAMS)
    for name in (MODEL_FILE, MANIFEST_FILE):
        assert (again.directory / name).read_bytes() == (trained.directory / name).read_bytes()


def test_a_trained_model_loads(trained: Located) -> None:
    model = load_model(trained.directory.parent.parent, "fraud@champion", DEFINITIONS)
    assert model.sha256 == model.manifest.sha256
    assert [feature.name for feature in model.manifest.features] == NAMES


def test_onnx_decides_every_split_as_lightgbm_does() -> None:
    """Neighbouring float32 values as training data: their midpoint rounds onto one of them.

    Also nulls where training never saw one, which LightGBM reads as zero.
    """
    rng = np.random.default_rng(3)
    low = np.float32(0.1)
    steps = np.stack([low, np.nextafter(low, np.float32(1)), np.float32(-2), np.float32(5)])
    inputs = rng.choice(steps, (4_000, 3)).astype(np.float32)
    labels = (inputs[:, 0] > low) ^ (inputs[:, 1] > low) ^ (rng.random(4_000) < 0.1)
    data = lightgbm.Dataset(inputs, labels, feature_name=["a", "b", "c"], params={"verbose": -1})
    settings = {"objective": "binary", "num_leaves": 8, "verbose": -1, "scale_pos_weight": 3.0}
    raw = lightgbm.train(settings, data, 10)
    original = lightgbm_original(raw, 3.0, float32=True)
    holes = np.where(rng.random(inputs.shape) < 0.4, np.float32(np.nan), inputs)
    probes = np.concatenate([inputs, holes])
    odds = np.exp(raw.predict(probes.astype(np.float64), raw_score=True)) / 3.0
    np.testing.assert_allclose(original.predict(probes.astype(np.float64)), odds / (1 + odds), atol=1e-12)
    np.testing.assert_allclose(infer(open_session(original.onnx), "probability", probes), odds / (1 + odds), atol=1e-6)


def test_one_class_only_is_refused(tmp_path: Path, features_file: Path) -> None:
    table = pq.read_table(features_file)
    at = table.column_names.index("label")
    path = tmp_path / "honest.parquet"
    pq.write_table(table.set_column(at, "label", pa.array(np.zeros(len(table), np.int8))), path)
    with pytest.raises(ModelError, match="the earlier slice needs rows of both labels"):
        train(
            path,
            tmp_path,
            "fraud",
            feature_names=NAMES,
            definitions=DEFINITIONS,
            seed=1,
            params=TrainParams(),
        )


def test_an_undefined_feature_is_refused(tmp_path: Path, features_file: Path) -> None:
    with pytest.raises(ModelError, match=r"no definition for: card\.count\.9d"):
        train(features_file, tmp_path, "fraud", feature_names=["card.count.9d"], definitions=DEFINITIONS, seed=1)
