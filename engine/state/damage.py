"""What RocksDB says when it fails, as an error that tells a person what to do.

rocksdict raises nothing narrower than Exception, with RocksDB's text in it, so the text decides.
"""

from pathlib import Path

from rocksdict import DbClosedError

from engine.errors import FatalError

WAY_OUT = (
    "go back to a checkpoint (`tidegate state restore`), or name an empty state.dir to rebuild the state from the topic"
)
_NO_ROOM = ("No space left on device", "Disk quota exceeded", "File too large")
# A file that the database names and that is gone is damage too.
_DAMAGED = ("Corruption", "No such file or directory")


class DamageError(FatalError):
    """Bytes on disk are not what was written: nothing of them may be served, and trying again does not help."""


def damaged(folder: Path, what: str) -> DamageError:
    """The state in this folder cannot be trusted."""
    return DamageError(f"state in {folder} is damaged: {what}; {WAY_OUT}")


def no_room(folder: Path, what: str) -> FatalError:
    """A write found no room; what was not finished is not part of the state."""
    return FatalError(
        f"no room left in {folder} ({what}): make room and start again; the state is whole, as of its last flush"
    )


def told(error: Exception, folder: Path, tried: str) -> Exception:
    """What to raise in place of an error of RocksDB, as in "state directory {folder} cannot be {tried}"."""
    if type(error) is DbClosedError:
        return error
    text = " ".join(str(error).split())
    if any(sign in text for sign in _NO_ROOM):
        return no_room(folder, text)
    if any(sign in text for sign in _DAMAGED):
        return damaged(folder, text)
    return FatalError(f"state directory {folder} cannot be {tried}: {text}")
