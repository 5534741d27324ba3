"""Writing files that are either there whole or not at all, and reading none but those that lie where they seem to."""

import os
import stat
from contextlib import ExitStack
from pathlib import Path, PurePath

from models.errors import ModelError


def write_atomic(path: Path, data: bytes) -> None:
    """Writes a temporary neighbour, syncs it, and renames it over `path`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_below(root: Path, relative: str | PurePath, bytes_max: int) -> bytes:
    """The file `relative` below the folder `root`, read once.

    ModelError where it is missing, no regular file or larger than `bytes_max`, and where it or a folder on the way is a
    symlink. `root` itself may be one, for whoever configures it names it.
    """
    *folders, name = PurePath(relative).parts
    path = root / relative
    if ".." in folders or path == PurePath(relative):
        raise ModelError(f"{relative} is not below {root}")
    with ExitStack() as opened:
        at = _open(root, os.O_DIRECTORY, None, path, opened)
        for folder in folders:
            at = _open(folder, os.O_DIRECTORY | os.O_NOFOLLOW, at, path, opened)
        # Opening a pipe to read it would wait for a writer.
        file = _open(name, os.O_NOFOLLOW | os.O_NONBLOCK, at, path, opened)
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise ModelError(f"{path} is no regular file")
        with os.fdopen(os.dup(file), "rb") as reader:
            data = reader.read(bytes_max + 1)
    if len(data) > bytes_max:
        raise ModelError(f"{path} has more than {bytes_max} bytes")
    return data


def _open(name: str | Path, flags: int, folder: int | None, path: Path, opened: ExitStack) -> int:
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | flags, dir_fd=folder)
    except FileNotFoundError as error:
        raise ModelError(f"{path} does not exist") from error
    except OSError as error:
        # Linux says ELOOP of a file and ENOTDIR of a folder that is a symlink.
        if flags & os.O_NOFOLLOW and stat.S_ISLNK(os.lstat(name, dir_fd=folder).st_mode):
            raise ModelError(f"{path}: {name} is a symlink, which is not followed") from error
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    opened.callback(os.close, descriptor)
    return descriptor
