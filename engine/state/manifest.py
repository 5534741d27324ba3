"""What a checkpoint says of itself: the state that it is of, and every file with its checksum.

The manifest is written last and carries a checksum of its own, so what cannot be read here is no checkpoint.
"""

from pathlib import Path
from typing import NamedTuple

import msgspec
import xxhash

from engine.state.damage import DamageError
from engine.state.durable import checksum, write_synced
from engine.state.header import Header

MANIFEST = "manifest.json"
FORMAT = 1


class FileIdentity(NamedTuple):
    """Which file of the database one was made of. The same identity, the same bytes: sorted files never change."""

    inode: int
    bytes: int
    modified_ns: int

    @classmethod
    def of(cls, path: Path) -> "FileIdentity":
        """That of this file."""
        stat = path.stat()
        return cls(stat.st_ino, stat.st_size, stat.st_mtime_ns)


class CheckpointFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file below the checkpoint's folder; `xxh3`: 128 bits, hex."""

    name: str
    xxh3: str
    identity: FileIdentity


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`vector`, `sequence`, `fingerprint` and ids are those of the header of the state; see there.

    `checksum`: of this manifest without it.
    """

    format: int
    sequence: int
    vector: dict[int, int]
    fingerprint: str
    cluster_id: str | None
    topic: str
    topic_id: str | None
    created_at_ms: int
    files: list[CheckpointFile]
    checksum: str = ""

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(file.identity.bytes for file in self.files)


def manifest_of(header: Header, created_at_ms: int, files: list[CheckpointFile]) -> Manifest:
    """The manifest of a checkpoint of the state with this header."""
    return Manifest(
        FORMAT, header.sequence, dict(header.vector), header.fingerprint, header.cluster_id, header.topic,
        header.topic_id, created_at_ms, files,
    )  # fmt: skip


def is_of(manifest: Manifest, header: Header) -> bool:
    """Whether this is the manifest of the state with this header."""
    return manifest_of(header, manifest.created_at_ms, manifest.files) == msgspec.structs.replace(manifest, checksum="")


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes it into a checkpoint's folder, for good."""
    sealed = msgspec.structs.replace(manifest, checksum=_checksum_of(manifest))
    write_synced(folder / MANIFEST, msgspec.json.format(msgspec.json.encode(sealed), indent=1))


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a checkpoint; DamageError where it is not what was written."""
    path = folder / MANIFEST
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DamageError(f"checkpoint {folder}: {MANIFEST} cannot be read: {error}") from error
    if manifest.checksum != _checksum_of(manifest):
        raise DamageError(f"checkpoint {folder}: {MANIFEST} does not fit its checksum")
    if manifest.format != FORMAT:
        raise DamageError(f"checkpoint {folder} has format {manifest.format}, this version reads {FORMAT}")
    return manifest


def _checksum_of(manifest: Manifest) -> str:
    return xxhash.xxh3_128_hexdigest(msgspec.json.encode(msgspec.structs.replace(manifest, checksum="")))


def check_sizes(folder: Path, manifest: Manifest) -> None:
    """DamageError where a file of the checkpoint is missing or of another size."""
    for file in manifest.files:
        path = folder / file.name
        if not path.is_file():
            raise DamageError(f"checkpoint {folder}: {file.name} is missing")
        if path.stat().st_size != file.identity.bytes:
            raise DamageError(
                f"checkpoint {folder}: {file.name} has {path.stat().st_size} bytes, not {file.identity.bytes}"
            )


def check_file(folder: Path, file: CheckpointFile) -> None:
    """DamageError where the bytes of a file are not those that the checkpoint was made of."""
    if checksum(folder / file.name) != file.xxh3:
        raise DamageError(f"checkpoint {folder}: {file.name} does not fit its checksum")
