"""Models on disk: `<store>/<name>/<version>/{model.onnx,manifest.json}` and `<store>/<name>/aliases.json`.

Versions count up and never change; an alias (`champion`, `challenger`, `canary`) names one of them and may move.
"""

import re
import shutil
from dataclasses import dataclass
from hashlib import sha256
from importlib import resources
from pathlib import Path
from tempfile import mkdtemp

import msgspec

from models.assignment import Assignment, standing
from models.errors import ModelError
from models.files import read_below, write_atomic
from models.manifest import Manifest, write_manifest

MODEL_FILE, MANIFEST_FILE, ALIASES_FILE = "model.onnx", "manifest.json", "aliases.json"
ALIASES_BYTES_MAX = 64 * 1024
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_VERSION = re.compile(r"[1-9][0-9]{0,8}")
_REFERENCE = re.compile(rf"(?P<name>{_NAME.pattern})(?:@(?P<alias>[a-z]+)|/(?P<version>{_VERSION.pattern}))")


_aliases = msgspec.json.Decoder(dict[str, Assignment])


@dataclass(frozen=True, slots=True)
class Reference:
    """`name@alias` or `name/version`; the other one is None."""

    name: str
    alias: str | None
    version: int | None


@dataclass(frozen=True, slots=True)
class Located:
    """One version of a model and the directory that holds it."""

    name: str
    version: int
    directory: Path


def shipped_store() -> Path:
    """The store inside the package, with the model `demo`."""
    return Path(str(resources.files("models"))) / "store"


def parse_reference(reference: str) -> Reference:
    """Reads `name@alias` or `name/version`; ModelError where it is neither."""
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise ModelError(f"{reference!r} names no model: write name@alias or name/version, as in fraud@champion")
    return Reference(match["name"], match["alias"], int(match["version"]) if match["version"] else None)


def resolve(store: Path, reference: str) -> Located:
    """Finds `name@alias` or `name/version`; ModelError says what there is instead."""
    parsed = parse_reference(reference)
    name = parsed.name
    known = versions(store, name)
    if not known:
        raise ModelError(f"store {store} has no model {name!r}; it has: {', '.join(names(store)) or 'none'}")
    version = parsed.version or _stands_for(store, name, parsed.alias or "")
    if version not in known:
        raise ModelError(f"{reference}: store {store} has no version {version}; it has: {known}")
    return Located(name, version, store / name / str(version))


def _stands_for(store: Path, name: str, alias: str) -> int:
    at = standing(aliases(store, name))
    if alias not in at:
        raise ModelError(f"{name} has no alias {alias!r}; it has: {', '.join(sorted(at)) or 'none'}")
    return at[alias].version


def read_part(store: Path, located: Located, name: str, bytes_max: int) -> bytes:
    """One file of a version, read once, with no symlink below the store; ModelError where that does not go."""
    return read_below(store, f"{located.name}/{located.version}/{name}", bytes_max)


def names(store: Path) -> list[str]:
    """Models that have at least one version, by name."""
    if not store.is_dir():
        return []
    return sorted(
        entry.name for entry in store.iterdir() if _NAME.fullmatch(entry.name) and versions(store, entry.name)
    )


def versions(store: Path, name: str) -> list[int]:
    """Versions of one model, ascending; empty where there is no such model, or a symlink in its place."""
    directory = store / name
    if directory.is_symlink() or not directory.is_dir():
        return []
    return sorted(int(entry.name) for entry in directory.iterdir() if _VERSION.fullmatch(entry.name))


def aliases(store: Path, name: str) -> dict[str, Assignment]:
    """What each alias of one model stands for; ModelError for a damaged file."""
    path = store / name / ALIASES_FILE
    if not path.exists():
        return {}
    try:
        return _aliases.decode(read_below(store, f"{name}/{ALIASES_FILE}", ALIASES_BYTES_MAX))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is damaged: {error}") from error


def set_alias(store: Path, name: str, alias: str, assignment: Assignment) -> None:
    """Moves an alias to an existing version, whole or not at all."""
    resolve(store, f"{name}/{assignment.version}")
    moved = {**aliases(store, name), alias: assignment}
    write_atomic(store / name / ALIASES_FILE, msgspec.json.encode(moved, order="sorted") + b"\n")


def next_version(store: Path, name: str) -> int:
    """The version that the next `publish` has to carry."""
    return max(versions(store, name), default=0) + 1


def publish(store: Path, manifest: Manifest, model: bytes) -> Located:
    """Adds a version: a directory that appears whole, by one rename. It gets no alias.

    Raises ModelError when the version exists, the name is unusable, or the bytes are not the manifest's.
    """
    if not _NAME.fullmatch(manifest.name):
        raise ModelError(f"{manifest.name!r} cannot name a model: use lower case, digits, - and _")
    if sha256(model).hexdigest() != manifest.sha256:
        raise ModelError(f"{manifest.name}/{manifest.version}: the manifest is not that of these bytes")
    home = store / manifest.name
    target = home / str(manifest.version)
    if target.exists():
        raise ModelError(f"{target} exists; versions are never overwritten")
    home.mkdir(parents=True, exist_ok=True)
    incoming = Path(mkdtemp(prefix=".incoming-", dir=home))
    try:
        write_atomic(incoming / MODEL_FILE, model)
        write_manifest(incoming / MANIFEST_FILE, manifest)
        incoming.chmod(0o755)
        incoming.rename(target)
    finally:
        shutil.rmtree(incoming, ignore_errors=True)
    return Located(manifest.name, manifest.version, target)
