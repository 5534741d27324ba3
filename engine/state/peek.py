"""A look at a state directory from outside, which opens nothing for writing and waits for nobody."""

import fcntl
from pathlib import Path

from rocksdict import AccessType, Options, Rdict

from engine.state.damage import told
from engine.state.header import Header, decode_header
from engine.state.keys import HEADER
from engine.state.store import DATABASE, Store

# A running worker may remove a file between the moment at which it is named and that at which it is opened.
OPEN_ATTEMPTS = 5


def is_held(folder: Path) -> bool:
    """Whether another process has the state in this folder open.

    Not for a process that has it open itself: closing any handle of the lock file would give up its own lock.
    """
    lock = folder / DATABASE / "LOCK"
    if not lock.is_file():
        return False
    with lock.open() as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def has_state(folder: Path) -> bool:
    """Whether there is a database, if only an empty one."""
    return (folder / DATABASE / "CURRENT").is_file()


class FrozenStore(Store):
    """The database as it was when it was opened, whatever a running worker does to it since; never written to."""

    def __init__(self, folder: Path) -> None:
        """Raises FatalError where the database cannot be read."""
        self.folder = folder
        self._options = Options(raw_mode=True)
        for attempt in range(OPEN_ATTEMPTS):
            try:
                self._database = Rdict(str(folder / DATABASE), self._options, access_type=AccessType.read_only())
                return
            except Exception as error:  # rocksdict raises nothing narrower
                if attempt == OPEN_ATTEMPTS - 1:
                    raise told(error, folder, "read") from error


def read_header(folder: Path) -> Header | None:
    """The header of the state in this folder; None where there is no state yet.

    Raises FatalError where the database cannot be read, ConfigError where the header is of another format.
    """
    if not has_state(folder):
        return None
    with FrozenStore(folder) as store:
        stored = store.get(HEADER)
    return None if stored is None else decode_header(stored)
