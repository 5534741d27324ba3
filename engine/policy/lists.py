"""Lists of entities that are blocked or allowed, by hash, for whole batches.

One table a list and entity, with linear probing and at most half full; an entry that was taken away stays as one that
is over, for nothing else may move. Times are event times: whether an entry holds is a matter of the event, so that a
replay finds what the worker found.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from engine.events import Batch
from features.jit import inlined, kernel
from features.prefetch import prefetch
from features.words import column_seed, key_hashes

ListName = Literal["block", "allow"]
LISTS: tuple[ListName, ListName] = ("block", "allow")
FOREVER_MS = 2**62
_OVER_MS = -(2**62)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_PLACES_MIN = 1024
NOT_LISTED = -1
_HASH, _UNTIL_MS, _NOTE = range(3)
_ROW_WORDS = 4
# How many events ahead an entry is asked for.
_AHEAD = 8

Int64 = NDArray[np.int64]
UInt64 = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Note:
    """Who put an entity on a list, and why."""

    author: str
    reason: str


@dataclass(slots=True)
class Found:
    """Of n events, which are on a list: `rows` ascend; the list, entity and note of the first that has them each."""

    rows: NDArray[np.intp]
    entities: NDArray[np.int64]
    notes: list[Note]


@dataclass(slots=True)
class ListHits:
    """What the lists say of a batch."""

    block: Found
    allow: Found


class Lists:
    """Both lists for all entities; changes between batches."""

    def __init__(self, entities: tuple[str, ...]) -> None:
        self._entities = entities
        self._tables: dict[tuple[str, int], _Table] = {}
        # Where the control topic was read to when what is here was said.
        self.control_offset = 0

    def __len__(self) -> int:
        return sum(len(table) for table in self._tables.values())

    def put(self, name: ListName, entity: str, keys: list[str], until_ms: int, note: Note) -> None:
        """Puts keys on a list up to an event time; an entity that is not of this feature set is none of ours."""
        if entity in self._entities:
            self._table(name, entity).put(key_hashes(keys, column_seed(entity)), until_ms, note)

    def remove(self, name: ListName, entity: str, keys: list[str]) -> None:
        """Takes keys off a list."""
        if entity in self._entities:
            self._table(name, entity).put(key_hashes(keys, column_seed(entity)), _OVER_MS, _NOBODY)

    def find(self, batch: Batch) -> ListHits | None:
        """Which events of a batch are listed; None where nothing is on any list."""
        if not self._tables:
            return None
        return ListHits(*(self._find(name, batch) for name in LISTS))

    def _find(self, name: str, batch: Batch) -> Found:
        if not any(listed == name for listed, _ in self._tables):
            return Found(np.zeros(0, np.intp), np.zeros(0, np.int64), [])
        rows = np.zeros(len(batch), np.bool_)
        entities = np.zeros(len(batch), np.int64)
        entries = np.zeros(len(batch), np.int64)
        for entity in range(len(self._entities)):
            if (table := self._tables.get((name, entity))) is None:
                continue
            at = table.find(batch.words[:, entity], batch.times_ms)
            new = (at != NOT_LISTED) & ~rows
            if new.any():
                rows |= new
                entities[new], entries[new] = entity, at[new]
        found = np.flatnonzero(rows)
        notes = [
            self._tables[name, entity].note(entry)
            for entity, entry in zip(entities[found].tolist(), entries[found].tolist(), strict=True)
        ]
        return Found(found, entities[found], notes)

    def entity(self, index: int) -> str:
        """The name of an entity."""
        return self._entities[index]

    def _table(self, name: str, entity: str) -> "_Table":
        return self._tables.setdefault((name, self._entities.index(entity)), _Table())


_NOBODY = Note("", "")


class _Table:
    """One list of one entity: a row each for hash (0 where empty), the time it is listed until, and its note."""

    def __init__(self) -> None:
        self._rows = np.zeros((_PLACES_MIN, _ROW_WORDS), np.int64)
        self._used = 0
        self._numbers: dict[Note, int] = {}
        self._notes: list[Note] = []

    def __len__(self) -> int:
        return int(np.count_nonzero((self._rows[:, _HASH] != 0) & (self._rows[:, _UNTIL_MS] != _OVER_MS)))

    def put(self, hashes: UInt64, until_ms: int, note: Note) -> None:
        number = self._numbers.setdefault(note, len(self._notes))
        if number == len(self._notes):
            self._notes.append(note)
        self._make_room(len(hashes))
        self._used += put_listed(hashes, until_ms, number, self._rows)

    def find(self, hashes: UInt64, times_ms: Int64) -> Int64:
        """The number of the note of each that is listed, or NOT_LISTED."""
        found = np.empty(len(hashes), np.int64)
        find_listed(np.ascontiguousarray(hashes), times_ms, self._rows, found)
        return found

    def note(self, number: int) -> Note:
        return self._notes[number]

    def _make_room(self, more: int) -> None:
        """Twice as many places as entries, without those that were taken off; all the same if there is room."""
        if 2 * (self._used + more) <= len(self._rows):
            return
        kept = self._rows[(self._rows[:, _HASH] != 0) & (self._rows[:, _UNTIL_MS] != _OVER_MS)]
        self._used = len(kept)
        places = 1 << (2 * (self._used + more) - 1).bit_length()
        # Half of the new places stay free, so that the next entries do not move all of them again.
        self._rows = np.zeros((2 * places, _ROW_WORDS), np.int64)
        move_listed(kept, self._rows)


@inlined
def _place(hashed: np.uint64, rows: Int64) -> int:
    """Where a hash stands, or would stand."""
    mask = rows.shape[0] - 1
    at = int(np.int64((hashed * _GOLDEN) >> np.uint64(20)) & mask)
    while rows[at, _HASH] != 0 and np.uint64(rows[at, _HASH]) != hashed:
        at = (at + 1) & mask
    return at


@kernel
def put_listed(hashes: UInt64, until_ms: int, note: int, rows: Int64) -> int:
    """Sets the entries of these hashes; returns how many places more are used. There must be room."""
    new = 0
    for hashed in hashes:
        at = _place(hashed, rows)
        new += rows[at, _HASH] == 0
        rows[at, _HASH] = np.int64(hashed)
        rows[at, _UNTIL_MS] = until_ms
        rows[at, _NOTE] = note
    return new


@kernel
def move_listed(entries: Int64, rows: Int64) -> None:
    """Puts whole entries into an empty table."""
    for entry in range(entries.shape[0]):
        at = _place(np.uint64(entries[entry, _HASH]), rows)
        for word in range(_ROW_WORDS):
            rows[at, word] = entries[entry, word]


@kernel
def find_listed(hashes: UInt64, times_ms: Int64, rows: Int64, found: Int64) -> None:
    """Writes the note of each hash that is listed at its time, or NOT_LISTED; 0, an absent key, never is."""
    mask = rows.shape[0] - 1
    for event in range(hashes.shape[0]):
        if event + _AHEAD < hashes.shape[0]:
            prefetch(rows, int(np.int64((hashes[event + _AHEAD] * _GOLDEN) >> np.uint64(20)) & mask))
        at = _place(hashes[event], rows)
        listed = hashes[event] != 0 and rows[at, _HASH] != 0 and times_ms[event] < rows[at, _UNTIL_MS]
        found[event] = rows[at, _NOTE] if listed else NOT_LISTED


def warm_up() -> None:
    """Compiles the kernels, or loads them compiled."""
    table = _Table()
    table.put(np.ones(_PLACES_MIN, np.uint64), FOREVER_MS, _NOBODY)
    table.find(np.ones(1, np.uint64), np.zeros(1, np.int64))
