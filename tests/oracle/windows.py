"""Features by rescanning every accepted event: slow, obvious, and what the kernels must equal."""

import math
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache

from features.spec import Aggregate, Column, EntitySpec, FeatureSpec
from tests.oracle import amounts
from tests.oracle.events import Event, Predicates, fixed_point, signed, text_hash, word
from tests.oracle.geo import speed_kmh

NULL = math.nan
CATEGORIES = 2**20


def features_of(
    event: Event, before: list[Event], spec: FeatureSpec, minor_per_major: float, predicates: Predicates | None = None
) -> dict[str, float]:
    """Every feature of `event`, given all events accepted before it."""
    values: dict[str, float] = {}
    for entity in spec.entities:
        key = event.texts[entity.name]
        if key is None:
            values |= dict.fromkeys(names_of(entity), NULL)
            continue
        same = [x for x in before if x.texts[entity.name] == key and x.time_ms <= event.time_ms]
        values |= _Reading(entity, same, event.time_ms, event, minor_per_major, predicates or {}).values()
    return values | event_features(event, spec, minor_per_major, predicates or {})


def reading_at(
    at_ms: int, same: list[Event], entity: EntitySpec, minor_per_major: float, predicates: Predicates | None = None
) -> dict[str, float]:
    """An entity's features at a moment at which nothing happens, given all of its events."""
    earlier = [x for x in same if x.time_ms <= at_ms]
    return _Reading(entity, earlier, at_ms, None, minor_per_major, predicates or {}).values()


@cache
def names_of(entity: EntitySpec) -> list[str]:
    """The names of an entity's features."""
    return [
        aggregate.feature_name(entity.name, window)
        for aggregate in entity.aggregates
        for window in (entity.windows if aggregate.windowed else [""])
    ]


def event_features(event: Event, spec: FeatureSpec, minor_per_major: float, predicates: Predicates) -> dict[str, float]:
    """What is known of the event by itself."""
    moment = datetime.fromtimestamp(event.time_ms / 1000, UTC)
    values: dict[str, float] = {}
    for name in spec.event.features:
        if name == "amount":
            value = event.amount_minor / minor_per_major
        elif name == "hour_of_day":
            value = float(moment.hour)
        elif name == "day_of_week":
            value = float(moment.weekday())
        elif name in predicates:
            value = float(predicates[name](event))
        else:
            number = event.numbers.get(name)
            value = NULL if number is None else number
        values[f"event.{name}"] = value
    for name, categories in spec.event.one_hot:
        for category in categories:
            values[f"event.{name}.{category}"] = float(event.texts.get(name) == category)
    for name, buckets in spec.event.hashed:
        text = event.texts.get(name)
        values[f"event.{name}.hash"] = NULL if text is None else float(text_hash(name, text) % buckets)
    return values


def order_in_state(entity: EntitySpec, predicates: Predicates) -> Callable[[Event], tuple]:
    """A sort key for an entity's events: by time, and those of one time by everything that is stored of them."""

    def key(event: Event) -> tuple:
        words = [signed(word(event, column, predicates)) for column in entity.columns]
        return event.time_ms, event.amount_minor, words, [predicates[name](event) for name in entity.predicates]

    return key


class _Reading:
    """One entity at one moment: `earlier` are its events up to then, `event` the one that happens, if any."""

    def __init__(
        self,
        entity: EntitySpec,
        earlier: list[Event],
        at_ms: int,
        event: Event | None,
        minor_per_major: float,
        predicates: Predicates,
    ) -> None:
        self.entity = entity
        self.event = event
        self.at_ms = at_ms
        self.minor_per_major = minor_per_major
        self.predicates = predicates
        # From the newest back; who wins among ties is said by `order_in_state`.
        self.earlier = sorted(earlier, key=order_in_state(entity, predicates), reverse=True)
        self._held = [len(self._inside(length_ms)) for length_ms in entity.windows_ms]
        self._counted: dict[tuple[int, str, bool], list[Event]] = {}

    def values(self) -> dict[str, float]:
        found = [value for aggregate in self.entity.aggregates for value in self._values_of(aggregate)]
        return dict(zip(names_of(self.entity), found, strict=True))

    def _values_of(self, aggregate: Aggregate) -> list[float]:
        """An aggregate's value, or that of each window. Windows that hold the same events share it, but for rates."""
        if not aggregate.windowed:
            return [self._windowless(aggregate)]
        if aggregate.kind == "rate":
            return [self._windowed(aggregate, length_ms) for length_ms in self.entity.windows_ms]
        found: dict[int, float] = {}
        for length_ms, held in zip(self.entity.windows_ms, self._held, strict=True):
            if held not in found:
                found[held] = self._windowed(aggregate, length_ms)
        return [found[held] for held in self._held]

    def _holds(self, aggregate: Aggregate, event: Event) -> bool:
        return not aggregate.predicate or self.predicates[aggregate.predicate](event)

    def _inside(self, length_ms: int) -> list[Event]:
        """The earlier events of a window."""
        return [x for x in self.earlier if x.time_ms > self.at_ms - length_ms]

    def _those_that_count(self, aggregate: Aggregate, length_ms: int) -> list[Event]:
        """The events of a window for which the predicate holds, the one that happens among them unless `prior`."""
        known = (length_ms, aggregate.predicate, aggregate.prior)
        if known not in self._counted:
            happens = [self.event] if self.event is not None and not aggregate.prior else []
            inside = [*self._inside(length_ms), *happens]
            self._counted[known] = [x for x in inside if self._holds(aggregate, x)]
        return self._counted[known]

    def _windowed(self, aggregate: Aggregate, length_ms: int) -> float:
        if aggregate.kind == "is_new":
            return self._is_new(aggregate, self._inside(length_ms))
        counted = self._those_that_count(aggregate, length_ms)
        if aggregate.kind == "distinct":
            return float(len({x for x in (self._value(aggregate, x) for x in counted) if x is not None}))
        return self._of_amounts(aggregate, [x.amount_minor for x in counted], length_ms)

    def _of_amounts(self, aggregate: Aggregate, values: list[int], length_ms: int) -> float:
        match aggregate.kind:
            case "count":
                return float(len(values))
            case "rate":
                return len(values) / (length_ms / 3_600_000)
            case "sum":
                return amounts.total(values, self.minor_per_major)
            case "mean":
                return amounts.mean(values, self.minor_per_major)
            case "std":
                return amounts.std(values, self.minor_per_major)
            case "min":
                return amounts.least(values, self.minor_per_major)
            case "max":
                return amounts.greatest(values, self.minor_per_major)
            case "zscore":
                return NULL if self.event is None else amounts.zscore(self.event.amount_minor, values)
            case "ratio":
                return NULL if self.event is None else amounts.ratio(self.event.amount_minor, values)
        raise AssertionError(aggregate)

    def _windowless(self, aggregate: Aggregate) -> float:
        match aggregate.kind:
            case "since_last":
                matching = [x for x in self.earlier if self._holds(aggregate, x)]
                return (self.at_ms - matching[0].time_ms) / 1000.0 if matching else NULL
            case "since_first":
                times_ms = [x.time_ms for x in (*self.earlier, *([self.event] if self.event else []))]
                return (self.at_ms - min(times_ms)) / 1000.0 if times_ms else NULL
            case "geo_speed":
                return self._geo_speed()
            case "last":
                return self._last(aggregate)
        raise AssertionError(aggregate)

    def _value(self, aggregate: Aggregate, event: Event) -> str | float | None:
        """The event's value of the aggregate's field, None where it has none or the predicate does not hold."""
        if not self._holds(aggregate, event):
            return None
        if self._column(aggregate).kind == "number":
            return event.numbers.get(aggregate.field)
        return event.texts.get(aggregate.field)

    def _column(self, aggregate: Aggregate) -> Column:
        return next(c for c in self.entity.columns if c.field == aggregate.field and c.predicate == aggregate.predicate)

    def _is_new(self, aggregate: Aggregate, before: list[Event]) -> float:
        value = None if self.event is None else self._value(aggregate, self.event)
        if value is None:
            return NULL
        return float(value not in [self._value(aggregate, x) for x in before])

    def _last(self, aggregate: Aggregate) -> float:
        if aggregate.field == "amount":
            return self.earlier[0].amount_minor / self.minor_per_major if self.earlier else NULL
        values = [value for value in (self._value(aggregate, x) for x in self.earlier) if value is not None]
        if not values:
            return NULL
        if isinstance(values[0], str):
            return float(text_hash(aggregate.field, values[0]) % CATEGORIES)
        return values[0] or 0.0  # -0.0 and 0.0 are one value

    def _geo_speed(self) -> float:
        located = [x for x in self.earlier if x.location is not None]
        if self.event is None or self.event.location is None or not located:
            return NULL
        one, other = located[0], self.event
        return speed_kmh(fixed_point(one.location), fixed_point(other.location), other.time_ms - one.time_ms)
