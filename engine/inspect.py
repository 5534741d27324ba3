"""One entity's state as it rests on disk: its events, its tiles, and every value that they give at one moment."""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from engine.assemble import check_rules, load_rates, rules_of
from engine.catalog import entity_features
from engine.config import Config
from engine.errors import ConfigError, TidegateError
from engine.observe.logs import masked
from engine.rates import minor_per_major
from engine.state.local import LocalState
from engine.state.look import Look
from engine.state.peek import FrozenStore, read_header
from features.spec import Column, EntitySpec
from features.words import UNITS_PER_DEGREE, text_word

# Enough to look at one entity; the configured cache is meant for millions.
CACHE_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Inspection:
    """What the state holds of one entity; `key` as it may be shown."""

    entity: EntitySpec
    key: str
    look: Look
    currency: str

    def features(self) -> list[tuple[str, float | None, bool]]:
        """Name, value (None for null) and whether it is exact, of each feature."""
        found = []
        for name, _, window in entity_features(self.entity):
            value = self.look.values[name]
            exact = f"{self.entity.name}.{window or 'all'}" not in self.look.inexact
            found.append((name, None if np.isnan(value) else value, exact))
        return found

    def amount(self, amount_minor: int) -> float:
        """In major units."""
        return amount_minor / minor_per_major(self.currency)

    def fields(self, words: tuple[int, ...]) -> dict[str, str | float | list[float]]:
        """What is stored of an event's fields, by column name: of text nothing but its hash."""
        named = zip(self.entity.columns, words, strict=True)
        return {column.name: _readable(column, word) for column, word in named if word}

    def as_json(self) -> dict[str, Any]:
        """Everything, for programs."""
        look = self.look
        return {
            "entity": self.entity.name,
            "key": self.key,
            "currency": self.currency,
            "at_ms": look.at_ms,
            "first_ms": look.first_ms,
            "newest_ms": look.newest_ms,
            "dropped_ms": look.dropped_ms,
            "features": {name: value for name, value, _ in self.features()},
            "inexact": look.inexact,
            "ring": [
                {
                    "time_ms": time_ms,
                    "amount": self.amount(amount_minor),
                    "fields": self.fields(words),
                    "predicates": list(predicates),
                }
                for time_ms, amount_minor, words, predicates in look.ring
            ],
            "tiles": [
                {
                    "start_ms": start_ms,
                    "end_ms": end_ms,
                    "first_ms": first_ms,
                    "last_ms": last_ms,
                    "count": count,
                    "sum": self.amount(sum_minor),
                    "min": self.amount(min_minor),
                    "max": self.amount(max_minor),
                }
                for start_ms, end_ms, first_ms, last_ms, count, sum_minor, min_minor, max_minor in look.tiles
            ],
        }


def inspect(config: Config, entity: str, key: str, at_ms: int | None, *, unmasked: bool = False) -> Inspection:
    """Reads one entity, at its newest event unless a time is given; a worker may be running on the state.

    Raises ConfigError for an entity that is not configured and where there is no state, FatalError for a state made
    under other rules, and TidegateError where the state has no such key.
    """
    spec = config.feature_spec()
    kinds = {found.name: found for found in spec.entities}
    if entity not in kinds:
        raise ConfigError(f"entity {entity!r} is not configured; there are: {', '.join(kinds)}")
    rates = load_rates(config)
    small = msgspec.structs.replace(config.state, cache_bytes_max=CACHE_BYTES, dirty_bytes_max=CACHE_BYTES // 4)
    shown = key if unmasked else masked(key)
    with ExitStack() as resources_open:
        header = read_header(config.path(config.state.dir))
        if header is None:
            raise ConfigError(f"state.dir {config.path(config.state.dir)} holds no state yet")
        check_rules(config, header, rules_of(config, rates))
        store = resources_open.enter_context(FrozenStore(config.path(config.state.dir)))
        state = LocalState(msgspec.structs.replace(config, state=small), spec, header.fingerprint, store)
        look = state.look(entity, text_word(entity, key), at_ms)
    if look is None:
        raise TidegateError(f"the state has no {entity} {shown}")
    return Inspection(kinds[entity], shown, look, config.rates.base_currency)


def _readable(column: Column, word: int) -> str | float | list[float]:
    """A stored word as a person can read it."""
    bits = np.uint64(word % 2**64)
    match column.kind:
        case "number":
            return float(bits.view(np.float64)) + 0.0  # 0 is stored as -0
        case "location":
            halves = int(bits) >> 32, int(bits) & (2**32 - 1)
            return [(half - 2**31) / UNITS_PER_DEGREE for half in halves]
        case _:
            return f"{int(bits):016x}"
