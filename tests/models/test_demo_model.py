"""The model that ships: it loads under the default profile, and its own manifest says that it is good."""

import re
from pathlib import Path

import pytest

from engine.config import default_profile, parse_config
from models.runtime import Model, load_model
from models.store import MODEL_FILE, resolve, shipped_store


@pytest.fixture(scope="module")
def demo() -> Model:
    spec = parse_config(default_profile(), Path(), environment={}).feature_spec()
    return load_model(shipped_store(), "demo@champion", spec.features)


def test_it_is_small() -> None:
    assert (resolve(shipped_store(), "demo@champion").directory / MODEL_FILE).stat().st_size < 1_000_000


def test_it_was_tested_on_cards_and_attacks_that_it_had_not_seen(demo: Model) -> None:
    assert demo.manifest.training.test_positives > 1_000
    assert demo.manifest.metrics["auc"] > 0.99
    assert demo.manifest.metrics["average_precision"] > 0.8
    assert demo.manifest.metrics["precision_at_half"] > 0.8
    level = demo.manifest.metrics["mean_probability"] / demo.manifest.metrics["positive_share"]
    assert 0.8 < level < 1.2


def test_it_looks_no_further_back_than_the_demo_lasts(demo: Model) -> None:
    windows = {name.rpartition(".")[2] for name in (feature.name for feature in demo.manifest.features)}
    assert {window for window in windows if re.fullmatch(r"\d+[smhd]", window)} == {"10s", "1m"}
