"""A model scores only after everything about it was checked, and then the same way in every batch."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from engine.errors import FatalError
from engine.score import score
from engine.state.local import FeatureMatrix
from features.spec import FeatureDef
from models.errors import ModelError
from models.manifest import Manifest, read_manifest, write_manifest
from models.runtime import load_model
from models.store import MANIFEST_FILE
from tests.models.synthetic import DEFINITIONS, NAMES, SPEC, feature_matrix

BATCH_ROWS = (1, 2, 7, 64, 512, 4_096)  # the last one goes in by two


def rewrite(store: Path, change: Callable[[Manifest], Manifest]) -> None:
    path = store / "fraud" / "1" / MANIFEST_FILE
    write_manifest(path, change(read_manifest(path)))


def test_a_row_gets_the_same_bits_in_every_batch(store: Path) -> None:
    model = load_model(store, "fraud@champion", DEFINITIONS)
    matrix = feature_matrix(np.random.default_rng(5), 4_096)
    matrix[::17] = np.nan
    whole = model.score(matrix)
    assert whole.dtype == np.float32
    assert len(np.unique(whole)) > 100
    for rows in BATCH_ROWS:
        parts = [model.score(matrix[i : i + rows]) for i in range(0, len(matrix), rows)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_a_model_picks_its_columns_by_name(store: Path) -> None:
    model = load_model(store, "fraud@champion", DEFINITIONS)
    matrix = feature_matrix(np.random.default_rng(6), 100)
    reversed_model = load_model(store, "fraud@champion", DEFINITIONS[::-1])
    np.testing.assert_array_equal(model.score(matrix), reversed_model.score(matrix[:, ::-1]))
    assert [SPEC.names[column] for column in model.columns] == NAMES


def test_no_rows_no_scores(store: Path) -> None:
    model = load_model(store, "fraud@champion", DEFINITIONS)
    assert model.score(np.empty((0, len(DEFINITIONS)))).shape == (0,)


def test_more_features_than_needed_are_fine_fewer_are_named(store: Path) -> None:
    extra = FeatureDef("card.count.7d", "0" * 16)
    assert load_model(store, "fraud@champion", [extra, *DEFINITIONS]).columns.min() > 0
    without = [definition for definition in DEFINITIONS if definition.name != "card.since_last"]
    with pytest.raises(ModelError, match=r"fraud/1.*does not have: card\.since_last$"):
        load_model(store, "fraud@champion", without)


def test_another_definition_is_refused(store: Path) -> None:
    changed = [FeatureDef(d.name, "f" * 16) if d.name == "card.count.1m" else d for d in DEFINITIONS]
    with pytest.raises(ModelError, match=r"other definitions of: card\.count\.1m$"):
        load_model(store, "fraud@champion", changed)


def shift_one_golden_row(store: Path, shift: float) -> None:
    def change(manifest: Manifest) -> Manifest:
        expected = [value + shift * (i == 3) for i, value in enumerate(manifest.golden.expected)]
        golden = msgspec.structs.replace(manifest.golden, expected=expected)
        return msgspec.structs.replace(manifest, golden=golden)

    rewrite(store, change)


def test_golden_rows_must_match(store: Path) -> None:
    shift_one_golden_row(store, 1e-5)
    with pytest.raises(ModelError, match="golden rows are off by 1e-05"):
        load_model(store, "fraud@champion", DEFINITIONS)


def test_golden_rows_may_differ_by_rounding(store: Path) -> None:
    shift_one_golden_row(store, 5e-7)
    load_model(store, "fraud@champion", DEFINITIONS)


class WithoutAnswer:
    """A session that has no number for anything."""

    def get_inputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name="features")]

    def run(self, _outputs: list[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        return [np.full(len(inputs["features"]), np.nan, np.float32)]


def test_what_is_no_probability_decides_nothing(store: Path) -> None:
    """No golden row and no probe showed it."""
    model = replace(load_model(store, "fraud@champion", DEFINITIONS), session=WithoutAnswer())
    matrix = FeatureMatrix(np.ones((3, len(DEFINITIONS))), *np.zeros((2, 3, 2), np.uint8), np.zeros(3, np.bool_))
    with pytest.raises(FatalError, match="model fraud/1: it gives nan for row 0, which is no probability"):
        score(model, matrix.values, goes_on=False)
