"""Whatever a model names, verifying and loading it opens nothing but the store, and connects to nobody.

strace sees what Python's audit hooks do not: the files that ONNX Runtime opens by itself. What a process opens for
hostile models is held against what it opens for a good one: the libraries, which are the same, and the store.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from models.store import Located
from tests.models.hostile import CASES, plant
from tests.models.synthetic import CONFIG

ROOT = Path(__file__).parent.parent.parent
# Those that point elsewhere or bring something to be run, and some that come to ONNX Runtime.
TELLING = (
    "external data",
    "external data that is said to be inside",
    "a constant with external data",
    "the model is a symlink",
    "the manifest is a symlink",
    "the version is a symlink",
    "EPContext",
    "an operator of a library of its own",
    "settings for ONNX Runtime",
    "another format",
    "an endless loop",
    "a truncated file",
    "a tensor without its data",
    "NaN",
    "another definition",
)
LOAD = """
import sys
from pathlib import Path
from engine.config import load_config
from models.errors import ModelError
from models.runtime import load_model
from models.store import versions

store = Path("store")
definitions = load_config(Path("tidegate.toml"), {}).feature_spec().features
for version in versions(store, "fraud"):
    try:
        print(load_model(store, f"fraud/{version}", definitions).version)
    except ModelError as error:
        print(error)
"""
# What strace shows of a file that was opened, as the kernel knows it.
_OPENED = re.compile(r"^\d+ +open\w*\(.* = \d+<(?P<path>.+)>$", re.MULTILINE)
_OWN_PROCESS = re.compile(r"^/proc/\d+/")


@pytest.fixture(scope="module")
def strace() -> str:
    """The command; without it the test is skipped, and with CI=true it fails."""
    found = shutil.which("strace")
    if found is None:
        why = "no strace: `scripts/ci` installs it"
        if os.environ.get("CI") == "true":
            pytest.fail(why, pytrace=False)
        pytest.skip(why)
    return found


def traced_load(strace: str, folder: Path) -> tuple[list[str], set[str], str]:
    """Loads every version: what was said of each, which files were opened, and the whole trace."""
    log = folder / "trace.log"
    environment = {name: value for name, value in os.environ.items() if name != "CI"}  # it would calm ONNX Runtime
    done = subprocess.run(
        [
            strace,
            "-f",
            "-y",
            "-o",
            str(log),
            "-e",
            "trace=open,openat,openat2,connect",
            sys.executable,
            "-P",
            "-c",
            LOAD,
        ],
        cwd=folder,
        env={
            **environment,
            "HOME": str(folder / "home"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "ORT_LOAD_CONFIG_FROM_MODEL": "1",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    trace = log.read_text("utf-8", "replace")
    opened = {_OWN_PROCESS.sub("/proc/self/", match["path"]) for match in _OPENED.finditer(trace)}
    return done.stdout.splitlines(), opened, trace


def prepare(folder: Path, good: Path) -> Path:
    """A store with one good version, and things beside it that nobody may touch."""
    store = folder / "store"
    shutil.copytree(good.parent.parent, store)
    (folder / "home").mkdir()
    (folder / "secret.bin").write_bytes(bytes(4_096))
    (folder / "tidegate.toml").write_text(CONFIG)
    return store


def test_nothing_but_the_store_is_opened(strace: str, trained: Located, tmp_path: Path) -> None:
    usual, hostile = tmp_path / "usual", tmp_path / "hostile"
    usual.mkdir()
    hostile.mkdir()
    prepare(usual, trained.directory)
    store = prepare(hostile, trained.directory)
    cases = [next(case for case in CASES if case.name == name) for name in TELLING]
    for version, case in enumerate(cases, 2):
        plant(trained.directory, store, version, case)
    said, opened_for_good, _ = traced_load(strace, usual)
    assert said == ["1"]
    said, opened, trace = traced_load(strace, hostile)
    assert said[0] == "1"
    for version, (line, case) in enumerate(zip(said[1:], cases, strict=True), 2):
        assert line.startswith(f"model fraud/{version}: ")
        assert re.search(case.complaint, line)
    code = (sys.prefix, sys.base_prefix, str(ROOT))
    elsewhere = {path for path in opened - opened_for_good if not path.startswith((*code, f"{store}/"))}
    assert elsewhere == {str(store), str(hostile / "tidegate.toml")}
    assert str(store / "fraud" / "1" / "model.onnx") in opened
    assert "sa_family=AF_INET" not in trace
    assert list((hostile / "home").iterdir()) == []
