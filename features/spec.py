"""Feature definitions: what is asked for, by which names, and in which column of the matrix each value stands.

A name is `{entity}.{aggregate}[.{field}][.{window}][.{predicate}][.prior]`: `card.count.1h`,
`card.sum.amount.24h.small`, `card.distinct.merchant.24h.prior`, `card.since_last`; event-level features are
`event.{name}`. An aggregate is configured under the same name without entity and window: `sum.amount.small`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import NamedTuple

from features.durations import duration_ms

AMOUNT = "amount"
AMOUNT_UNIT = "base-currency major units"
PRIOR = "prior"
CLOCK_FEATURES = ("hour_of_day", "day_of_week")
PREDICATES_MAX = 32

# Aggregates by what stands after their name: nothing, the amount, or any field.
PLAIN_WINDOWED = ("count", "rate")
AMOUNT_WINDOWED = ("sum", "mean", "std", "min", "max", "zscore", "ratio")
FIELD_WINDOWED = ("distinct", "is_new")
PLAIN_WINDOWLESS = ("since_last", "since_first", "geo_speed")
FIELD_WINDOWLESS = ("last",)
WINDOWED = (*PLAIN_WINDOWED, *AMOUNT_WINDOWED, *FIELD_WINDOWED)
WITHOUT_PRIOR = ("is_new", *PLAIN_WINDOWLESS, *FIELD_WINDOWLESS)
WITHOUT_PREDICATE = ("since_first", "geo_speed")


class SpecError(ValueError):
    """A definition is wrong; `key` says where, below the entity or `event`."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


@dataclass(frozen=True, slots=True)
class FieldTypes:
    """What is known of the input beside the amount: predicates by name with their text, and which fields are numbers.

    `located` says whether events have a position; every field that is not a number is text.
    """

    predicates: Mapping[str, str] = field(default_factory=dict)
    numbers: frozenset[str] = frozenset()
    located: bool = False


class Column(NamedTuple):
    """One 64-bit word stored of an event, 0 where it has none.

    `text`: the hash of a field; `number`: the bits of a float64; `location`: latitude and longitude. With a predicate
    the word is 0 unless the predicate holds.
    """

    field: str
    kind: str
    predicate: str = ""

    @property
    def name(self) -> str:
        """Its name, as in `merchant.small`."""
        return f"{self.field}.{self.predicate}" if self.predicate else self.field


LOCATION = Column("location", "location")


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One configured aggregate, such as `sum.amount.small.prior`."""

    kind: str
    field: str = ""
    predicate: str = ""
    prior: bool = False

    @property
    def windowed(self) -> bool:
        """Whether there is one value for each window, or a single one."""
        return self.kind in WINDOWED

    @property
    def text(self) -> str:
        """As it is configured."""
        return ".".join(filter(None, (self.kind, self.field, self.predicate, PRIOR * self.prior)))

    def feature_name(self, entity: str, window: str = "") -> str:
        """The full name of one of its values."""
        return ".".join(filter(None, (entity, self.kind, self.field, window, self.predicate, PRIOR * self.prior)))


@dataclass(frozen=True, slots=True)
class EntitySpec:
    """One entity's definitions: windows ascending by length, aggregates in the order they were written.

    `columns` and `predicates` are what is stored of each event beside time and amount, in name order: they depend on
    the aggregates' fields and predicates, never on the windows.
    """

    name: str
    windows: tuple[str, ...]
    windows_ms: tuple[int, ...]
    aggregates: tuple[Aggregate, ...]
    columns: tuple[Column, ...]
    predicates: tuple[str, ...]

    @property
    def windowless(self) -> bool:
        """Whether any value reaches beyond all windows and so needs the `{entity}.all` flag."""
        return any(not aggregate.windowed for aggregate in self.aggregates)


@dataclass(frozen=True, slots=True)
class EventSpec:
    """Event-level definitions: names of plain features, categories that get a column each, fields hashed to buckets."""

    features: tuple[str, ...] = ()
    one_hot: tuple[tuple[str, tuple[str, ...]], ...] = ()
    hashed: tuple[tuple[str, int], ...] = ()

    def names(self) -> list[str]:
        """Feature names in column order."""
        names = [f"event.{name}" for name in self.features]
        names += [f"event.{name}.{category}" for name, categories in self.one_hot for category in categories]
        return names + [f"event.{name}.hash" for name, _ in self.hashed]


@dataclass(frozen=True, slots=True)
class FeatureDef:
    """One column of the matrix: its name and the hash of everything that defines its values."""

    name: str
    definition_hash: str


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """The whole feature set: entities in name order, their columns of the matrix, then the event-level ones.

    `columns` are the words that a batch carries of each event: the entities' keys first, then whatever else an entity
    stores. `predicates` are those that any feature uses, in name order: the bits of a batch's `flags`.
    """

    entities: tuple[EntitySpec, ...]
    event: EventSpec
    types: FieldTypes
    columns: tuple[Column, ...]
    predicates: tuple[str, ...]
    features: tuple[FeatureDef, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Feature names in column order."""
        return tuple(feature.name for feature in self.features)

    def fingerprint(self) -> str:
        """Changes whenever a name, a definition or the order does."""
        return _digest("feature_set", *(f"{f.name}={f.definition_hash}" for f in self.features))


def entity_spec(name: str, windows: list[str], aggregates: list[str], types: FieldTypes | None = None) -> EntitySpec:
    """Checks one entity's definitions; raises SpecError with the key that is wrong."""
    types = types or FieldTypes()
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
    parsed = tuple(parse_aggregate(text, types) for text in aggregates)
    if any(aggregate.windowed for aggregate in parsed) and not lengths:
        raise SpecError("windows", "is empty, but the aggregates need at least one window")
    columns = {_column(aggregate, types) for aggregate in parsed} - {None}
    return EntitySpec(
        name=name,
        windows=tuple(text for _, text in lengths),
        windows_ms=tuple(length for length, _ in lengths),
        aggregates=parsed,
        columns=tuple(sorted(column for column in columns if column is not None)),
        predicates=tuple(sorted({a.predicate for a in parsed if a.predicate and a.kind not in _COLUMN_KINDS})),
    )


def parse_aggregate(text: str, types: FieldTypes) -> Aggregate:
    """Reads `sum.amount.small.prior`; raises SpecError for what is unknown or makes no sense."""
    kind, *rest = text.split(".")
    prior = rest[-1:] == [PRIOR]
    rest = rest[:-1] if prior else rest
    has_field = kind in (*AMOUNT_WINDOWED, *FIELD_WINDOWED, *FIELD_WINDOWLESS)
    if kind not in (*WINDOWED, *PLAIN_WINDOWLESS, *FIELD_WINDOWLESS) or (has_field and not rest):
        raise SpecError("aggregates", f"{text!r} is unknown; allowed: {', '.join(_allowed())}")
    value_field = rest.pop(0) if has_field else ""
    predicate = rest.pop(0) if rest else ""
    if rest:
        raise SpecError("aggregates", f"{text!r}: {'.'.join(rest)!r} is too much; allowed: {', '.join(_allowed())}")
    if kind in AMOUNT_WINDOWED and value_field != AMOUNT:
        raise SpecError("aggregates", f"{text!r}: {kind} is kept of {AMOUNT} alone, not of {value_field!r}")
    if kind in FIELD_WINDOWED and value_field == AMOUNT:
        raise SpecError("aggregates", f"{text!r}: {kind} needs a field other than {AMOUNT}")
    if predicate and predicate not in types.predicates:
        known = ", ".join(types.predicates) or "none is defined"
        raise SpecError("aggregates", f"{text!r}: {predicate!r} is not a predicate; predicates: {known}")
    if predicate and (kind in WITHOUT_PREDICATE or (kind == "last" and value_field == AMOUNT)):
        raise SpecError("aggregates", f"{text!r}: {kind} of this takes no predicate")
    if prior and kind in WITHOUT_PRIOR:
        raise SpecError("aggregates", f"{text!r}: {kind} never includes the event itself, so {PRIOR!r} says nothing")
    if kind == "geo_speed" and not types.located:
        raise SpecError("aggregates", f"{text!r} needs mapping.location")
    return Aggregate(kind, value_field, predicate, prior)


def feature_spec(
    entities: list[EntitySpec], event: EventSpec | None = None, types: FieldTypes | None = None
) -> FeatureSpec:
    """Puts the entities' columns into one order; raises SpecError for an unknown event-level feature."""
    types, event = types or FieldTypes(), event or EventSpec()
    _check_event(event, types)
    ordered = tuple(sorted(entities, key=lambda entity: entity.name))
    columns = [Column(entity.name, "text") for entity in ordered]
    columns += sorted({column for entity in ordered for column in entity.columns} - set(columns))
    used = {name for entity in ordered for name in entity.predicates}
    used |= {column.predicate for column in columns if column.predicate}
    used |= {name for name in event.features if name in types.predicates}
    features = [
        _define(aggregate, entity.name, window, types)
        for entity in ordered
        for aggregate in entity.aggregates
        for window in (entity.windows if aggregate.windowed else ("",))
    ]
    features += _define_event(event, types)
    return FeatureSpec(ordered, event, types, tuple(columns), tuple(sorted(used)), tuple(features))


_COLUMN_KINDS = (*FIELD_WINDOWED, *FIELD_WINDOWLESS)


def _allowed() -> Iterable[str]:
    yield from PLAIN_WINDOWED
    yield from (f"{kind}.{AMOUNT}" for kind in AMOUNT_WINDOWED)
    yield from (f"{kind}.FIELD" for kind in _COLUMN_KINDS)
    yield from PLAIN_WINDOWLESS
    yield "each with .PREDICATE and .prior where that means something"


def _column(aggregate: Aggregate, types: FieldTypes) -> Column | None:
    """The word that an aggregate needs of each event, if any."""
    if aggregate.kind == "geo_speed":
        return LOCATION
    if aggregate.kind in _COLUMN_KINDS and aggregate.field != AMOUNT:
        kind = "number" if aggregate.field in types.numbers else "text"
        return Column(aggregate.field, kind, aggregate.predicate)
    return None


def _check_event(event: EventSpec, types: FieldTypes) -> None:
    known = (AMOUNT, *CLOCK_FEATURES, *sorted(types.numbers), *sorted(types.predicates))
    for name in event.features:
        if name not in known:
            raise SpecError("features", f"{name!r} is unknown; allowed: {', '.join(known)}")
    for key, fields in (("one_hot", event.one_hot), ("hashed", event.hashed)):
        for name, _ in fields:
            if name in (AMOUNT, *types.numbers):
                raise SpecError(f"{key}.{name}", "is a number, not a category")
    for name, buckets in event.hashed:
        if not 2 <= buckets <= 1 << 20:
            raise SpecError(f"hashed.{name}", f"{buckets} buckets: must be 2 to {1 << 20}")
    names = event.names()
    for name in names:
        if names.count(name) > 1:
            raise SpecError("features", f"{name!r} is named twice")


def _define(aggregate: Aggregate, entity: str, window: str, types: FieldTypes) -> FeatureDef:
    """The definition is the name with its window in milliseconds, so `24h` and `1d` are the same feature."""
    canonical = aggregate.feature_name(entity, f"{duration_ms(window)}ms" if window else "")
    meaning = [types.predicates[aggregate.predicate]] if aggregate.predicate else []
    column = _column(aggregate, types)
    if column is not None and column.kind == "number":
        meaning.append(column.kind)
    name = aggregate.feature_name(entity, window)
    return FeatureDef(name, _digest("feature", "v1", canonical, AMOUNT_UNIT, *meaning))


def _define_event(event: EventSpec, types: FieldTypes) -> list[FeatureDef]:
    buckets = {f"event.{name}.hash": f"{count} buckets" for name, count in event.hashed}
    predicates = {f"event.{name}": text for name, text in types.predicates.items()}
    meanings = predicates | buckets
    return [
        FeatureDef(name, _digest("feature", "v1", name, AMOUNT_UNIT, *([meanings[name]] if name in meanings else [])))
        for name in event.names()
    ]


def _digest(*parts: str) -> str:
    return sha256("\n".join(parts).encode()).hexdigest()[:16]
