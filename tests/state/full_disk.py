"""Everything that writes, on a disk that is full at one place or the next; and what is left of the state.

    python -m tests.state.full_disk FOLDER

does so in a folder that is a small file system of its own, and prints the outcomes as JSON. Where no file system can be
mounted, a limit on the size of files stands in for it: then every file that grows past it cannot be written.
"""

import os
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import orjson
import pytest

import engine.state.checkpoints
import engine.state.restore
import engine.state.store
from engine.config import Config
from engine.errors import FatalError
from engine.state.checkpoints import Checkpoints
from engine.state.restore import restore
from engine.state.verify import Shape, verify_state
from tests.state.small import Rows, Small, configured, rows_in

Leaving = Callable[[int], AbstractContextManager[None]]
Task = Literal["flush", "ingest", "checkpoint", "restore", "open"]
TASKS: tuple[Task, ...] = ("flush", "ingest", "checkpoint", "restore", "open")
# What RocksDB writes to take a file in is a line in its MANIFEST, which is short.
INGEST_SHARE = 20


@dataclass(frozen=True)
class Outcome:
    """What became of a task with so many bytes left. `said`: the error, if there was one; `stands`: the state after."""

    task: Task
    left: int
    said: str
    stands: Literal["before", "after", "LOST"]
    sound: bool
    goes_on: bool


def ballast_in(folder: Path) -> Leaving:
    """Fills up the file system of a folder."""

    @contextmanager
    def leaving(left: int) -> Iterator[None]:
        ballast = folder / "ballast"
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(folder).free - left)
        try:
            yield
        finally:
            ballast.unlink()

    return leaving


@contextmanager
def file_limit(left: int) -> Iterator[None]:
    """No file grows past so many bytes; Python ignores the signal that says so."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (left, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def no_reserve() -> Iterator[None]:
    """Nothing asks beforehand whether there is room, so that every write meets the end of the disk by itself."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (engine.state.store, engine.state.checkpoints, engine.state.restore):
            patch.setattr(module, "DISK_FREE_BYTES_MIN", 0)
        yield


class Bench:
    """A state of three flushes in `base`, to be copied to where there is no room; one more and RocksDB compacts."""

    def __init__(self, base: Path, folder: Path, leaving: Leaving) -> None:
        self.folder, self._base, self._leaving = folder, base, leaving
        base.mkdir(exist_ok=True)
        self.config = configured(base)
        with Small(self.config) as small:
            for _ in range(3):
                self.before = small.flush(100)
            checkpoints = Checkpoints(base / "checkpoints", 3)
            checkpoints.create(small.store)
            checkpoints.close()
        self.shape = Shape(self.config.feature_spec(), self.config.state.ring_events_max, self.config.ttl_ms)

    def outcome(self, task: Task, left: int) -> Outcome:
        """Does a task with so little room, and looks at what is there once there is room again."""
        for name in ("state", "checkpoints"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
            shutil.copytree(self._base / name, self.folder / name)
        config = configured(self.folder)
        said = self._tried(task, left, config)
        with Small(config) as again:
            stands = self._stands(dict(again.store.scan(b"")))
            goes_on = len(again.flush(100)) > len(self.before)
            checkpoints = Checkpoints(self.folder / "checkpoints", 3)
            goes_on &= checkpoints.create(again.store) is not None
            goes_on &= all(entry.manifest and not entry.problem for entry in checkpoints.entries())
            checkpoints.close()
        sound = verify_state(self.folder / "state", self.shape).sound
        return Outcome(task, left, said, stands, sound, goes_on)

    def _stands(self, rows: Rows) -> Literal["before", "after", "LOST"]:
        if rows == self.before:
            return "before"
        return "after" if rows == self._after else "LOST"

    @property
    def _after(self) -> Rows:
        """The state after a fourth flush, for which there was room."""
        if not hasattr(self, "_after_rows"):
            shutil.copytree(self._base / "state", self._base / "after" / "state")
            with Small(configured(self._base / "after")) as small:
                small.flush(100)
            self._after_rows = rows_in(self._base / "after" / "state")
        return self._after_rows

    def _tried(self, task: Task, left: int, config: Config) -> str:
        try:
            if task in ("restore", "open"):
                with self._leaving(left):
                    self._without_state(task, config)
                return ""
            with Small(config) as small:
                if task == "checkpoint":
                    small.flush(100)
                else:
                    small.take(100)
                if task == "ingest":
                    self._ingested(small, left // INGEST_SHARE)
                    return ""
                with self._leaving(left):
                    self._with_state(task, small)
        except FatalError as error:
            return str(error)
        return ""

    def _ingested(self, small: Small, left: int) -> None:
        """A flush whose file found room, and RocksDB, when it takes it in, does not."""
        with pytest.MonkeyPatch.context() as patch, ExitStack() as full:
            patch.setattr(
                engine.state.store,
                "reached",
                lambda point: full.enter_context(self._leaving(left)) if point == "ingest" else None,
            )
            small.flush(0)

    def _without_state(self, task: Task, config: Config) -> None:
        if task == "restore":
            restore(self.folder / "checkpoints" / "checkpoint-3", self.folder / "state")
        else:
            Small(config).resources_open.close()

    def _with_state(self, task: Task, small: Small) -> None:
        if task == "flush":
            small.flush(0)
            return
        checkpoints = Checkpoints(self.folder / "checkpoints", 3)
        try:
            checkpoints.create(small.store)
        finally:
            checkpoints.close()


def outcomes(base: Path, folder: Path, leaving: Leaving, lefts: range) -> list[Outcome]:
    """Every task with every amount of room."""
    with no_reserve():
        bench = Bench(base, folder, leaving)
        return [bench.outcome(task, left) for task in TASKS for left in lefts]


if __name__ == "__main__":
    small_disk = Path(sys.argv[1])
    found = outcomes(Path(sys.argv[2]), small_disk, ballast_in(small_disk), range(0, 160 * 1024, 8 * 1024))
    sys.stdout.buffer.write(orjson.dumps([asdict(outcome) for outcome in found]))
