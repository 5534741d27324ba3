"""Progress records: runs that cover the input, numbers without a gap.

commit 1   0: [0, 2)  1: [0, 1)
commit 2   0: [2, 3)
"""

import pytest

from loadtest.chaos.journal import Progress, decode_progress, journal_faults, runs_in_order
from loadtest.errors import LoadTestError

ENDS = {0: 3, 1: 1}


def progress(sequence: int, vector: dict[int, int], *runs: tuple[int, int, int], model: str = "m/1") -> Progress:
    return Progress("app", "in", sequence, vector, list(runs), "s", "f", model, "p/1")


FIRST = progress(1, {0: 2, 1: 1}, (0, 0, 2), (1, 0, 1))
SECOND = progress(2, {0: 3, 1: 1}, (0, 2, 3))


def test_a_good_journal() -> None:
    assert journal_faults([FIRST, SECOND], ENDS) == []
    assert list(runs_in_order([FIRST, SECOND])) == [(0, 0, 2), (1, 0, 1), (0, 2, 3)]
    assert journal_faults([FIRST, progress(2, {0: 2, 1: 1}), progress(3, {0: 3, 1: 1}, (0, 2, 3))], ENDS) == []


@pytest.mark.parametrize(
    ("records", "fault"),
    [
        ([FIRST], "the runs end at {0: 2, 1: 1}"),
        ([SECOND], "goes on at 2, not at 0"),
        ([FIRST, progress(3, {0: 3, 1: 1}, (0, 2, 3))], "commit 3 follows commit 1"),
        ([FIRST, FIRST, SECOND], "commit 1 follows commit 1"),
        ([FIRST, progress(2, {0: 3, 1: 1}, (0, 1, 3))], "goes on at 1, not at 2"),
        ([FIRST, progress(2, {0: 2, 1: 1}, (0, 2, 2)), SECOND], "a run from 2 to 2"),
        ([FIRST, progress(2, {0: 3, 1: 2}, (0, 2, 3))], "is not where the runs end"),
        ([FIRST, progress(2, {0: 3, 1: 1}, (0, 2, 3), model="m/2")], "other versions"),
        ([], "the runs end at {0: 0, 1: 0}"),
    ],
)
def test_a_planted_fault_is_found(records: list[Progress], fault: str) -> None:
    assert any(fault in found for found in journal_faults(records, ENDS))


def test_only_the_first_faults_are_told() -> None:
    assert len(journal_faults([FIRST] * 100, ENDS)) < 20


RECORD = (
    b'{"application_id":"app","input":"in","sequence":1,"vector":{"0":2,"1":1},"runs":[[0,0,2],[1,0,1]],'
    b'"state_fingerprint":"s","feature_set":"f","model":"m/1","policy":"p/1","schema":"tidegate.progress.v1"}'
)


def test_a_record_is_read_as_it_is_written() -> None:
    assert decode_progress(RECORD) == FIRST


@pytest.mark.parametrize("value", [RECORD[:-1], RECORD.replace(b"runs", b"ruins"), None])
def test_what_is_no_progress_record_is_refused(value: bytes | None) -> None:
    with pytest.raises(LoadTestError, match="cannot be read"):
        decode_progress(value)
