"""Builds small batches and states for tests."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engine.config import Config, parse_config
from engine.events import Batch
from features.spec import AMOUNT_WINDOWED, FIELD_WINDOWED, PLAIN_WINDOWED, FeatureSpec
from tests.oracle.events import Event, Predicates, text_hash, word

MINOR_PER_MAJOR = 100.0

SMALL = """
[mapping]
currency = { default = "EUR" }
[entities.card]
windows = ["10s", "1m", "1h"]
aggregates = ["count", "sum.amount", "mean.amount", "max.amount", "distinct.merchant", "distinct.city", "since_last"]
[entities.merchant]
windows = ["5s", "1d"]
aggregates = ["count", "max.amount", "distinct.card"]
"""

# What the predicates of EVERYTHING mean, in Python.
PREDICATES: Predicates = {
    "small": lambda event: event.amount_minor < 200,
    "ecom": lambda event: event.texts.get("entry_mode") == "ecom",
    "far": lambda event: (event.numbers.get("distance_km") or 0.0) > 100.0,
}
EVERYTHING = """\
currency = { default = "EUR" }
numbers = ["distance_km"]
location = { latitude = "lat", longitude = "lon" }
[predicates]
small = "amount < 2.00"
ecom = 'entry_mode == "ecom"'
far = "distance_km > 100"
[event]
features = ["amount", "hour_of_day", "day_of_week", "distance_km", "small", "far"]
one_hot = { entry_mode = ["chip", "ecom"] }
hashed = { city = 16 }
"""
NUMBERS = ("distance_km",)


def small_config(extra: str = "", folder: Path = Path(), ring_events_max: int = 256) -> Config:
    """Two entities, several windows, a few aggregates; `extra` is more TOML."""
    return parse_config(SMALL + extra + _state(ring_events_max), folder, environment={})


def full_config(
    windows: Sequence[str] = ("10s", "1m", "1h"),
    ring_events_max: int = 256,
    aggregates: Sequence[str] | None = None,
    merchant_windows: Sequence[str] = ("5s", "2m"),
    horizon_past: str = "1000d",
    state: str = "",
) -> Config:
    """Cards with these aggregates, by default every form of every one; merchants with a few. `state` is more TOML.

    With so long a horizon nothing is ever forgotten.
    """
    text = f"""[mapping]
horizon_past = "{horizon_past}"
{EVERYTHING}
[entities.card]
windows = {list(windows)}
aggregates = {list(aggregates or every_aggregate())}
[entities.merchant]
windows = {list(merchant_windows)}
aggregates = ["count", "mean.amount.small", "min.amount", "distinct.card", "distinct.card.ecom", "since_first"]
{_state(ring_events_max)}{state}
"""
    return parse_config(text, Path(), environment={})


def every_aggregate() -> list[str]:
    """Every aggregate: with a predicate on the amount, on a text, on a number and with none; with and without prior."""
    kinds = [*PLAIN_WINDOWED, *(f"{kind}.amount" for kind in AMOUNT_WINDOWED)]
    kinds += [f"{kind}.{field}" for kind in FIELD_WINDOWED for field in ("merchant", "distance_km")]
    kinds += ["since_last", "last.merchant", "last.distance_km"]
    forms = []
    for kind in kinds:
        for predicate in ("", ".small", ".ecom", ".far"):
            forms.append(kind + predicate)
            if not kind.startswith(("is_new", "since_last", "last")):
                forms.append(f"{kind}{predicate}.prior")
    return [*forms, "distinct.city", "is_new.city", "since_first", "geo_speed", "last.amount"]


def _state(ring_events_max: int) -> str:
    return (
        f"\n[state]\ncache_bytes_max = {32 << 20}\ndirty_bytes_max = {8 << 20}\nring_events_max = {ring_events_max}\n"
    )


def batch_of(
    events: list[Event], spec: FeatureSpec, ids: list[str] | None = None, predicates: Predicates = PREDICATES
) -> Batch:
    """A decoded batch of these events; their ids are the given ones, their own, or their sequences."""
    ids = ids or [event.event_id or str(event.sequence) for event in events]
    names = [entity.name for entity in spec.entities]
    words = [[word(e, column, predicates) for column in spec.columns] for e in events]
    flags = [sum(predicates[name](e) << bit for bit, name in enumerate(spec.predicates)) for e in events]
    categories = [name for name, _ in (*spec.event.one_hot, *spec.event.hashed)]
    numbers = [name for name in spec.event.features if name in spec.types.numbers]
    return Batch(
        topic="in",
        event_ids=ids,
        event_id_hashes=np.array([text_hash("id", i) for i in ids], np.uint64),
        times_ms=np.array([e.time_ms for e in events], np.int64),
        amounts_minor=np.array([e.amount_minor for e in events], np.int64),
        currency="EUR",
        keys={name: [e.texts[name] for e in events] for name in names},
        words=np.array(words, np.uint64).reshape(len(events), len(spec.columns)),
        flags=np.array(flags, np.int64),
        numbers={name: np.array([_number(e, name) for e in events], np.float64) for name in numbers},
        categories={
            name: np.array([text_hash(name, e.texts.get(name)) for e in events], np.uint64) for name in categories
        },
        partition_keys=[e.texts["card"] for e in events],
        partitions=np.array([e.partition for e in events], np.int64),
        offsets=np.array([e.offset for e in events], np.int64),
        record_times_ms=np.full(len(events), -1, np.int64),
    )


def _number(event: Event, name: str) -> float:
    value = event.numbers.get(name)
    return math.nan if value is None else value
