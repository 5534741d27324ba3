"""Records that cannot become events, each with the dead-letter reason it has to get."""

from collections.abc import Callable
from typing import Any

import numpy as np
import orjson

# Above the default limit of 256 KiB for an event, below what a producer sends by default.
OVERSIZE_BYTES = 512 * 1024
YEAR_MS = 365 * 86_400_000
FUTURE_MS = 36 * 3_600_000

Make = Callable[[np.random.Generator, bytes], bytes | None]


def poison(rng: np.random.Generator, valid: bytes) -> tuple[bytes | None, str]:
    """Breaks a valid event in one of the ways of KINDS, at random; returns record and expected reason."""
    return spoil(int(rng.integers(0, len(KINDS))), rng, valid)


def spoil(kind: int, rng: np.random.Generator, valid: bytes) -> tuple[bytes | None, str]:
    """Breaks a valid event in the given way."""
    _, reason, make = KINDS[kind]
    return make(rng, valid), reason


def _with(**changes: Any) -> Make:
    return lambda _, valid: orjson.dumps({**orjson.loads(valid), **changes})


def _without(key: str) -> Make:
    return lambda _, valid: orjson.dumps({k: v for k, v in orjson.loads(valid).items() if k != key})


def _shifted(shift_ms: int) -> Make:
    def make(_: np.random.Generator, valid: bytes) -> bytes:
        event = orjson.loads(valid)
        return orjson.dumps({**event, "event_time": event["event_time"] + shift_ms})

    return make


def _truncated(rng: np.random.Generator, valid: bytes) -> bytes:
    return valid[: int(rng.integers(1, len(valid) - 1))]


def _nan_literal(_: np.random.Generator, valid: bytes) -> bytes:
    """Python's json module writes NaN as it is, which is not JSON."""
    return orjson.dumps({**orjson.loads(valid), "amount": "@"}).replace(b'"@"', b"NaN")


def _oversize(_: np.random.Generator, valid: bytes) -> bytes:
    return orjson.dumps({**orjson.loads(valid), "note": "x" * OVERSIZE_BYTES})


# Name, expected reason (one of engine.events.REASONS), how it is made.
KINDS: tuple[tuple[str, str, Make], ...] = (
    ("tombstone", "empty_value", lambda _, valid: None),
    ("no_bytes", "empty_value", lambda _, valid: b""),
    ("oversize", "oversize", _oversize),
    ("truncated", "malformed_json", _truncated),
    ("nan_literal", "malformed_json", _nan_literal),
    ("amount_list", "wrong_type", _with(amount=[12.5])),
    ("event_id_object", "wrong_type", _with(event_id={"id": 1})),
    ("no_event_id", "missing_field", _without("event_id")),
    ("no_amount", "missing_field", _without("amount")),
    ("no_event_time", "missing_field", _without("event_time")),
    ("event_id_empty", "event_id_invalid", _with(event_id="")),
    ("amount_nan", "amount_invalid", _with(amount="NaN")),
    ("amount_words", "amount_invalid", _with(amount="abc")),
    ("amount_huge", "amount_range", _with(amount=10**13)),
    ("currency_unknown", "unknown_currency", _with(currency="XXQ")),
    ("time_negative", "event_time_invalid", _with(event_time=-1)),
    ("time_years_ago", "event_time_past", _shifted(-5 * YEAR_MS)),
    ("time_ahead", "event_time_future", _shifted(FUTURE_MS)),
)
