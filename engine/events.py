"""What travels through the pipeline: raw records in, columns in between, outputs at the end.

Every column of a batch is aligned: row i of each belongs to the same event, rows stand in acceptance order.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]
UInt64 = NDArray[np.uint64]
Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

AMOUNT_MINOR_MAX = 10**13

# Why a record could not become an event; documented in docs/dead-letters.md.
REASONS = (
    "empty_value",
    "oversize",
    "malformed_json",
    "wrong_type",
    "missing_field",
    "event_id_invalid",
    "amount_invalid",
    "amount_range",
    "unknown_currency",
    "event_time_invalid",
    "event_time_past",
    "event_time_future",
)


@dataclass(slots=True)
class Records:
    """Raw messages of one poll, as columns.

    `values[i]` may be None (a tombstone). `partitions` int64, `offsets` int64 and `record_times_ms` int64 (the Kafka
    record timestamp; -1 where the source has none, as files do) have one entry per message. `keys` has too, or none at
    all where the source has no keys.
    """

    topic: str
    values: list[bytes | None]
    partitions: Int64
    offsets: Int64
    record_times_ms: Int64
    keys: list[bytes | None] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.values)

    @staticmethod
    def joined(parts: "list[Records]") -> "Records":
        """One after another, of one topic."""
        if len(parts) == 1:
            return parts[0]
        return Records(
            parts[0].topic,
            [value for part in parts for value in part.values],
            np.concatenate([part.partitions for part in parts]),
            np.concatenate([part.offsets for part in parts]),
            np.concatenate([part.record_times_ms for part in parts]),
            [key for part in parts for key in part.keys],
        )


def select(records: Records, wanted: NDArray[np.bool_]) -> Records:
    """The records of these rows."""
    if wanted.all():
        return records
    rows = np.flatnonzero(wanted)
    at = rows.tolist()
    return Records(
        records.topic,
        [records.values[row] for row in at],
        records.partitions[rows],
        records.offsets[rows],
        records.record_times_ms[rows],
        [records.keys[row] for row in at] if records.keys else [],
    )


@dataclass(slots=True)
class DeadLetter:
    """One undecodable record: its bytes as they came, why, and where it came from.

    `record_time_ms`: the Kafka record timestamp, -1 where the source has none.
    """

    value: bytes | None
    reason: str
    detail: str
    topic: str
    partition: int
    offset: int
    record_time_ms: int = -1
    key: bytes | None = None


@dataclass(slots=True)
class Batch:
    """Decoded events of one micro-batch, n rows, by column.

    `amounts_minor`: minor units of `currency`, the base one. `keys[entity]`: the key as text, None where absent.
    `words[n, c]`: what features need of the fields, in the order of `FeatureSpec.columns`; 0 means absent, or that the
    column's predicate does not hold. `flags[n]`: bit i says whether `FeatureSpec.predicates[i]` holds. `numbers[field]`
    (NaN absent) and `categories[field]` (hashes, 0 absent): what event-level features need.
    `partition_keys`: what the decision is keyed by. `late`: older than the partition's newest by more than late_after.
    `values`: the events as they came, for what is asked of few of them.
    """

    topic: str
    event_ids: list[str]
    event_id_hashes: UInt64
    times_ms: Int64
    amounts_minor: Int64
    currency: str
    keys: dict[str, list[str | None]]
    words: UInt64
    flags: Int64
    partition_keys: list[str | None]
    partitions: Int64
    offsets: Int64
    record_times_ms: Int64
    numbers: dict[str, Float64] = field(default_factory=dict)
    categories: dict[str, UInt64] = field(default_factory=dict)
    late: Bool = field(default_factory=lambda: np.zeros(0, np.bool_))
    values: list[bytes | None] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.event_ids)

    def take(self, rows: NDArray[np.intp]) -> "Batch":
        """The batch of only these rows, in the given order."""
        at = rows.tolist()
        return Batch(
            topic=self.topic,
            event_ids=[self.event_ids[i] for i in at],
            event_id_hashes=self.event_id_hashes[rows],
            times_ms=self.times_ms[rows],
            amounts_minor=self.amounts_minor[rows],
            currency=self.currency,
            keys={name: [column[i] for i in at] for name, column in self.keys.items()},
            words=self.words[rows],
            flags=self.flags[rows],
            partition_keys=[self.partition_keys[i] for i in at],
            partitions=self.partitions[rows],
            offsets=self.offsets[rows],
            record_times_ms=self.record_times_ms[rows],
            numbers={name: column[rows] for name, column in self.numbers.items()},
            categories={name: column[rows] for name, column in self.categories.items()},
            late=self.late[rows] if len(self.late) else self.late,
            values=[self.values[i] for i in at] if self.values else [],
        )
