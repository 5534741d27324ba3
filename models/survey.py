"""What is in a store, and which of it may be loaded."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from features.spec import FeatureDef
from models.assignment import standing
from models.errors import ModelError, one_line
from models.runtime import admit, input_columns
from models.store import Located, aliases, names, resolve, versions


@dataclass(frozen=True, slots=True)
class Version:
    """One version; `refusal` is why it may not be loaded, None where it may.

    `since_ms`: when the version appeared in the store. `sha256` and `features` are None where the files are not sound,
    for what these say of themselves is not to be trusted; there for a sound model that needs other features.
    """

    name: str
    version: int
    aliases: list[str]
    since_ms: int
    sha256: str | None
    features: list[str] | None
    refusal: str | None


def survey(store: Path, wanted: str | None, feature_definitions: Sequence[FeatureDef]) -> Iterator[Version]:
    """Every version that `wanted` names, by name and version, each tried as `load_model` would.

    `wanted` is a name, name/version or name@alias; None for the whole store. ModelError where there is no such model.
    """
    for located in _located(store, wanted):
        yield _version(store, located, feature_definitions)


def _located(store: Path, wanted: str | None) -> list[Located]:
    known = names(store)
    if wanted is not None and wanted not in known:
        return [resolve(store, wanted)]
    chosen = known if wanted is None else [wanted]
    return [resolve(store, f"{name}/{version}") for name in chosen for version in versions(store, name)]


def _version(store: Path, located: Located, definitions: Sequence[FeatureDef]) -> Version:
    digest, features, refusal = None, None, None
    try:
        manifest, _ = admit(store, located)
        digest, features = manifest.sha256, [feature.name for feature in manifest.features]
        input_columns(manifest, definitions)
    except ModelError as error:
        refusal = one_line(str(error))
    return Version(
        name=located.name,
        version=located.version,
        aliases=sorted(
            alias for alias, at in standing(aliases(store, located.name)).items() if at.version == located.version
        ),
        since_ms=located.directory.lstat().st_mtime_ns // 1_000_000,
        sha256=digest,
        features=features,
        refusal=refusal,
    )
