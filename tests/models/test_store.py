"""Finding a version by number or alias, and adding one."""

from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

from models.assignment import promoted
from models.errors import ModelError
from models.manifest import read_manifest
from models.store import (
    MANIFEST_FILE,
    MODEL_FILE,
    aliases,
    names,
    next_version,
    publish,
    resolve,
    set_alias,
    shipped_store,
    versions,
)


def add_version(store: Path) -> int:
    located = resolve(store, "fraud/1")
    model = (located.directory / MODEL_FILE).read_bytes()
    manifest = read_manifest(located.directory / MANIFEST_FILE)
    return publish(store, msgspec.structs.replace(manifest, version=next_version(store, "fraud")), model).version


def test_resolve_by_version_and_by_alias(store: Path) -> None:
    assert resolve(store, "fraud/1") == resolve(store, "fraud@champion")
    assert resolve(store, "fraud/1").directory == store / "fraud" / "1"


@pytest.mark.parametrize(
    ("reference", "complaint"),
    [
        ("fraud", "names no model"),
        ("fraud/0", "names no model"),
        ("fraud/../1", "names no model"),
        ("../fraud/1", "names no model"),
        ("fraud/1@champion", "names no model"),
        ("theft@champion", "it has: fraud"),
        ("fraud@challenger", "it has: champion"),
        ("fraud/7", r"it has: \[1\]"),
    ],
)
def test_resolve_says_what_there_is_instead(store: Path, reference: str, complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint):
        resolve(store, reference)


def test_a_store_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert names(tmp_path / "none") == []
    with pytest.raises(ModelError, match="it has: none"):
        resolve(tmp_path / "none", "fraud@champion")


def test_publish_adds_a_version_and_moves_no_alias(store: Path) -> None:
    assert add_version(store) == 2
    assert versions(store, "fraud") == [1, 2]
    assert {alias: at.version for alias, at in aliases(store, "fraud").items()} == {"champion": 1}
    assert sorted(entry.name for entry in (store / "fraud").iterdir()) == ["1", "2", "aliases.json"]


def test_aliases_move_and_come_back(store: Path) -> None:
    add_version(store)
    set_alias(store, "fraud", "champion", promoted(None, 2, "test", ""))
    assert resolve(store, "fraud@champion").version == 2
    set_alias(store, "fraud", "champion", promoted(None, 1, "test", ""))
    assert resolve(store, "fraud@champion").version == 1
    with pytest.raises(ModelError, match="no version 3"):
        set_alias(store, "fraud", "champion", promoted(None, 3, "test", ""))


def test_publish_never_overwrites(store: Path) -> None:
    located = resolve(store, "fraud/1")
    manifest = read_manifest(located.directory / MANIFEST_FILE)
    with pytest.raises(ModelError, match="never overwritten"):
        publish(store, manifest, (located.directory / MODEL_FILE).read_bytes())


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"name": "../x"}, "cannot name a model"),
        ({"sha256": sha256(b"other").hexdigest()}, "not that of these bytes"),
    ],
)
def test_publish_refuses_what_does_not_fit(store: Path, change: dict[str, str], complaint: str) -> None:
    located = resolve(store, "fraud/1")
    manifest = msgspec.structs.replace(read_manifest(located.directory / MANIFEST_FILE), version=2, **change)
    with pytest.raises(ModelError, match=complaint):
        publish(store, manifest, (located.directory / MODEL_FILE).read_bytes())
    assert versions(store, "fraud") == [1]


def test_damaged_aliases_are_named(store: Path) -> None:
    (store / "fraud" / "aliases.json").write_text("{")
    with pytest.raises(ModelError, match=r"aliases\.json is damaged"):
        resolve(store, "fraud@champion")


def test_the_shipped_store_is_inside_the_package() -> None:
    assert shipped_store().parent.joinpath("manifest.py").is_file()
