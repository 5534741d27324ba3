"""The model of the benchmark ships too: what `tidegate bench` runs is found by its alias, and loads."""

from pathlib import Path

from engine.config import config_from_tree
from loadtest.reference import read_profile
from models.runtime import load_model
from models.store import shipped_store


def test_the_benchmark_has_its_model() -> None:
    config = config_from_tree(read_profile("reference").engine, Path(), environment={})
    model = load_model(shipped_store(), config.models.champion, config.feature_spec().features)
    assert model.facts["name"] == "reference"
    assert len(model.columns) == 40
