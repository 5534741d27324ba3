"""The `progress` records, judged: every offset of the input in exactly one run, commits numbered without a gap."""

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from loadtest.errors import LoadTestError

FAULTS_MAX = 10

Run = tuple[int, int, int]


class Progress(msgspec.Struct):
    """What is read of a record: `runs` of (partition, from, to) in acceptance order, `vector` as it is after them."""

    application_id: str
    input: str
    sequence: int
    vector: dict[int, int]
    runs: list[Run]
    state_fingerprint: str
    feature_set: str
    model: str
    policy: str


def decode_progress(value: bytes | None) -> Progress:
    """Reads a record; LoadTestError where it is none."""
    try:
        return msgspec.json.decode(value or b"", type=Progress)
    except msgspec.DecodeError as error:
        raise LoadTestError(f"a progress record cannot be read: {error}") from error


def runs_in_order(records: Iterable[Progress]) -> Iterator[Run]:
    """All runs, in the order in which the input was taken."""
    for record in records:
        yield from record.runs


def journal_faults(records: Iterable[Progress], ends: Mapping[int, int]) -> list[str]:
    """What is wrong, a line each; no more than the first few."""
    faults: list[str] = []
    position = dict.fromkeys(ends, 0)
    before: Progress | None = None
    for record in records:
        where = f"commit {record.sequence}"
        if before is not None and record.sequence != before.sequence + 1:
            faults.append(f"{where} follows commit {before.sequence}")
        if before is not None and _versions(record) != _versions(before):
            faults.append(f"{where} is of other versions than the one before: {_versions(record)}")
        for partition, start, to in record.runs:
            at = position.get(partition, 0)
            if start != at:
                faults.append(f"{where}: partition {partition} goes on at {start}, not at {at}")
            if to <= start:
                faults.append(f"{where}: partition {partition} has a run from {start} to {to}")
            position[partition] = to
        if record.vector != position:
            faults.append(f"{where}: the vector {record.vector} is not where the runs end, {position}")
        before = record
        if len(faults) >= FAULTS_MAX:
            return faults
    if position != dict(ends):
        faults.append(f"the runs end at {position}, the input at {dict(ends)}")
    return faults


def _versions(record: Progress) -> tuple[str, ...]:
    return (
        record.application_id,
        record.input,
        record.state_fingerprint,
        record.feature_set,
        record.model,
        record.policy,
    )
