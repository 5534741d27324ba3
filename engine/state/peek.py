"""A look at a state directory from outside, which opens nothing for writing and waits for nobody."""

import fcntl
from pathlib import Path

from rocksdict import AccessType, Rdict

from engine.errors import FatalError
from engine.state.header import Header, decode_header
from engine.state.keys import HEADER


def is_held(folder: Path) -> bool:
    """Whether another process has the state in this folder open.

    Not for a process that has it open itself: closing any handle of the lock file would give up its own lock.
    """
    lock = folder / "rocksdb" / "LOCK"
    if not lock.is_file():
        return False
    with lock.open() as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def read_header(folder: Path) -> Header | None:
    """The header of the state in this folder; None where there is no state yet.

    Raises FatalError where the database cannot be read, ConfigError where the header is of another format.
    """
    if not (folder / "rocksdb" / "CURRENT").is_file():
        return None
    try:
        database = Rdict(str(folder / "rocksdb"), access_type=AccessType.read_only())
    except Exception as error:  # rocksdict raises nothing narrower
        raise FatalError(f"state directory {folder} cannot be read: {error}") from error
    stored = database.get(HEADER)
    database.close()
    return None if stored is None else decode_header(stored)
