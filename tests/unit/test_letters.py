"""The topic of dead letters: letters, marks, which attempt a record is, and what is sent again or left, and why."""

from typing import Any

import pytest

from engine.dlq_plan import Left, Plan, Request, plan
from engine.letters import Filter, Ledger, Letter, Mark, Sent, Survey, count, read_letter, read_mark

HEADERS = {
    "tidegate.reason": b"amount_invalid",
    "tidegate.error": b"amount: must be a decimal number",
    "tidegate.topic": b"transactions",
    "tidegate.partition": b"3",
    "tidegate.offset": b"1048576",
}
MARK_HEADERS = {"tidegate.schema": b"tidegate.dlq-replay.v1"}


def letter(offset: int = 0, **changes: Any) -> Letter:
    """One of partition 0, written at its offset in ms, of a record in partition 5 of the input."""
    fields = {
        "partition": 0,
        "offset": offset,
        "time_ms": offset,
        "reason": "malformed_json",
        "error": "not JSON",
        "topic": "transactions",
        "source_partition": 5,
        "source_offset": 100 + offset,
        "value_bytes": 10,
    }
    return Letter(**(fields | changes))


# --- reading -----------------------------------------------------------------------------------------------------


def test_a_letter_is_what_its_headers_say() -> None:
    error = "amount: must be a decimal number"
    assert read_letter(1, 7, 1_000, 12, HEADERS) == Letter(
        1, 7, 1_000, "amount_invalid", error, "transactions", 3, 1_048_576, 12
    )
    more = {**HEADERS, "tidegate.timestamp": b"900", "tidegate.cut_from_bytes": b"9000000"}
    found = read_letter(1, 7, 1_000, 12, more)
    assert found is not None
    assert (found.record_time_ms, found.cut_from_bytes, found.place) == (900, 9_000_000, (1, 7))
    assert found.source == ("transactions", 3, 1_048_576)


@pytest.mark.parametrize("missing", HEADERS)
def test_a_record_without_one_of_them_is_no_letter(missing: str) -> None:
    assert read_letter(0, 0, 0, 0, {name: value for name, value in HEADERS.items() if name != missing}) is None


@pytest.mark.parametrize(
    "wrong", [{"tidegate.offset": b"x"}, {"tidegate.reason": b"\xff"}, {"tidegate.timestamp": b""}]
)
def test_a_record_with_other_headers_is_no_letter(wrong: dict[str, bytes]) -> None:
    assert read_letter(0, 0, 0, 0, HEADERS | wrong) is None


def test_a_letter_is_sent_with_the_time_of_its_record_or_else_its_own() -> None:
    assert letter(8).sent_time_ms == 8
    assert letter(8, record_time_ms=3).sent_time_ms == 3


def test_a_mark_is_read_as_it_was_written() -> None:
    mark = Mark("transactions", [Sent(4, 1, 99, 2), Sent(6, 0, 7, 3)])
    assert mark.encode() == (
        b'{"to":"transactions","letters":[[4,1,99,2],[6,0,7,3]],"schema":"tidegate.dlq-replay.v1"}'
    )
    assert read_mark(mark.encode(), MARK_HEADERS) == mark


def test_what_only_looks_like_a_mark_is_none() -> None:
    """A letter's value is what anybody sent."""
    mark = Mark("transactions", [Sent(4, 1, 99, 2)]).encode()
    assert read_mark(mark, HEADERS) is None
    assert read_mark(mark, {"tidegate.schema": b"tidegate.dlq-replay.v2"}) is None
    assert read_mark(b"{}", MARK_HEADERS) is None


# --- the ledger --------------------------------------------------------------------------------------------------


def test_the_ledger_knows_where_letters_went_and_what_came_of_them() -> None:
    """Letter 0 was sent as offset 50 of partition 2, which was refused again, as letter 9."""
    ledger = Ledger()
    ledger.note(0, Mark("transactions", [Sent(0, 2, 50, 2)]))
    ledger.note(0, Mark("staging", [Sent(0, 0, 1, 2)]))
    ledger.note(0, Mark("transactions", [Sent(0, 2, 50, 2)]))
    again = letter(9, source_partition=2, source_offset=50)
    assert list(ledger.sent_to(letter(0))) == ["transactions", "staging"]
    assert list(ledger.sent_to(again)) == []
    assert [ledger.attempt(found) for found in (letter(0), again)] == [1, 2]
    assert list(ledger.sent_to(letter(0, partition=1))) == []
    assert ledger.attempt(letter(0, topic="staging", source_partition=2, source_offset=50)) == 1


def test_attempts_are_counted_where_the_first_marks_are_gone() -> None:
    ledger = Ledger()
    ledger.note(0, Mark("transactions", [Sent(9, 2, 60, 3)]))
    assert ledger.attempt(letter(12, source_partition=2, source_offset=60)) == 3


# --- filters and counts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "offsets"),
    [
        (Filter(), [0, 1, 2, 3]),
        (Filter(reasons=frozenset({"oversize"})), [1]),
        (Filter(partitions=frozenset({6, 7})), [2]),
        (Filter(since_ms=1), [1, 2, 3]),
        (Filter(until_ms=2), [0, 1]),
        (Filter(since_ms=1, until_ms=3), [1, 2]),
        (Filter(value_bytes_max=10), [0, 1, 2]),
        (Filter(reasons=frozenset({"malformed_json"}), value_bytes_max=10), [0, 2]),
    ],
)
def test_a_filter_admits_what_meets_all_of_it(wanted: Filter, offsets: list[int]) -> None:
    letters = [letter(0), letter(1, reason="oversize"), letter(2, source_partition=6), letter(3, value_bytes=11)]
    assert [found.offset for found in letters if wanted.admits(found)] == offsets


def test_letters_are_counted_by_reason() -> None:
    survey = Survey([letter(0), letter(1, reason="oversize", cut_from_bytes=5_000_000), letter(2), letter(3)])
    survey.ledger.note(0, Mark("transactions", [Sent(0, 5, 102, 2)]))
    found = [
        (of.reason, of.letters, of.replayed, of.failed_again, of.cut, of.first_ms, of.last_ms) for of in count(survey)
    ]
    assert found == [("malformed_json", 3, 1, 1, 0, 0, 3), ("oversize", 1, 0, 0, 1, 1, 1)]


# --- what is sent ------------------------------------------------------------------------------------------------


def planned(*letters: Letter, ledger: Ledger | None = None, **request: Any) -> tuple[list[int], dict[Left, int]]:
    found: Plan = plan(letters, ledger or Ledger(), Request(**request), {"transactions": 5})
    return [chosen.offset for chosen in found.letters], dict(found.left)


def test_letters_that_were_replayed_are_left_for_that_topic_alone() -> None:
    ledger = Ledger()
    ledger.note(0, Mark("transactions", [Sent(7, 0, 0, 2)]))
    assert planned(letter(7), letter(8), ledger=ledger) == ([8], {Left.REPLAYED: 1})
    assert planned(letter(7), letter(8), ledger=ledger, to="staging") == ([7, 8], {})


def test_letters_that_were_cut_are_left() -> None:
    assert planned(letter(7, cut_from_bytes=5_000_000), letter(8)) == ([8], {Left.CUT: 1})


def test_what_failed_again_is_left_until_asked_for() -> None:
    """So that a replay at a fixed hour does not send the same record every day."""
    ledger = Ledger()
    ledger.note(0, Mark("transactions", [Sent(0, 5, 107, 2), Sent(1, 5, 108, 3)]))
    assert planned(letter(7), letter(8), letter(9), ledger=ledger) == ([9], {Left.ATTEMPTED: 2})
    assert planned(letter(7), letter(8), ledger=ledger, attempts_max=2) == ([7], {Left.ATTEMPTED: 1})
    assert planned(letter(7), letter(8), ledger=ledger, attempts_max=3) == ([7, 8], {})


def test_what_the_topic_would_not_keep_is_left_unless_it_gets_a_new_time() -> None:
    assert planned(letter(4), letter(5), letter(6, record_time_ms=4)) == ([5], {Left.EXPIRED: 2})
    assert planned(letter(4), to="staging") == ([4], {})
    assert planned(letter(4), letter(5), new_timestamps=True) == ([4, 5], {})


def test_a_limit_takes_the_first_that_can_be_sent() -> None:
    letters = [letter(4), letter(5), letter(6, cut_from_bytes=1), letter(7), letter(8)]
    assert planned(*letters, limit=2) == ([5, 7], {Left.EXPIRED: 1, Left.CUT: 1, Left.LIMITED: 1})
