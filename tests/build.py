"""Builds small batches and states for tests."""

from pathlib import Path

import numpy as np
import xxhash

from engine.config import Config, parse_config
from engine.events import Batch
from features.spec import FeatureSpec
from tests.oracle.windows import Event

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


def small_config(extra: str = "", folder: Path = Path(), ring_events_max: int = 256) -> Config:
    """Two entities, several windows, every aggregate; `extra` is more TOML."""
    state = (
        f"\n[state]\ncache_bytes_max = {32 << 20}\ndirty_bytes_max = {8 << 20}\nring_events_max = {ring_events_max}\n"
    )
    return parse_config(SMALL + extra + state, folder, environment={})


def text_hash(text: str | None) -> int:
    """A 64-bit hash that is never 0 for a text, and 0 for None."""
    return 0 if text is None else xxhash.xxh3_64_intdigest(text.encode()) or 1


def batch_of(events: list[Event], spec: FeatureSpec, ids: list[str] | None = None) -> Batch:
    """A decoded batch of these events; ids are the sequences unless given."""
    ids = ids or [str(event.sequence) for event in events]
    names = [entity.name for entity in spec.entities]
    return Batch(
        topic="in",
        event_ids=ids,
        event_id_hashes=np.array([text_hash(i) for i in ids], np.uint64),
        times_ms=np.array([e.time_ms for e in events], np.int64),
        amounts_minor=np.array([e.amount_minor for e in events], np.int64),
        currency="EUR",
        keys={name: [e.keys[name] for e in events] for name in names},
        hashes=np.array([[text_hash(e.keys[c]) for c in spec.hash_columns] for e in events], np.uint64).reshape(
            len(events), len(spec.hash_columns)
        ),
        partition_keys=[e.keys["card"] for e in events],
        partitions=np.array([e.sequence >> 47 for e in events], np.int64),
        offsets=np.array([e.sequence & ((1 << 47) - 1) for e in events], np.int64),
        record_times_ms=np.full(len(events), -1, np.int64),
    )
