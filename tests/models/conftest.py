"""One small model, trained once on synthetic features, in a store of its own."""

from pathlib import Path

import pytest

from models.assignment import promoted
from models.store import Located, set_alias
from models.train import TrainParams, train
from tests.models.synthetic import DEFINITIONS, NAMES, write_features

PARAMS = TrainParams(trees=40, leaves=15, learning_rate=0.1, rows_per_leaf_min=20, l2=1.0, positive_weight=5.0)


@pytest.fixture(scope="session")
def features_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("features") / "features.parquet"
    write_features(path, rows=12_000, seed=1)
    return path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, features_file: Path) -> Located:
    store = tmp_path_factory.mktemp("store")
    located = train(features_file, store, "fraud", feature_names=NAMES, definitions=DEFINITIONS, seed=1, params=PARAMS)
    set_alias(store, "fraud", "champion", promoted(None, located.version, "test", ""))
    return located


@pytest.fixture
def store(trained: Located, tmp_path: Path) -> Path:
    """A store that a test may damage: a copy of the trained model's."""
    copy = tmp_path / "store"
    _copy_tree(trained.directory.parent.parent, copy)
    return copy


def _copy_tree(source: Path, target: Path) -> None:
    target.mkdir()
    for entry in source.iterdir():
        if entry.is_dir():
            _copy_tree(entry, target / entry.name)
        else:
            (target / entry.name).write_bytes(entry.read_bytes())
