"""What an output says about which input record, reduced to what can be kept for millions of them."""

from typing import Any, NamedTuple

import orjson
import xxhash

# All else of a decision must be what an offline replay gives.
UNREPEATABLE = "decided_at"


class Content(NamedTuple):
    """`digest` covers everything that is said; `event` the event id; `flagged`: an alert is due."""

    partition: int
    offset: int
    digest: int
    event: int = 0
    flagged: bool = False


def decision_content(value: bytes) -> Content:
    """Of a decision as it stands in the topic or in a file."""
    decision: dict[str, Any] = orjson.loads(value)
    source = decision["source"]
    decision.pop(UNREPEATABLE)
    digest = xxhash.xxh3_64_intdigest(orjson.dumps(decision, option=orjson.OPT_SORT_KEYS))
    flagged = decision["decision"] != "approve"
    return Content(source["partition"], source["offset"], digest, event_hash(decision["event_id"]), flagged)


def letter_content(reason: str, partition: int, offset: int) -> Content:
    """Of a dead letter."""
    return Content(partition, offset, xxhash.xxh3_64_intdigest(f"dead letter: {reason}".encode()))


def event_hash(event_id: object) -> int:
    """Of the id's text, never 0."""
    return xxhash.xxh3_64_intdigest(str(event_id).encode()) or 1


def value_hash(value: bytes | None) -> int:
    """Of the bytes of a record; a record without a value is like an empty one."""
    return xxhash.xxh3_64_intdigest(value or b"")


def fields_of(value: bytes | None) -> dict[str, Any] | None:
    """The record as a JSON object; None where it is none."""
    try:
        document = orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        return None
    return document if isinstance(document, dict) else None
