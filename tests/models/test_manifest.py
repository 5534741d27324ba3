"""A manifest survives the file; what contradicts itself does not."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from models.errors import ModelError
from models.manifest import Manifest, read_manifest, write_manifest
from models.store import MANIFEST_FILE, Located


@pytest.fixture
def manifest(trained: Located) -> Manifest:
    return read_manifest(trained.directory / MANIFEST_FILE)


def test_round_trip(manifest: Manifest, tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    write_manifest(path, manifest)
    assert read_manifest(path) == manifest
    assert [entry.name for entry in tmp_path.iterdir()] == ["manifest.json"]


def test_golden_nulls_are_json_nulls(manifest: Manifest) -> None:
    assert manifest.golden.inputs[-1] == [None] * len(manifest.features)
    assert np.isfinite(manifest.golden.expected).all()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"schema": "tidegate.model.v2"}, "schema"),
        ({"surprise": 1}, "surprise"),
        ({"features": []}, "features"),
        ({"reference": {}}, "reference"),
        ({"golden": {"inputs": [[1.0]], "expected": [0.5]}}, "golden"),
        ({"golden": {"inputs": [], "expected": []}}, "golden"),
        ({"sha256": 7}, "sha256"),
        ({"sha256": "0123"}, "sha256"),
        ({"version": 0}, "version"),
    ],
)
def test_what_contradicts_itself_is_refused(
    manifest: Manifest, tmp_path: Path, change: dict[str, object], complaint: str
) -> None:
    path = tmp_path / "manifest.json"
    path.write_bytes(msgspec.json.encode({**msgspec.to_builtins(manifest), **change}))
    with pytest.raises(ModelError, match=complaint):
        read_manifest(path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": "x"}'])
def test_what_is_no_manifest_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(text)
    with pytest.raises(ModelError, match="not a model manifest"):
        read_manifest(path)


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"manifest\.json does not exist"):
        read_manifest(tmp_path / "manifest.json")
