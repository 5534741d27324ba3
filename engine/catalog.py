"""What the feature set has: every feature with its unit and definition, and since when the state can answer for it.

first event             newest event
|                       |
|<---- 7d ---->|        |
               card.count.7d covers its whole window for events from here on
"""

from collections.abc import Iterator
from dataclasses import dataclass

from engine.assemble import load_rates, rules_of
from engine.config import Config
from engine.state.header import Header
from engine.state.peek import read_header
from features.arena import NEVER
from features.spec import AMOUNT, Aggregate, EntitySpec, FeatureSpec, FieldTypes

_UNITS = {
    "count": "events",
    "rate": "events/h",
    "zscore": "standard deviations",
    "ratio": "times the mean",
    "distinct": "values",
    "is_new": "0 or 1",
    "since_last": "s",
    "since_first": "s",
    "geo_speed": "km/h",
}
_CLOCK_UNITS = {"hour_of_day": "0 to 23, UTC", "day_of_week": "0 (Monday) to 6, UTC"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One feature. `entity` and `window` are empty where it has none.

    `complete_from_ms`: for events from this time on, everything that its window reaches back over was seen; None where
    nothing is known of that, or nothing will ever be.
    """

    name: str
    entity: str
    window: str
    unit: str
    definition: str
    complete_from_ms: int | None


def catalog(config: Config, header: Header | None) -> list[Entry]:
    """Every feature in the order of the set; `header` is that of a state under the same rules, if there is one."""
    spec = config.feature_spec()
    definitions = {feature.name: feature.definition_hash for feature in spec.features}
    entries = []
    for entity in spec.entities:
        for name, aggregate, window in entity_features(entity):
            unit = _unit(aggregate, spec.types, config.rates.base_currency)
            window_ms = entity.windows_ms[entity.windows.index(window)] if window else None
            complete_from_ms = complete_from(header, window_ms) if header is not None else None
            entries.append(Entry(name, entity.name, window, unit, definitions[name], complete_from_ms))
    for name, unit in _event_units(spec, config.rates.base_currency):
        entries.append(Entry(name, "", "", unit, definitions[name], None))
    return entries


def matching_state(config: Config) -> tuple[Header | None, str]:
    """The header of the state in `state.dir`; where there is none that this configuration could go on from, why."""
    folder = config.path(config.state.dir)
    header = read_header(folder)
    if header is None:
        return None, f"none in {folder} yet"
    if header.fingerprint != rules_of(config, load_rates(config)):
        return None, f"the one in {folder} was made under other rules"
    return header, str(folder)


def seen(header: Header) -> dict[str, int | None]:
    """Times of the first and the newest event, and up to when some were missed; None for never."""
    times_ms = {"first_ms": header.first_ms, "newest_ms": header.newest_ms, "cold_ms": header.cold_ms}
    return {name: None if time_ms == NEVER else time_ms for name, time_ms in times_ms.items()}


def entity_features(entity: EntitySpec) -> Iterator[tuple[str, Aggregate, str]]:
    """Name, aggregate and window of each value of an entity, in column order; the window is empty for those without."""
    for aggregate in entity.aggregates:
        for window in entity.windows if aggregate.windowed else ("",):
            yield aggregate.feature_name(entity.name, window), aggregate, window


def complete_from(header: Header, window_ms: int | None) -> int | None:
    """The event time from which on a window, or what has none (None), reaches back over nothing unseen."""
    if header.first_ms == NEVER or (window_ms is None and header.cold_ms != NEVER):
        return None
    return max(header.first_ms, header.cold_ms) + (window_ms or 0)


def _unit(aggregate: Aggregate, types: FieldTypes, currency: str) -> str:
    if aggregate.field == AMOUNT and aggregate.kind not in _UNITS:
        return currency
    if aggregate.kind == "last":
        return "number" if aggregate.field in types.numbers else "category"
    return _UNITS[aggregate.kind]


def _event_units(spec: FeatureSpec, currency: str) -> Iterator[tuple[str, str]]:
    for name in spec.event.features:
        if name == AMOUNT:
            unit = currency
        else:
            unit = _CLOCK_UNITS.get(name) or ("number" if name in spec.types.numbers else "0 or 1")
        yield f"event.{name}", unit
    for name, categories in spec.event.one_hot:
        for category in categories:
            yield f"event.{name}.{category}", "0 or 1"
    for name, buckets in spec.event.hashed:
        yield f"event.{name}.hash", f"bucket of {buckets}"
