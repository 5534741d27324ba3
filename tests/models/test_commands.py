"""`tidegate models verify` and `tidegate models list`."""

import shutil
from pathlib import Path

import orjson
import pytest

from models.assignment import promoted
from models.store import Located, set_alias
from tests.commands import invoke, refused
from tests.models.hostile import CASES, plant
from tests.models.synthetic import CONFIG, NAMES

HOSTILE = ("external data", "a truncated file", "a name that clears the screen", "another definition")


@pytest.fixture
def folder(trained: Located, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration, and a store with a good model and hostile versions behind it."""
    store = tmp_path / "store"
    shutil.copytree(trained.directory.parent.parent, store)
    for version, name in enumerate(HOSTILE, 2):
        plant(trained.directory, store, version, next(case for case in CASES if case.name == name))
    (tmp_path / "tidegate.toml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TIDEGATE_CONFIG", raising=False)
    return tmp_path


def test_verify_says_of_each_what_is_wrong(folder: Path) -> None:
    ended = invoke("models", "verify")
    assert (ended.exit_code, ended.err) == (1, "")
    good, *bad = ended.out.splitlines()
    assert good.startswith("fraud/1: sound, sha256 ")
    assert bad == [
        "fraud/2: refused: the model keeps tensor data outside its file, which is not allowed",
        bad[1],
        r"fraud/4: refused: the model needs operators of 'evil\n\x1b[2J'; allowed are those of ai.onnx and ai.onnx.ml",
        "fraud/5: refused: it was trained on other definitions of: event.amount",
    ]
    assert bad[1].startswith("fraud/3: refused: the model file is not valid ONNX")


@pytest.mark.parametrize("named", ["fraud/1", "fraud@champion"])
def test_a_sound_one_alone(folder: Path, named: str) -> None:
    ended = invoke("models", "verify", named, "--json")
    assert ended.exit_code == 0
    (found,) = orjson.loads(ended.out)
    assert (found["name"], found["version"], found["aliases"]) == ("fraud", 1, ["champion"])
    assert (found["features"], found["refusal"]) == (NAMES, None)
    assert len(found["sha256"]) == 64
    assert found["since_ms"] == (folder / "store" / "fraud" / "1").stat().st_mtime_ns // 1_000_000


def test_all_versions_of_a_name(folder: Path) -> None:
    shutil.copytree(folder / "store" / "fraud" / "1", folder / "store" / "theft" / "1")
    ended = invoke("models", "verify", "theft")
    assert ended.exit_code == 1
    assert ended.out == "theft/1: refused: its manifest is that of fraud/1\n"


@pytest.mark.parametrize(
    ("named", "complaint"),
    [("none/1", "has no model 'none'"), ("fraud/9", "has no version 9"), ("../x", "names no model")],
)
def test_what_the_store_does_not_have(folder: Path, named: str, complaint: str) -> None:
    ended = invoke("models", "verify", named)
    assert ended.exit_code == 2
    assert complaint in refused(ended)


def test_list_has_every_version(folder: Path) -> None:
    set_alias(folder / "store", "fraud", "challenger", promoted(None, 5, "test", ""))
    ended = invoke("models", "list", "--json")
    assert (ended.exit_code, ended.err) == (0, "")
    found = orjson.loads(ended.out)
    assert [(entry["version"], entry["aliases"], entry["refusal"] is None) for entry in found] == [
        (1, ["champion"], True),
        (2, [], False),
        (3, [], False),
        (4, [], False),
        (5, ["challenger"], False),
    ]
    # Sound, though these features are not the configured ones; of the others nothing they say is repeated.
    assert found[4]["features"] == NAMES
    assert [entry["sha256"] is None for entry in found] == [False, True, True, True, False]


def test_list_for_a_person(folder: Path) -> None:
    lines = invoke("models", "list").out.splitlines()
    (good,) = (line for line in lines if line.startswith("fraud/1 "))
    assert good.split()[:2] == ["fraud/1", "champion"]
    assert good.split()[-1] == "yes"
    (bad,) = (line for line in lines if line.startswith("fraud/2 "))
    assert "no: the model keeps tensor data" in bad


def test_damaged_aliases_are_one_line(folder: Path) -> None:
    (folder / "store" / "fraud" / "aliases.json").write_bytes(b'{"champion": "\xff"}')
    ended = invoke("models", "list")
    assert ended.exit_code == 2
    assert "aliases.json is damaged" in refused(ended)


def test_a_worker_refuses_in_one_line(folder: Path) -> None:
    config = folder / "tidegate.toml"
    config.write_text(CONFIG.replace("fraud@champion", "fraud/2"))
    (folder / "events.jsonl").write_text("")
    ended = invoke("replay", "events.jsonl", "--out", "decisions.jsonl")
    assert ended.exit_code == 2
    assert refused(ended) == (
        "tidegate: models.champion 'fraud/2': model fraud/2: "
        "the model keeps tensor data outside its file, which is not allowed"
    )


def test_the_store_that_ships(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TIDEGATE_CONFIG", raising=False)
    assert invoke("models", "verify", "demo").exit_code == 0
