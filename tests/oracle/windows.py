"""Features by rescanning every accepted event: slow, obvious, and what the kernels must equal."""

import math
from dataclasses import dataclass

from features.spec import FeatureSpec


@dataclass(frozen=True)
class Event:
    """One accepted event: `keys` has the entity keys and the fields that `distinct` counts, None where absent."""

    time_ms: int
    sequence: int
    amount_minor: int
    keys: dict[str, str | None]


def features_of(event: Event, before: list[Event], spec: FeatureSpec, minor_per_major: float) -> dict[str, float]:
    """Every windowed feature of `event`, given all events accepted before it."""
    values: dict[str, float] = {}
    for entity in spec.entities:
        key = event.keys[entity.name]
        same = [x for x in before if key is not None and x.keys[entity.name] == key and x.time_ms <= event.time_ms]
        for window, length_ms in zip(entity.windows, entity.windows_ms, strict=True):
            inside = [x for x in same if x.time_ms > event.time_ms - length_ms] + [event]
            total = sum(x.amount_minor for x in inside)
            found = {
                "count": float(len(inside)),
                "sum.amount": total / minor_per_major,
                "mean.amount": total / (len(inside) * minor_per_major),
                "max.amount": max(x.amount_minor for x in inside) / minor_per_major,
            }
            for field in entity.distinct_fields:
                found[f"distinct.{field}"] = float(len({x.keys[field] for x in inside} - {None}))
            for aggregate in entity.aggregates:
                if aggregate != "since_last":
                    name = f"{entity.name}.{aggregate}.{window}"
                    values[name] = math.nan if key is None else found[aggregate]
        if "since_last" in entity.aggregates:
            newest_ms = max((x.time_ms for x in same), default=None)
            values[f"{entity.name}.since_last"] = (
                math.nan if newest_ms is None else (event.time_ms - newest_ms) / 1000.0
            )
    return values
