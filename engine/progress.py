"""The `progress` topic: one record for each commit, that says in which order the partitions were interleaved.

runs     [[0, 100, 120], [2, 7, 9], [0, 120, 131]]      partition, from, to: offsets [from, to), in acceptance order
vector   {0: 131, 1: 55, 2: 9}                          what is read next, of every partition, once all of it is done
refused  [[0, 118, 119]]                                what of the runs became dead letters, and is none of the state
model    "fraud/7"                                      who decided
canary   "fraud/8"                                      who decided some of it beside that one; empty where none did
policy   "cards/3"                                      by which rules and thresholds
control  117                                            with which lists: those that the control topic made before this

What was refused stays so, even for whoever reads it under rules that would take it: it was not decided, and may come
again by a replay of dead letters, which then is no duplicate.

Whoever takes the input in this order has the state that the worker had, so it is what replays, standbys and checkers
read. `sequence` counts an application's commits. At least once, several records may have one number: a worker may end
between this record and the commit of its offsets, or stand still before it and write it when a successor has committed
its own. Only one of them is what the next one goes on from, or what the committed offsets say.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec
import numpy as np

from engine.errors import FatalError
from engine.events import DeadLetter, Records

SCHEMA = "tidegate.progress.v1"

Run = tuple[int, int, int]


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """One commit."""

    application_id: str
    input: str
    sequence: int
    vector: dict[int, int]
    runs: list[Run]
    refused: list[Run] = []
    state_fingerprint: str
    feature_set: str
    model: str
    canary: str = ""
    policy: str
    control: int = 0
    schema: str = SCHEMA


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Progress)


def encode_progress(progress: Progress) -> bytes:
    """The value of a record."""
    return _encoder.encode(progress)


def decode_progress(value: bytes, offset: int) -> Progress:
    """Reads a record; FatalError where it is none that this version knows."""
    try:
        progress = _decoder.decode(value)
    except msgspec.DecodeError as error:
        raise FatalError(f"the progress record at offset {offset} cannot be read: {error}") from error
    if progress.schema != SCHEMA:
        raise FatalError(f"the progress record at offset {offset} is {progress.schema!r}, not {SCHEMA!r}")
    return progress


def runs_of(records: Records) -> list[Run]:
    """The runs of one poll: neighbours of one partition, whose offsets ascend."""
    if not len(records):
        return []
    starts = np.flatnonzero(np.diff(records.partitions, prepend=records.partitions[0] - 1))
    ends = np.append(starts[1:], len(records))
    return list(
        zip(
            records.partitions[starts].tolist(),
            records.offsets[starts].tolist(),
            (records.offsets[ends - 1] + 1).tolist(),
            strict=True,
        )
    )


def refused_of(letters: Iterable[DeadLetter]) -> list[Run]:
    """The places of dead letters as runs."""
    found: list[Run] = []
    for letter in letters:
        partition, offset = letter.partition, letter.offset
        if found and found[-1][0] == partition and found[-1][2] == offset:
            found[-1] = (partition, found[-1][1], offset + 1)
        else:
            found.append((partition, offset, offset + 1))
    return found


def joined(runs: Iterable[Run]) -> list[Run]:
    """The same runs, those of one partition that follow one another made one."""
    found: list[Run] = []
    for partition, start, to in runs:
        if found and found[-1][0] == partition:
            found[-1] = (partition, found[-1][1], to)
        else:
            found.append((partition, start, to))
    return found


def beginning(record: Progress) -> dict[int, int]:
    """The vector before it."""
    return record.vector | {partition: start for partition, start, _ in reversed(record.runs)}


def held(candidates: Sequence[Progress], place: Mapping[int, int]) -> Progress:
    """Of records that have one number, the one that was committed, if the input went on at `place` after it.

    Where none ends there, offsets were set from outside: then the newest.
    """
    ended = (record for record in reversed(candidates) if record.vector.items() <= place.items())
    return next(ended, candidates[-1])
