"""The wheel in an environment of its own, far from this folder: what a user gets from `pip install`."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("engine", "features", "loadtest", "models")
# What a build reads. A copy of it is built, because setuptools leaves folders where it builds and takes in old ones.
SOURCES = (*PACKAGES, "pyproject.toml", "README.md", "LICENSE")


def run(*command: str | Path, folder: Path) -> str:
    """What the command prints; its error output is in the failure where it fails."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "TIDEGATE", "VIRTUAL"))
    }
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True, timeout=1_200, check=False
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, source, folder=out)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the commands of a fresh environment with the wheel and what it needs, by hash."""
    home = tmp_path_factory.mktemp("environment") / "venv"
    run(sys.executable, "-m", "venv", home, folder=home.parent)
    pip = (home / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(*pip, "--require-hashes", "-r", ROOT / "requirements.lock", folder=home.parent)
    run(*pip, "--no-deps", wheel, folder=home.parent)
    yield home / "bin"
    shutil.rmtree(home)


def test_the_wheel_holds_the_packages_with_their_data_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    top = {name.partition("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == set(PACKAGES)
    files = {path.relative_to(ROOT).as_posix() for package in PACKAGES for path in (ROOT / package).rglob("*")}
    wanted = {name for name in files if name.endswith((".py", ".toml", ".onnx", ".json", "py.typed"))}
    assert {name for name in names if ".dist-info/" not in name} == wanted
    for name in (
        "engine/mappings/sparkov.toml",
        "engine/profiles/default.toml",
        "loadtest/profiles/reference.toml",
        "models/store/demo/aliases.json",
        "models/store/demo/1/model.onnx",
        "models/store/demo/1/manifest.json",
        "engine/py.typed",
    ):
        assert name in names


def test_commands_answer(installed: Path, tmp_path: Path) -> None:
    assert run(installed / "tidegate", "--version", folder=tmp_path).startswith("tidegate, version ")
    assert "generate" in run(installed / "python", "-m", "loadtest", "--help", folder=tmp_path)


def test_the_code_is_that_of_the_wheel(installed: Path, tmp_path: Path) -> None:
    found = run(installed / "python", "-c", "import engine; print(engine.__file__)", folder=tmp_path)
    assert found.startswith(str(installed.parent))


def test_files_in_decisions_out(installed: Path, tmp_path: Path) -> None:
    generate = ("-m", "loadtest", "generate", "--events", "2000", "--out", "events.jsonl")
    run(installed / "python", *generate, folder=tmp_path)
    run(installed / "tidegate", "replay", "events.jsonl", "--out", "decisions.jsonl", folder=tmp_path)
    assert len((tmp_path / "decisions.jsonl").read_text().splitlines()) == 2000


def test_the_demo(installed: Path, tmp_path: Path) -> None:
    demo = ("demo", "--seconds", "10", "--rate", "500", "--json", "d.json")
    run(installed / "tidegate", *demo, folder=tmp_path)
    figures = json.loads((tmp_path / "d.json").read_text())
    assert figures["events"] == figures["decisions"] + figures["dead_letters"] + figures["duplicates"]
    assert figures["decisions"] > 4_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.json"]
