"""What features need of an event's fields, as columns: keys, words, flags of predicates, numbers, categories."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite, nan
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np

from engine.config import Config
from engine.errors import PoisonError
from engine.events import Bool, Float64, Int64, UInt64
from engine.policy.program import Fields
from engine.rates import exact_decimal
from features.predicates import Inputs, compile_predicate
from features.spec import Column, FeatureSpec
from features.words import column_seed, key_hashes, location_words, number_words, text_word

FLOAT_MAX = sys.float_info.max
LATITUDE_MAX = 90.0
LONGITUDE_MAX = 180.0

Refused = dict[int, PoisonError]


@dataclass(slots=True)
class Columns:
    """The part of `engine.events.Batch` that is made of fields."""

    keys: dict[str, list[str | None]]
    words: UInt64
    flags: Int64
    numbers: dict[str, Float64]
    categories: dict[str, UInt64]


@dataclass(frozen=True, slots=True)
class Needed:
    """The fields that features need, by our name; the value says which key of the configuration asks first."""

    texts: dict[str, str]
    numbers: dict[str, str]


def needed_fields(config: Config, spec: FeatureSpec) -> Needed:
    """Everything that has to be read beside event id, time, amount and currency."""
    texts: dict[str, str] = {}
    numbers: dict[str, str] = {}
    for column in spec.columns:
        if column.kind == "location":
            location = config.mapping.location
            numbers |= dict.fromkeys((location.latitude, location.longitude), "mapping.location")
        else:
            (numbers if column.kind == "number" else texts).setdefault(column.field, "entities")
    for predicate in spec.predicates:
        parsed, key = config.predicate(predicate), f"predicates.{predicate}"
        texts |= {name: key for name in parsed.texts if name not in texts}
        numbers |= {name: key for name in parsed.numbers if name not in numbers}
    for name in _event_numbers(spec):
        numbers.setdefault(name, "event.features")
    for name in _categories(spec):
        texts.setdefault(name, "event.one_hot, event.hashed")
    return Needed(texts, numbers)


class ColumnReader:
    """Makes the columns of parsed events."""

    def __init__(
        self,
        config: Config,
        spec: FeatureSpec,
        needed: Needed,
        ruled: Fields,
        attributes: dict[str, str],
        minor_per_major: int,
    ) -> None:
        """`attributes`: which attribute of a parsed event holds each of the input's fields.

        `ruled` is what rules read, beside what features need.
        """
        places = {column: at for at, column in enumerate(spec.columns)}
        bits = {name: bit for bit, name in enumerate(spec.predicates)}
        source = config.source
        self._width = len(spec.columns)
        self._entities = [entity.name for entity in spec.entities]
        self._texts = [
            (name, attrgetter(attributes[source(name)]), column_seed(name), places.get(Column(name, "text")))
            for name in needed.texts
        ]
        self._numbers = [(name, attrgetter(attributes[source(name)]), source(name)) for name in needed.numbers]
        self._tests = [compile_predicate(config.predicate(name), minor_per_major, text_word) for name in bits]
        # Columns that are not plain text: their place, and the bit of the predicate that they wait for.
        self._other_words = [
            (at, column, bits.get(column.predicate))
            for column, at in places.items()
            if column.kind != "text" or column.predicate
        ]
        location = config.mapping.location
        located = any(column.kind == "location" for column in spec.columns)
        self._location: tuple[str, ...] = (location.latitude, location.longitude) if located else ()
        self._source = source
        self._kept_numbers = list(dict.fromkeys((*_event_numbers(spec), *sorted(ruled.numbers))))
        self._kept_texts = list(dict.fromkeys((*_categories(spec), *sorted(ruled.texts))))
        self._ruled_texts = [
            (name, attrgetter(attributes[source(name)]), column_seed(name))
            for name in sorted(ruled.texts - needed.texts.keys())
        ]
        self._ruled_numbers = [
            (name, attrgetter(attributes[source(name)])) for name in sorted(ruled.numbers - needed.numbers.keys())
        ]

    def read(self, events: list[Any], amounts_minor: Int64, refused: Refused) -> Columns:
        """The columns of the parsed events; rows whose numbers cannot be are added to `refused`."""
        keys: dict[str, list[str | None]] = {}
        hashes: dict[str, UInt64] = {}
        words = np.empty((len(events), self._width), np.uint64)
        for name, reader, seed, at in self._texts:
            texts = _texts(map(reader, events))
            hashes[name] = key_hashes(texts, seed)
            if at is not None:
                words[:, at] = hashes[name]
            if name in self._entities:
                keys[name] = texts
        numbers = {name: _numbers(list(map(reader, events)), source, refused) for name, reader, source in self._numbers}
        if self._location:
            self._check_location(numbers, refused)
        flags = np.zeros(len(events), np.int64)
        if self._tests:
            inputs = Inputs(amounts_minor, numbers, hashes)
            for bit, test in enumerate(self._tests):
                flags |= test(inputs).astype(np.int64) << bit
        for at, column, flag in self._other_words:
            word = self._word(column, hashes, numbers)
            words[:, at] = word if flag is None else np.where(flags >> flag & 1, word, np.uint64(0))
        for name, reader, seed in self._ruled_texts:
            hashes[name] = key_hashes([text_seen(value) for value in map(reader, events)], seed)
        for name, reader in self._ruled_numbers:
            numbers[name] = np.array([_number_seen(value) for value in map(reader, events)], np.float64)
        return Columns(
            keys,
            words,
            flags,
            {name: numbers[name] for name in self._kept_numbers},
            {name: hashes[name] for name in self._kept_texts},
        )

    def _word(self, column: Column, hashes: dict[str, UInt64], numbers: dict[str, Float64]) -> UInt64:
        if column.kind == "text":
            return hashes[column.field]
        if column.kind == "number":
            return number_words(numbers[column.field])
        latitude, longitude = self._location
        return location_words(numbers[latitude], numbers[longitude])

    def _check_location(self, numbers: dict[str, Float64], refused: Refused) -> None:
        """Refuses coordinates that are out of range, and takes them out of the columns."""
        for name, degrees_max in zip(self._location, (LATITUDE_MAX, LONGITUDE_MAX), strict=True):
            beyond: Bool = np.abs(numbers[name]) > degrees_max
            if beyond.any():
                numbers[name] = np.where(beyond, np.nan, numbers[name])
                detail = f"{self._source(name)}: must be within -{degrees_max:g} to {degrees_max:g} degrees"
                for row in np.flatnonzero(beyond).tolist():
                    refused.setdefault(row, PoisonError("wrong_type", detail))


def number_invalid(field: str) -> PoisonError:
    """What to raise for a number field that holds something else."""
    return PoisonError("wrong_type", f"{field}: must be a finite number or a decimal text")


def _event_numbers(spec: FeatureSpec) -> list[str]:
    return [name for name in spec.event.features if name in spec.types.numbers]


def _categories(spec: FeatureSpec) -> list[str]:
    return list(dict.fromkeys(name for name, _ in (*spec.event.one_hot, *spec.event.hashed)))


def _texts(keys: Iterable[str | int | None]) -> list[str | None]:
    """Keys as text: an integer as its digits, "" as None."""
    return [None if key is None or key == "" else str(key) for key in keys]


def _numbers(values: list[float | str | None], field: str, refused: Refused) -> Float64:
    """One number per event, NaN where there is none: absent, null or ""."""
    if str not in set(map(type, values)):
        return np.array(values, np.float64)
    numbers = np.array([None if type(value) is str else value for value in values], np.float64)
    for row, value in enumerate(values):
        if type(value) is str and value:
            decimal = exact_decimal(value)
            if decimal is None or not -FLOAT_MAX <= decimal <= FLOAT_MAX:
                refused.setdefault(row, number_invalid(field))
            else:
                numbers[row] = float(decimal)
    return numbers


# What only rules or samples read decides nothing about whether an event is taken: what does not fit is absent.
_read_text = msgspec.json.Decoder(str | int | None).decode
_read_number = msgspec.json.Decoder(float | str | None).decode


def text_seen(value: Any) -> str | None:
    """A field that only rules or samples read, as text; a field that features read too comes parsed."""
    if isinstance(value, msgspec.Raw):
        try:
            value = _read_text(value)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
    return None if value is None or value == "" else str(value)


def _number_seen(value: Any) -> float:
    """A field that only rules read, as a number; NaN where it is none that a float64 can hold."""
    try:
        found = _read_number(value) if isinstance(value, msgspec.Raw) else value
    except (msgspec.DecodeError, UnicodeDecodeError):
        return nan
    if isinstance(found, str):
        decimal = exact_decimal(found)
        return nan if decimal is None or not -FLOAT_MAX <= decimal <= FLOAT_MAX else float(decimal)
    return found if found is not None and isfinite(found) else nan
