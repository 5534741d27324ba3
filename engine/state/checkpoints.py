"""Checkpoints of the state: whole copies in a folder, each under the header's sequence number, the newest few kept.

What a worker does with `checkpoints = Checkpoints(folder, keep, interval_s)`:

    after a flush    if checkpoints.due(now_s): checkpoints.begin(store, now_s)     some ms; the rest is on a thread
    once a second    checkpoints.settle()       raises what the thread met; waits for nothing
    in metrics       checkpoints.age_s()
    at the end       checkpoints.close()
    when it starts   checkpoints.restore_newest(committed, state_dir, usable)       see engine.state.restore

    folder/.lock                                   of the worker that writes here
           checkpoint-17/manifest.json             see engine.state.manifest
           checkpoint-17/rocksdb/000012.sst ...    links where state.dir is on the same file system, copies elsewhere
           checkpoint-18.partial/                  one in the making, or what a crash left of it
           checkpoint-12.deleted/                  likewise

A name without an ending is given by one rename, after everything under it is on disk; so it is whole or not there.
"""

import errno
import fcntl
import logging
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from engine.crashpoints import reached
from engine.errors import FatalError
from engine.state.damage import DamageError, no_room
from engine.state.durable import sync_folder
from engine.state.header import Header, decode_header
from engine.state.keys import HEADER
from engine.state.manifest import Manifest, check_sizes, is_of, manifest_of, read_manifest, write_manifest
from engine.state.restore import restore
from engine.state.shared_files import put_files
from engine.state.store import DATABASE, DISK_FREE_BYTES_MIN, Store

_log = logging.getLogger("tidegate.checkpoints")

PREFIX = "checkpoint-"
PARTIAL, DELETED = ".partial", ".deleted"
# In state.dir: the database's files as they were, until the checkpoint has them.
LINKED = "checkpoint.partial"

Usable = Callable[[Manifest], bool]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One that is there. Without a manifest, or with a `problem`, it is no good."""

    folder: Path
    manifest: Manifest | None
    problem: str = ""

    def as_json(self) -> dict[str, object]:
        """Everything but the files, for programs."""
        known = self.manifest
        return {
            "folder": str(self.folder),
            "sequence": known and known.sequence,
            "vector": known and known.vector,
            "created_at_ms": known and known.created_at_ms,
            "bytes": known and known.bytes,
            "whole": not self.problem,
            "problem": self.problem,
        }


def wall_clock_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def any_state(_manifest: Manifest) -> bool:
    """Whoever asks takes them all."""
    return True


class Checkpoints:
    """A folder of them. Many may look into it; one, who holds its lock, adds and deletes."""

    def __init__(
        self, folder: Path, keep: int, interval_s: float = 300.0, clock_ms: Callable[[], int] = wall_clock_ms
    ) -> None:
        """Touches nothing yet."""
        self.folder = folder
        self._keep = keep
        self._interval_s = interval_s
        self._clock_ms = clock_ms
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._lock: IO[str] | None = None
        self._under_way: Future[None] | None = None
        self._due_at_s: float | None = None
        newest = max((c.manifest.created_at_ms for c in self.entries() if c.manifest), default=None)
        self._current_at_ms = newest

    def entries(self) -> list[Checkpoint]:
        """All of them, oldest first, those without a manifest before the others; checksums are not looked at."""
        found = [_looked_at(path) for path in self.folder.glob(f"{PREFIX}*") if path.name[len(PREFIX) :].isdigit()]
        return sorted(found, key=lambda one: one.manifest.created_at_ms if one.manifest else -1)

    def newest_not_after(self, committed: dict[int, int], usable: Usable = any_state) -> Checkpoint | None:
        """The usable one that leaves least to replay; in none of its partitions is it ahead of these offsets."""
        return next(iter(self._not_after(committed, usable)), None)

    def _not_after(self, committed: dict[int, int], usable: Usable) -> list[Checkpoint]:
        found = [
            (sum(one.manifest.vector.values()), one.manifest.created_at_ms, one)
            for one in self.entries()
            if one.manifest is not None
            and not one.problem
            and usable(one.manifest)
            and all(offset <= committed.get(partition, -1) for partition, offset in one.manifest.vector.items())
        ]
        return [one for *_, one in sorted(found, key=lambda row: row[:2], reverse=True)]

    def restore_newest(
        self, committed: dict[int, int], state_dir: Path, usable: Usable = any_state
    ) -> Checkpoint | None:
        """Restores the newest that is not after these offsets and whole; None where there is none, and nothing is done.

        Nobody may have the state open. Raises as `restore`, but for damage: then the next older one is tried.
        """
        for one in self._not_after(committed, usable):
            try:
                restore(one.folder, state_dir)
            except DamageError as error:
                _log.error("a checkpoint is damaged", extra={"why": str(error)})
                continue
            _log.warning("restored a checkpoint", extra={"folder": str(one.folder)})
            return one
        return None

    def age_s(self) -> float | None:
        """Seconds since the newest one was made, or was seen to be that of the state on disk; None without any."""
        if self._current_at_ms is None:
            return None
        return max(0.0, (self._clock_ms() - self._current_at_ms) / 1000)

    def due(self, now_s: float) -> bool:
        """Whether it is time for the next one, and none is under way. `now_s`: of a clock that never goes back."""
        if self._due_at_s is None:
            age_s = self.age_s()
            self._due_at_s = now_s if age_s is None else now_s + self._interval_s - min(self._interval_s, age_s)
        return self._under_way is None and now_s >= self._due_at_s

    def create(self, store: Store) -> Checkpoint | None:
        """Makes one and waits for it; None where the database has no state yet."""
        self.begin(store, 0.0)
        self.settle(wait=True)
        return next(reversed(self.entries()), None)

    def begin(self, store: Store, now_s: float) -> None:
        """Begins one of the database as it is now, unless there is one already.

        FatalError where there is no room, or another worker has the folder. `settle` says how it ends.
        """
        self.settle(wait=True)
        self._due_at_s = now_s + self._interval_s
        stored = store.get(HEADER)
        if stored is None:
            return
        header, linked = decode_header(stored), store.folder / LINKED
        try:
            self._take_lock()
            self._sweep(linked)
            newest = next(reversed(self.entries()), None)
            if newest is not None and not newest.problem and newest.manifest and is_of(newest.manifest, header):
                self._current_at_ms = self._clock_ms()
                return
            reached("checkpoint")
            if shutil.disk_usage(self.folder).free < DISK_FREE_BYTES_MIN:
                raise no_room(self.folder, f"less than {DISK_FREE_BYTES_MIN >> 20} MiB free for a checkpoint")
            linked.mkdir()
        except OSError as error:
            raise self._told(error) from error
        store.link_files(linked / DATABASE)
        self._under_way = self._thread.submit(self._finish, header, linked, newest)

    def settle(self, *, wait: bool = False) -> None:
        """Notes that the one under way is whole, if it is; FatalError where it could not be made."""
        if self._under_way is None or not (wait or self._under_way.done()):
            return
        under_way, self._under_way = self._under_way, None
        try:
            under_way.result()
        except OSError as error:
            raise self._told(error) from error
        self._current_at_ms = self._clock_ms()

    def close(self) -> None:
        """Waits for the one under way, and lets others write here.

        One that fails now is only logged: the worker ends in any case, and its own reason must stand.
        """
        try:
            self.settle(wait=True)
        except FatalError as error:
            _log.warning("the last checkpoint was not made", extra={"why": str(error)})
        finally:
            self._thread.shutdown()
            if self._lock is not None:
                self._lock.close()
                self._lock = None

    def _take_lock(self) -> None:
        if self._lock is not None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = (self.folder / ".lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.close()
            raise FatalError(
                f"another worker writes checkpoints to {self.folder}; each needs a state.checkpoints.dir of its own"
            ) from error
        self._lock = lock

    def _sweep(self, linked: Path) -> None:
        """Removes what a crash left."""
        for left in (linked, *self.folder.glob(f"{PREFIX}*{PARTIAL}"), *self.folder.glob(f"{PREFIX}*{DELETED}")):
            if left.exists():
                shutil.rmtree(left)

    def _finish(self, header: Header, linked: Path, newest: Checkpoint | None) -> None:
        """Makes of the linked files a checkpoint, and deletes those that are too many. On the thread."""
        target = self.folder / f"{PREFIX}{header.sequence}"
        partial = target.with_name(target.name + PARTIAL)
        try:
            self._write(partial, header, linked, newest)
        except OSError:
            # Where there is no room, what could not be finished must not take any.
            shutil.rmtree(partial, ignore_errors=True)
            raise
        if target.exists():
            # Of a state that was restored to an older one since.
            self._delete(target)
        partial.rename(target)
        sync_folder(self.folder)
        reached("checkpointed")
        shutil.rmtree(linked)
        for old in [one for one in self.entries() if one.manifest is not None][: -self._keep]:
            self._delete(old.folder)

    def _write(self, partial: Path, header: Header, linked: Path, newest: Checkpoint | None) -> None:
        partial.mkdir()
        older = newest.manifest if newest is not None and not newest.problem else None
        files = put_files(linked / DATABASE, partial, older, newest.folder if newest is not None else partial)
        # The clock may have been set back, and the newest must be known by it.
        created_at_ms = self._clock_ms()
        if newest is not None and newest.manifest is not None:
            created_at_ms = max(created_at_ms, newest.manifest.created_at_ms + 1)
        write_manifest(partial, manifest_of(header, created_at_ms, files))
        sync_folder(partial)

    def _delete(self, folder: Path) -> None:
        reached("delete")
        deleted = folder.with_name(folder.name + DELETED)
        folder.rename(deleted)
        sync_folder(self.folder)
        shutil.rmtree(deleted)

    def _told(self, error: OSError) -> FatalError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return no_room(self.folder, f"checkpoint: {error.strerror}")
        return FatalError(f"no checkpoint can be written to {self.folder}: {error}")


def _looked_at(folder: Path) -> Checkpoint:
    try:
        manifest = read_manifest(folder)
    except DamageError as error:
        return Checkpoint(folder, None, str(error))
    try:
        check_sizes(folder, manifest)
    except DamageError as error:
        return Checkpoint(folder, manifest, str(error))
    return Checkpoint(folder, manifest)
