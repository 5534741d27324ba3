"""What became of every record of the input: one row for each, filled from the topics and from an offline replay.

events = decisions + dead letters + duplicates: a record with neither of the first two is a duplicate if the same event
was decided at an earlier offset of its partition, and lost if it was not.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtest.chaos.contents import Content, event_hash, fields_of, value_hash

EXAMPLES_MAX = 5
NOWHERE = -1

Rows = NDArray[np.intp]


@dataclass(slots=True)
class Verdict:
    """Counts of what happened, and of what must not. `mismatched` is None where nothing was replayed.

    lost         records without any outcome
    duplicated   outcomes beyond the first of a record, decisions beyond the first of an event
    reordered    decisions behind one of a later record of the same input partition, in their partition
    mismatched   outcomes that are not those of the offline replay, or not about the event or the bytes of their record
    misalerted   records whose alerts are not one for a decision that asks for it and none otherwise
    unknown      outputs about records that were never there
    """

    events: int
    decisions: int
    dead_letters: int
    duplicates: int
    lost: int
    duplicated: int
    reordered: int
    mismatched: int | None
    misalerted: int
    unknown: int
    examples: dict[str, list[str]] = field(default_factory=dict)
    mismatches: list[tuple[int, int]] = field(default_factory=list)


class Ledger:
    """Rows of all partitions, one after the other. The order in which topics are added does not matter."""

    def __init__(self, ends: Mapping[int, int]) -> None:
        """`ends`: how many records each partition of the input has."""
        self._ends = dict(sorted(ends.items()))
        self._begins: dict[int, int] = dict(
            zip(self._ends, np.cumsum([0, *self._ends.values()])[:-1].tolist(), strict=True)
        )
        rows = sum(self._ends.values())
        self._events, self._decided_events = np.zeros(rows, np.uint64), np.zeros(rows, np.uint64)
        self._values, self._letter_values = np.zeros(rows, np.uint64), np.zeros(rows, np.uint64)
        self._outcomes, self._replayed = np.zeros(rows, np.uint64), np.zeros(rows, np.uint64)
        self._decisions, self._letters = np.zeros(rows, np.int32), np.zeros(rows, np.int32)
        self._alerts = np.zeros(rows, np.int32)
        self._seen, self._readable, self._flagged = (np.zeros(rows, np.bool_) for _ in range(3))
        self._places = np.full((rows, 2), NOWHERE, np.int64)
        self._newest: dict[tuple[int, int], int] = {}
        self._replays = False
        self._reordered: list[int] = []
        self._unknown = 0

    def _row(self, partition: int, offset: int) -> int | None:
        if 0 <= offset < self._ends.get(partition, 0):
            return self._begins[partition] + offset
        self._unknown += 1
        return None

    def add_record(self, partition: int, offset: int, value: bytes | None) -> dict[str, Any] | None:
        """One record of the input; returns it as a JSON object if it is one."""
        row = self._row(partition, offset)
        fields = fields_of(value)
        if row is not None:
            self._seen[row], self._readable[row] = True, fields is not None
            self._values[row] = value_hash(value)
            self._events[row] = event_hash(fields["event_id"]) if fields and "event_id" in fields else 0
        return fields

    def add_decision(self, content: Content, place: tuple[int, int]) -> None:
        """One decision; `place` is its partition and offset, and those of one partition come as they stand in it."""
        row = self._row(content.partition, content.offset)
        if row is None:
            return
        if self._decisions[row] == 0:
            newest = self._newest.get((place[0], content.partition), NOWHERE)
            if content.offset < newest:
                self._reordered.append(row)
            self._newest[place[0], content.partition] = max(newest, content.offset)
            self._places[row] = place
            self._decided_events[row] = content.event
            self._flagged[row] = content.flagged
            self._outcomes[row] = content.digest
        self._decisions[row] += 1

    def add_letter(self, content: Content, value: bytes | None) -> None:
        """One dead letter, with the bytes that it brings along."""
        row = self._row(content.partition, content.offset)
        if row is None:
            return
        if self._letters[row] == 0:
            self._letter_values[row] = value_hash(value)
            self._outcomes[row] = content.digest
        self._letters[row] += 1

    def add_alert(self, partition: int, offset: int) -> None:
        """One alert, by the record that it is about."""
        row = self._row(partition, offset)
        if row is not None:
            self._alerts[row] += 1

    def add_replayed(self, content: Content) -> None:
        """What the offline replay made of a record."""
        self._replays = True
        row = self._row(content.partition, content.offset)
        if row is not None:
            self._replayed[row] = content.digest

    def place(self, partition: int, offset: int) -> tuple[int, int] | None:
        """Partition and offset of the decision about a record."""
        found = self._places[self._begins[partition] + offset]
        return (int(found[0]), int(found[1])) if found[0] != NOWHERE else None

    def verdict(self) -> Verdict:
        """Everything that was added, judged."""
        decided, lettered = self._decisions > 0, self._letters > 0
        repeated = self._repeated(decided)
        open_ = ~decided & ~lettered
        duplicates = self._decided_before(np.flatnonzero(open_ & (self._events != 0)))
        lost = open_.copy()
        lost[duplicates] = False
        again = (self._decisions + self._letters > 1) | repeated
        outcomes_again = int(np.maximum(self._decisions + self._letters - 1, 0).sum()) + int(repeated.sum())
        mismatched = self._mismatched(lost)
        misalerted = self._alerts != (decided & self._flagged)
        found = {
            "lost": np.flatnonzero(lost),
            "duplicated": np.flatnonzero(again),
            "reordered": np.array(self._reordered, np.intp),
            "mismatched": np.flatnonzero(mismatched),
            "misalerted": np.flatnonzero(misalerted),
        }
        return Verdict(
            events=int(self._seen.sum()),
            decisions=int(decided.sum()),
            dead_letters=int(lettered.sum()),
            duplicates=len(duplicates),
            lost=int(lost.sum()),
            duplicated=outcomes_again,
            reordered=len(self._reordered),
            mismatched=int(mismatched.sum()) if self._replays else None,
            misalerted=int(misalerted.sum()),
            unknown=self._unknown,
            examples={name: self._named(rows[:EXAMPLES_MAX]) for name, rows in found.items() if len(rows)},
            mismatches=[self._coordinates(row) for row in found["mismatched"][:EXAMPLES_MAX].tolist()],
        )

    def _repeated(self, decided: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Decisions about an event that was decided at an earlier offset of the same partition already."""
        repeated = np.zeros(len(decided), np.bool_)
        for partition, begin in self._begins.items():
            rows = begin + np.flatnonzero(decided[begin : begin + self._ends[partition]])
            _, first = np.unique(self._decided_events[rows], return_index=True)
            again = np.ones(len(rows), np.bool_)
            again[first] = False
            repeated[rows[again]] = True
        return repeated

    def _decided_before(self, open_rows: Rows) -> Rows:
        """Those of the rows whose event was decided at an earlier offset of the same partition."""
        kept = []
        for partition, begin in self._begins.items():
            end = begin + self._ends[partition]
            decided = begin + np.flatnonzero(self._decisions[begin:end] > 0)
            events, first = np.unique(self._decided_events[decided], return_index=True)
            rows = open_rows[(open_rows >= begin) & (open_rows < end)]
            if len(events) == 0 or len(rows) == 0:
                continue
            at = np.minimum(np.searchsorted(events, self._events[rows]), len(events) - 1)
            same = events[at] == self._events[rows]
            kept.append(rows[same & (decided[first[at]] < rows)])
        return np.concatenate(kept) if kept else np.zeros(0, np.intp)

    def _mismatched(self, lost: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Outcomes that are not what they have to be; a record that is no JSON cannot be in a file, and is dead."""
        decided, lettered = self._decisions > 0, self._letters > 0
        wrong: NDArray[np.bool_] = decided & (self._decided_events != self._events)
        wrong |= lettered & (self._letter_values != self._values)
        if self._replays:
            wrong |= self._readable & (self._outcomes != self._replayed)
            wrong |= ~self._readable & decided
        return wrong & ~lost

    def _named(self, rows: Rows) -> list[str]:
        return [
            f"partition {partition}, offset {offset}" for partition, offset in map(self._coordinates, rows.tolist())
        ]

    def _coordinates(self, row: int) -> tuple[int, int]:
        partition = max(p for p, begin in self._begins.items() if begin <= row < begin + self._ends[p])
        return partition, row - self._begins[partition]
