"""Feature definitions: what is asked for, by which names, and in which column of the matrix each value stands.

A name is `{entity}.{aggregate}[.{field}][.{window}]`: `card.count.1h`, `card.sum.amount.24h`,
`card.distinct.merchant.24h`, `card.since_last`; event-level features are `event.{name}`.
"""

from dataclasses import dataclass
from hashlib import sha256

from features.durations import duration_ms

EVENT_FEATURES = ("amount", "hour_of_day")
WINDOWED = ("count", "sum.amount", "mean.amount", "max.amount")
AMOUNT_UNIT = "base-currency major units"


class SpecError(ValueError):
    """A definition is wrong; `key` says where, below the entity or `event`."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


@dataclass(frozen=True, slots=True)
class EntitySpec:
    """One entity's definitions: windows ascending by length, aggregates in the order they were written."""

    name: str
    windows: tuple[str, ...]
    windows_ms: tuple[int, ...]
    aggregates: tuple[str, ...]
    distinct_fields: tuple[str, ...]

    @property
    def windowless(self) -> bool:
        """Whether any value reaches beyond all windows and so needs the `{entity}.all` flag."""
        return "since_last" in self.aggregates


@dataclass(frozen=True, slots=True)
class FeatureDef:
    """One column of the matrix: its name and the hash of everything that defines its values."""

    name: str
    definition_hash: str


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """The whole feature set: entities in name order, their columns, then the event-level columns.

    `hash_columns` names the fields whose 64-bit hashes a batch carries: each entity's key first, then further fields
    that a `distinct` needs.
    """

    entities: tuple[EntitySpec, ...]
    event_features: tuple[str, ...]
    hash_columns: tuple[str, ...]
    features: tuple[FeatureDef, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Feature names in column order."""
        return tuple(feature.name for feature in self.features)

    def fingerprint(self) -> str:
        """Changes whenever a name, a definition or the order does."""
        return _digest("feature_set", *(f"{f.name}={f.definition_hash}" for f in self.features))


def entity_spec(name: str, windows: list[str], aggregates: list[str]) -> EntitySpec:
    """Checks one entity's definitions; raises SpecError with the key that is wrong."""
    lengths = []
    for window in windows:
        try:
            lengths.append((duration_ms(window), window))
        except ValueError as error:
            raise SpecError("windows", str(error)) from error
    lengths.sort()
    if len({length for length, _ in lengths}) < len(lengths):
        raise SpecError("windows", f"{windows} names the same length twice")
    if len(set(aggregates)) < len(aggregates):
        raise SpecError("aggregates", f"{aggregates} names an aggregate twice")
    distinct = []
    for aggregate in aggregates:
        if aggregate.startswith("distinct.") and aggregate.count(".") == 1:
            distinct.append(aggregate.removeprefix("distinct."))
        elif aggregate not in (*WINDOWED, "since_last"):
            allowed = ", ".join((*WINDOWED, "distinct.FIELD", "since_last"))
            raise SpecError("aggregates", f"{aggregate!r} is unknown; allowed: {allowed}")
    if aggregates != ["since_last"] and not lengths:
        raise SpecError("windows", "is empty, but the aggregates need at least one window")
    return EntitySpec(
        name=name,
        windows=tuple(text for _, text in lengths),
        windows_ms=tuple(length for length, _ in lengths),
        aggregates=tuple(aggregates),
        distinct_fields=tuple(distinct),
    )


def feature_spec(entities: list[EntitySpec], event_features: list[str]) -> FeatureSpec:
    """Puts the entities' columns into one order; raises SpecError for an unknown event-level feature."""
    for name in event_features:
        if name not in EVENT_FEATURES:
            raise SpecError("event", f"{name!r} is unknown; allowed: {', '.join(EVENT_FEATURES)}")
    ordered = tuple(sorted(entities, key=lambda entity: entity.name))
    columns = [entity.name for entity in ordered]
    for entity in ordered:
        columns += [field for field in entity.distinct_fields if field not in columns]
    features = [_define(name) for entity in ordered for name in _entity_names(entity)]
    features += [_define(f"event.{name}") for name in event_features]
    return FeatureSpec(ordered, tuple(event_features), tuple(columns), tuple(features))


def _entity_names(entity: EntitySpec) -> list[str]:
    names = []
    for aggregate in entity.aggregates:
        if aggregate == "since_last":
            names.append(f"{entity.name}.since_last")
        else:
            names += [f"{entity.name}.{aggregate}.{window}" for window in entity.windows]
    return names


def _define(name: str) -> FeatureDef:
    """The definition is the name with its window in milliseconds, so `24h` and `1d` are the same feature."""
    head, _, last = name.rpartition(".")
    try:
        canonical = f"{head}.{duration_ms(last)}ms"
    except ValueError:
        canonical = name
    return FeatureDef(name, _digest("feature", "v1", canonical, AMOUNT_UNIT))


def _digest(*parts: str) -> str:
    return sha256("\n".join(parts).encode()).hexdigest()[:16]
