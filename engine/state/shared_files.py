"""The files of a checkpoint: shared with the database, or with an older checkpoint, as far as the file systems can.

A sorted file never changes once it is there, so it may have many names, and is hashed once for all checkpoints.
"""

import errno
import os
from pathlib import Path

from engine.state.durable import checksum, copy_synced, sync_file, sync_folder
from engine.state.manifest import CheckpointFile, FileIdentity, Manifest

_CANNOT_LINK = (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def put_files(database: Path, checkpoint: Path, older: Manifest | None, older_folder: Path) -> list[CheckpointFile]:
    """Puts the files of a database, which nobody writes to any longer, below `checkpoint`; on disk when this returns.

    `older`: of a checkpoint in `older_folder`, which may have some of them already.
    """
    folder = checkpoint / database.name
    folder.mkdir()
    known = {file.identity: file for file in older.files} if older is not None else {}
    files = []
    for path in sorted(database.iterdir()):
        identity, target = FileIdentity.of(path), folder / path.name
        file = known.get(identity)
        if file is not None and _linked(older_folder / file.name, target):
            xxh3 = file.xxh3
        elif _linked(path, target):
            sync_file(target)
            xxh3 = checksum(target)
        else:
            xxh3 = copy_synced(path, target)
        files.append(CheckpointFile(f"{folder.name}/{path.name}", xxh3, identity))
    sync_folder(folder)
    return files


def _linked(path: Path, target: Path) -> bool:
    """Makes a hard link; false where the file systems do not."""
    try:
        os.link(path, target)
    except OSError as error:
        if error.errno in _CANNOT_LINK:
            return False
        raise
    return True
