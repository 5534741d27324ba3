"""What numba keeps on disk is used again as long as no source has changed, and not any longer."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import features.jit

INLINED = """from features.jit import inlined

STEP = {step}


@inlined
def step(value):
    return value + STEP
"""
CALLER = """from features.inner import step
from features.jit import kernel


@kernel
def twice(value):
    return step(step(value))


print(twice(1), sum(twice.stats.cache_hits.values()))
"""


def said(folder: Path) -> list[int]:
    """The value, and how many compiled functions came from the disk."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA")}
    found = subprocess.run(
        [sys.executable, "-m", "features.caller"],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    return [int(word) for word in found.stdout.split()]


def test_a_change_in_another_file_is_compiled_anew(tmp_path: Path) -> None:
    package = tmp_path / "features"
    package.mkdir()
    (package / "__init__.py").touch()
    shutil.copy(features.jit.__file__, package / "jit.py")
    (package / "caller.py").write_text(CALLER)
    for step, value in ((1, 3), (5, 11)):
        (package / "inner.py").write_text(INLINED.format(step=step))
        assert said(tmp_path) == [value, 0]
        assert said(tmp_path) == [value, 1]
