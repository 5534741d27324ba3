"""What became known about events later: fraud or not, by event id, as it stood at one moment.

A label counts only if it was known at the as-of time; of several for one event the newest of those counts:

    labelled_at      t1: 0        t2: 1            t3: 0
                        |            |      |         |
    as of                                   T                  label 1
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.errors import ConfigError
from engine.events import Bool, Int64, UInt64
from engine.sources import Progress, read_records, row_time_ms
from features.words import key_hashes

BATCH_LABELS = 16_384
# As milliseconds this is March 1973: whoever writes less means seconds, and every label would seem to be known.
LABELLED_AT_MS_MIN = 10**11

Int8 = NDArray[np.int8]
_Columns = tuple[UInt64, Int8, Int64]
_LABELS = {"0": 0, "1": 1, "false": 0, "true": 1}


class _Row(msgspec.Struct, gc=False):
    event_id: str | int
    labelled_at: int | float | str | None = None
    label: bool | int | float | str | None = None


class Labels:
    """The labels that were known at one moment: 17 bytes each, sorted by the hash of the event id.

    `read`: how many there were in the file; `later`: how many of them were given after that moment.
    """

    def __init__(self, as_of_ms: int) -> None:
        self.as_of_ms = as_of_ms
        self.read = self.later = 0
        self._hashes = np.zeros(0, np.uint64)
        self._labels = np.zeros(0, np.int8)
        self._times_ms = np.zeros(0, np.int64)

    def take(self, rows: Iterator[_Columns]) -> None:
        """Takes event id hashes, labels and the times they were given, in the order of the file."""
        known: list[_Columns] = [(self._hashes, self._labels, self._times_ms)]
        for columns in rows:
            in_time = columns[2] <= self.as_of_ms
            known.append((columns[0][in_time], columns[1][in_time], columns[2][in_time]))
            self.read += len(in_time)
            self.later += int(np.count_nonzero(~in_time))
        hashes, labels, times_ms = (np.concatenate(column) for column in zip(*known, strict=True))
        known.clear()
        # Stable: of two that were given at once, the later row counts.
        order = np.lexsort((times_ms, hashes))
        hashes = hashes[order]
        newest = np.append(hashes[1:] != hashes[:-1], np.ones(min(len(hashes), 1), np.bool_))
        self._hashes, self._labels, self._times_ms = hashes[newest], labels[order[newest]], times_ms[order[newest]]

    def __len__(self) -> int:
        return len(self._hashes)

    def of(self, event_id_hashes: UInt64) -> tuple[Int8, Int64, Bool]:
        """Of each event: its label, when that was given, and whether there is one at all."""
        if not len(self._hashes):
            nothing = np.zeros(len(event_id_hashes), np.int64)
            return nothing.astype(np.int8), nothing, nothing.astype(np.bool_)
        places = np.minimum(np.searchsorted(self._hashes, event_id_hashes), len(self._hashes) - 1)
        return self._labels[places], self._times_ms[places], self._hashes[places] == event_id_hashes


def read_labels(
    path: Path,
    as_of_ms: int,
    progress: Progress | None = None,
    advance: Callable[[int], None] = lambda labels: None,
) -> Labels:
    """Reads `event_id`, `label` (0, 1, false, true) and `labelled_at` (ms or ISO 8601) from CSV, JSON Lines or Parquet.

    A row without a label says nothing. `advance` is called with the number of rows so far. Raises ConfigError where a
    row cannot be read.
    """
    labels = Labels(as_of_ms)
    labels.take(_rows(path, progress, advance))
    return labels


def _rows(path: Path, progress: Progress | None, advance: Callable[[int], None]) -> Iterator[_Columns]:
    decode = msgspec.json.Decoder(_Row).decode
    for records in read_records([path], BATCH_LABELS, progress):
        ids, labels, times_ms = [], [], []
        for at, value in zip(records.offsets.tolist(), records.values, strict=True):
            try:
                row = decode(value or b"")
                if row.label is None or row.label == "":
                    continue
                labels.append(label_value(row.label))
                times_ms.append(labelled_at_ms(row.labelled_at))
            except (ValueError, msgspec.DecodeError) as error:
                raise ConfigError(f"{path}: row {at + 1}: {error}") from error
            ids.append(str(row.event_id))
        yield key_hashes(ids, 0), np.array(labels, np.int8), np.array(times_ms, np.int64)
        advance(int(records.offsets[-1]) + 1)


def label_value(written: bool | int | float | str) -> int:
    """0 or 1; ValueError where it is written as nothing of that."""
    label = _LABELS.get(written.lower()) if isinstance(written, str) else written
    if label not in (0, 1):
        raise ValueError(f"label {written!r} must be 0, 1, false or true")
    return int(label)


def labelled_at_ms(written: int | float | str | None) -> int:
    """In milliseconds since 1970; ValueError where it is not said, or in seconds."""
    if written is None:
        raise ValueError("labelled_at is missing: nobody knows when the label was known")
    time_ms = row_time_ms(written)
    if time_ms < LABELLED_AT_MS_MIN:
        raise ValueError(f"labelled_at {written!r} must be in milliseconds since 1970, or ISO 8601")
    return time_ms
