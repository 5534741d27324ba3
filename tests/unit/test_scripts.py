"""Every script finds what it imports: most of them run by hand only, long after what they use was renamed."""

import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted(
    path
    for path in (ROOT / "scripts").iterdir()
    if path.is_file() and path.read_text("utf-8").startswith("#!/usr/bin/env python3")
)


def test_there_are_scripts() -> None:
    assert len(SCRIPTS) > 15


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_it_can_be_loaded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(path.parent), *sys.path])
    runpy.run_path(str(path), run_name="loaded")
