"""Files and folders that outlast a power cut: written, synced, and only then renamed to where they are looked for."""

import os
from collections.abc import Iterator
from pathlib import Path

import xxhash

CHUNK_BYTES = 1 << 20


def sync_file(path: Path) -> None:
    """Returns once the bytes of a file are on disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Returns once the names in a folder are on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_synced(path: Path, data: bytes) -> None:
    """Writes a new file, on disk when this returns; its name is once its folder is synced."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def checksum(path: Path) -> str:
    """xxh3 of a file, 128 bits in hex. In chunks large enough that other threads run meanwhile."""
    digest = xxhash.xxh3_128()
    for chunk in _chunks(path):
        digest.update(chunk)
    return digest.hexdigest()


def copy_synced(source: Path, target: Path) -> str:
    """Copies a file to a new one, on disk when this returns; the checksum of what was copied."""
    digest = xxhash.xxh3_128()
    with target.open("xb") as file:
        for chunk in _chunks(source):
            digest.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
