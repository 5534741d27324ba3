"""What the topic of dead letters holds: letters, and marks that say which of them were sent again.

 partition 0   L0   L1   L2   M[L0, L2 to transactions]   L4            L4 came of what L0 was sent as: its 2nd attempt
 partition 1   L0   L1   M[L1 to staging]

A mark stands in the partition of its letters and after them, so that no retention takes a mark before its letter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

MARK_SCHEMA = "tidegate.dlq-replay.v1"
# Header names of what is in the topic, and of a record that was sent again.
REASON, ERROR, TOPIC, PARTITION, OFFSET = (
    f"tidegate.{name}" for name in ("reason", "error", "topic", "partition", "offset")
)
TIMESTAMP, CUT, SCHEMA = "tidegate.timestamp", "tidegate.cut_from_bytes", "tidegate.schema"
REPLAYED_FROM, ATTEMPT = "tidegate.replayed_from", "tidegate.attempt"


# Values of letters, by partition and offset of the letter.
Values = dict[tuple[int, int], bytes]


class Letter(msgspec.Struct, frozen=True, gc=False):
    """One dead letter without its value.

    `time_ms`: when it was written; `record_time_ms`: when its record was, -1 where the letter does not say.
    """

    partition: int
    offset: int
    time_ms: int
    reason: str
    error: str
    topic: str
    source_partition: int
    source_offset: int
    value_bytes: int
    record_time_ms: int = -1
    cut_from_bytes: int | None = None

    @property
    def place(self) -> tuple[int, int]:
        """Partition and offset in the topic of dead letters."""
        return self.partition, self.offset

    @property
    def source(self) -> tuple[str, int, int]:
        """Where its record was."""
        return self.topic, self.source_partition, self.source_offset

    @property
    def sent_time_ms(self) -> int:
        """The timestamp that its record has when it is sent again: its own, or the letter's, which is a bit later."""
        return self.record_time_ms if self.record_time_ms >= 0 else self.time_ms


class Sent(NamedTuple):
    """A letter of the mark's partition, where its record went, and which attempt at it that is."""

    offset: int
    to_partition: int
    to_offset: int
    attempt: int


class Mark(msgspec.Struct, frozen=True, omit_defaults=False):
    """The letters of one partition that one transaction sent to one topic."""

    to: str
    letters: list[Sent]
    schema: str = MARK_SCHEMA

    def encode(self) -> bytes:
        """As it is written."""
        return msgspec.json.encode(self)


def read_letter(
    partition: int, offset: int, time_ms: int, value_bytes: int, headers: Mapping[str, bytes]
) -> Letter | None:
    """The letter that a record is; None for a record that Tidegate did not write."""
    try:
        return Letter(
            partition,
            offset,
            time_ms,
            headers[REASON].decode(),
            headers[ERROR].decode(),
            headers[TOPIC].decode(),
            int(headers[PARTITION]),
            int(headers[OFFSET]),
            value_bytes,
            int(headers.get(TIMESTAMP, b"-1")),
            int(headers[CUT]) if CUT in headers else None,
        )
    except (KeyError, ValueError):
        return None


def read_mark(value: bytes, headers: Mapping[str, bytes]) -> Mark | None:
    """The mark that a record is; None for any other record."""
    if headers.get(SCHEMA) != MARK_SCHEMA.encode():
        return None
    try:
        return msgspec.json.decode(value, type=Mark)
    except msgspec.DecodeError:
        return None


class Ledger:
    """What was sent again, as the marks say."""

    def __init__(self) -> None:
        self._sent: dict[tuple[int, int], list[str]] = {}
        self._attempts: dict[tuple[str, int, int], int] = {}

    def note(self, partition: int, mark: Mark) -> None:
        """Takes in a mark of this partition; a second time changes nothing."""
        for sent in mark.letters:
            topics = self._sent.setdefault((partition, sent.offset), [])
            if mark.to not in topics:
                topics.append(mark.to)
            self._attempts[mark.to, sent.to_partition, sent.to_offset] = sent.attempt

    def sent_to(self, letter: Letter) -> Sequence[str]:
        """The topics that the letter was sent to."""
        return self._sent.get(letter.place, ())

    def attempt(self, letter: Letter) -> int:
        """1 for a record that came from a producer, 2 for one that had been a dead letter before, and so on."""
        return self._attempts.get(letter.source, 1)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which letters are meant; what is empty or None admits all. Partitions are those of the input."""

    reasons: frozenset[str] = frozenset()
    partitions: frozenset[int] = frozenset()
    since_ms: int | None = None
    until_ms: int | None = None
    value_bytes_max: int | None = None

    def admits(self, letter: Letter) -> bool:
        """Whether all of it holds: since <= time < until."""
        return (
            (not self.reasons or letter.reason in self.reasons)
            and (not self.partitions or letter.source_partition in self.partitions)
            and (self.since_ms is None or letter.time_ms >= self.since_ms)
            and (self.until_ms is None or letter.time_ms < self.until_ms)
            and (self.value_bytes_max is None or letter.value_bytes <= self.value_bytes_max)
        )


@dataclass(slots=True)
class Survey:
    """The letters that a filter admits, oldest first; all marks; and how many records are neither."""

    letters: list[Letter] = field(default_factory=list)
    ledger: Ledger = field(default_factory=Ledger)
    foreign: int = 0


@dataclass(slots=True)
class ReasonCount:
    """Letters of one reason: all, those that were replayed, those of records that had been replayed before, and cut."""

    reason: str
    first_ms: int
    last_ms: int
    letters: int = 0
    replayed: int = 0
    failed_again: int = 0
    cut: int = 0


def count(survey: Survey) -> list[ReasonCount]:
    """By reason, the most frequent first."""
    counts: dict[str, ReasonCount] = {}
    for letter in survey.letters:
        of_reason = counts.setdefault(letter.reason, ReasonCount(letter.reason, letter.time_ms, letter.time_ms))
        of_reason.last_ms = letter.time_ms
        of_reason.letters += 1
        of_reason.replayed += bool(survey.ledger.sent_to(letter))
        of_reason.failed_again += survey.ledger.attempt(letter) > 1
        of_reason.cut += letter.cut_from_bytes is not None
    return sorted(counts.values(), key=lambda of_reason: (-of_reason.letters, of_reason.reason))
