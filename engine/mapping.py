"""Which field of a foreign schema is what: the `[mapping]` table and the mappings that ship with the program."""

import tomllib
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import msgspec

from engine.errors import ConfigError
from features.durations import duration_ms
from features.spec import AMOUNT, CLOCK_FEATURES


class TimeField(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the event time stands and how it is written."""

    field: str
    unit: Literal["ms", "s", "iso8601"] = "ms"


class AmountField(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the amount stands; `major` is 12.34, `minor` is 1234."""

    field: str
    unit: Literal["major", "minor"] = "major"


class CurrencyField(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the currency stands (alphabetic or numeric ISO 4217), and what it is where the field is absent.

    Without `field` the whole stream is in `default`; without `default` every event must say its currency.
    """

    field: str | None = None
    default: str | None = None


class LocationFields(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Our names of the fields, in degrees, that say where an event took place; both empty where none do."""

    latitude: str = ""
    longitude: str = ""

    def __post_init__(self) -> None:
        if bool(self.latitude) != bool(self.longitude) or (self.latitude and self.latitude == self.longitude):
            raise ValueError(f"latitude, longitude: {self.latitude!r}, {self.longitude!r} must be two fields, or empty")


class Mapping(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The schema of the input. `fields` gives our name for a foreign field: `card = "cc_num"`.

    A name that `fields` does not list is taken as the foreign field of that name. `numbers` are our names of fields
    that hold numbers, beside those of `location`; all others are text.
    """

    base: str | None = None
    event_id: str = "event_id"
    event_time: TimeField = TimeField("event_time")
    amount: AmountField = AmountField("amount")
    currency: CurrencyField = CurrencyField("currency")
    partition_key: str = "card"
    fields: dict[str, str] = {}
    numbers: list[str] = []
    location: LocationFields = LocationFields()
    late_after: str = "1m"
    horizon_past: str = "7d"
    horizon_future: str = "1h"
    event_bytes_max: int = 262_144

    def __post_init__(self) -> None:
        for key in ("late_after", "horizon_past", "horizon_future"):
            try:
                duration_ms(getattr(self, key))
            except ValueError as error:
                raise ValueError(f"{key}: {error}") from error
        if self.event_bytes_max < 1:
            raise ValueError(f"event_bytes_max: {self.event_bytes_max} must be at least 1")
        for name in self.number_fields:
            if not name or "." in name or name in (AMOUNT, *CLOCK_FEATURES):
                allowed = f"must be a name without a dot, and none of {', '.join((AMOUNT, *CLOCK_FEATURES))}"
                raise ValueError(f"numbers, location: {name!r} {allowed}")

    @property
    def number_fields(self) -> frozenset[str]:
        """Our names of all fields that hold numbers."""
        return frozenset(self.numbers).union([self.location.latitude, self.location.longitude] if self.located else [])

    @property
    def located(self) -> bool:
        """Whether events say where they took place."""
        return bool(self.location.latitude)

    @property
    def late_after_ms(self) -> int:
        return duration_ms(self.late_after)

    @property
    def horizon_past_ms(self) -> int:
        return duration_ms(self.horizon_past)

    @property
    def horizon_future_ms(self) -> int:
        return duration_ms(self.horizon_future)

    def source(self, name: str) -> str:
        """The foreign field behind one of our names."""
        return self.fields.get(name, name)


def shipped_mappings() -> list[str]:
    """Names of the mappings in the package."""
    folder = resources.files("engine.mappings")
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def read_mapping(name_or_path: str, relative_to: Path) -> dict[str, Any]:
    """The table of a shipped mapping, or of a TOML file; ConfigError where neither exists or it does not parse."""
    if name_or_path in shipped_mappings():
        text = resources.files("engine.mappings").joinpath(f"{name_or_path}.toml").read_text("utf-8")
    else:
        path = relative_to / name_or_path
        if not path.is_file():
            raise ConfigError(
                f"mapping.base: {name_or_path!r} is neither a file ({path}) nor one of {', '.join(shipped_mappings())}"
            )
        text = path.read_text("utf-8")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"mapping.base: {name_or_path} is not valid TOML: {error}") from error
