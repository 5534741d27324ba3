"""Puts a checkpoint in the place of the state, which is kept beside it.

    state.dir/restoring/rocksdb       1. copied, every file against its checksum, and opened to see whose state it is
              quarantine-17-1         2. the database that was there is renamed
              rocksdb                 3. the copy is renamed

Before 2 nothing is changed. A crash between 2 and 3 leaves a state.dir without state, for which a worker restores the
newest checkpoint once more.
"""

import errno
import shutil
from pathlib import Path

from engine.errors import FatalError, TidegateError
from engine.state.damage import DamageError, no_room
from engine.state.durable import copy_synced, sync_folder
from engine.state.manifest import Manifest, check_sizes, is_of, read_manifest
from engine.state.peek import has_state, is_held, read_header
from engine.state.store import DATABASE, DISK_FREE_BYTES_MIN

RESTORING = "restoring"
QUARANTINE = "quarantine"


def restore(checkpoint: Path, state_dir: Path) -> Path | None:
    """Makes of a checkpoint's folder the state in `state_dir`; returns where the state that was there is now, if any.

    DamageError where a file of the checkpoint is not what was written; FatalError where somebody has the state open, or
    the disk would not hold both. Then the state is what it was.
    """
    if is_held(state_dir):
        raise FatalError(f"the state in {state_dir} is held by a running worker; stop it first")
    manifest = read_manifest(checkpoint)
    check_sizes(checkpoint, manifest)
    restoring = state_dir / RESTORING
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        if restoring.exists():
            shutil.rmtree(restoring)  # what a crash left
        free = shutil.disk_usage(state_dir).free
        if free < manifest.bytes + DISK_FREE_BYTES_MIN:
            raise no_room(state_dir, f"the checkpoint takes {manifest.bytes >> 20} MiB, and {free >> 20} are free")
        try:
            _copy(checkpoint, restoring, manifest)
            quarantine = _exchange(restoring, state_dir)
        finally:
            shutil.rmtree(restoring, ignore_errors=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise no_room(state_dir, f"restoring {checkpoint.name}: {error.strerror}") from error
        raise FatalError(f"{checkpoint.name} cannot be restored to {state_dir}: {error}") from error
    return quarantine


def _copy(checkpoint: Path, restoring: Path, manifest: Manifest) -> None:
    """Copies, never links: what is written to the state from now on must not reach the checkpoint."""
    (restoring / DATABASE).mkdir(parents=True)
    for file in manifest.files:
        if copy_synced(checkpoint / file.name, restoring / file.name) != file.xxh3:
            raise DamageError(f"checkpoint {checkpoint}: {file.name} does not fit its checksum")
    sync_folder(restoring / DATABASE)
    header = read_header(restoring)
    if header is None or not is_of(manifest, header):
        raise DamageError(f"checkpoint {checkpoint}: the state in it is not the one that its manifest names")


def _exchange(restoring: Path, state_dir: Path) -> Path | None:
    quarantine = None
    if (state_dir / DATABASE).exists():
        quarantine = _free_name(state_dir)
        (state_dir / DATABASE).rename(quarantine)
    (restoring / DATABASE).rename(state_dir / DATABASE)
    sync_folder(state_dir)
    return quarantine


def _free_name(state_dir: Path) -> Path:
    """`quarantine-<sequence>-<n>`, with a number that is not taken; a state that cannot be read has no sequence."""
    sequence = "damaged"
    if not has_state(state_dir):
        sequence = "0"
    else:
        try:
            header = read_header(state_dir)
            sequence = str(header.sequence if header else 0)
        except TidegateError:
            pass
    number = 1
    while (path := state_dir / f"{QUARANTINE}-{sequence}-{number}").exists():
        number += 1
    return path
