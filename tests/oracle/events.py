"""An event as the oracle sees it: its raw fields, and what the definitions make of them."""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache

import xxhash

from features.spec import Column

OFFSET_BITS = 47


@dataclass(frozen=True)
class Event:
    """One event. `texts`: keys and categories, `numbers`: number fields, `location`: degrees; None where absent.

    `sequence` holds the source coordinates: the partition above the offset.
    """

    time_ms: int
    sequence: int
    amount_minor: int
    texts: Mapping[str, str | None]
    numbers: Mapping[str, float | None] = field(default_factory=dict)
    location: tuple[float, float] | None = None
    event_id: str = ""

    @property
    def partition(self) -> int:
        return self.sequence >> OFFSET_BITS

    @property
    def offset(self) -> int:
        return self.sequence & ((1 << OFFSET_BITS) - 1)


Predicates = Mapping[str, Callable[[Event], bool]]


@cache
def text_hash(field_name: str, text: str | None) -> int:
    """The hash of a text, never 0; 0 for None. Equal texts of different fields have different hashes."""
    if text is None:
        return 0
    return xxhash.xxh3_64_intdigest(text.encode(), xxhash.xxh32_intdigest(field_name.encode())) or 1


def fixed_point(location: tuple[float, float]) -> tuple[int, int]:
    """Latitude and longitude in units of 1e-7 degrees, which is all that is kept of them."""
    latitude, longitude = location
    return round(latitude * 1e7), round(longitude * 1e7)


def word(event: Event, column: Column, predicates: Predicates) -> int:
    """The unsigned 64-bit word that is stored of an event for a column; 0 where it has none."""
    if column.predicate and not predicates[column.predicate](event):
        return 0
    if column.kind == "text":
        return text_hash(column.field, event.texts.get(column.field))
    if column.kind == "number":
        number = event.numbers.get(column.field)
        if number is None:
            return 0
        return 1 << 63 if number == 0 else int(struct.unpack("<Q", struct.pack("<d", number))[0])
    if event.location is None:
        return 0
    latitude, longitude = fixed_point(event.location)
    return (latitude + 2**31) << 32 | (longitude + 2**31)


def signed(value: int) -> int:
    """The same 64 bits read as a signed number."""
    return value - (1 << 64) if value >= 1 << 63 else value
