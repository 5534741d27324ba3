"""How the tests run a command and read what it left."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from click.testing import CliRunner

from engine.cli import main

STATE = "[state]\ncache_bytes_max = 33554432\ndirty_bytes_max = 8388608\n"
# How the line of a progress bar ends.
_BAR = re.compile(r"\d% [\d,]+ \w+/s [-:\d]+\s*")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    exit_code: int
    out: str
    err: str


Run = Callable[..., Ended]


def invoke(*arguments: str | Path) -> Ended:
    """Runs a command in this process; what it raises beside an exit is raised."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ended(result.exit_code, result.stdout, result.stderr)


def refused(ended: Ended) -> str:
    """The one line that was said instead of doing anything, but for progress bars."""
    assert ended.out == ""
    *before, line = ended.err.splitlines()
    assert [said for said in before if said and not _BAR.search(said)] == []
    assert line.startswith("tidegate: ")
    return line


def lines(path: str | Path) -> list[dict[str, Any]]:
    """The objects of a file that has one in each line."""
    return [orjson.loads(line) for line in Path(path).read_bytes().splitlines()]
