"""An alias remembers what it stood for, so that a rollback needs nothing else."""

import msgspec
import pytest

from models.assignment import (
    EARLIER_MAX,
    Assignment,
    canary_of,
    deciding_canary,
    ended,
    later_than,
    newest,
    promoted,
    rolled_back,
)
from models.errors import ModelError


def after(*versions: int) -> Assignment:
    assignment = None
    for version in versions:
        assignment = promoted(assignment, version, "tests", "test")
    assert assignment is not None
    return assignment


def test_rollbacks_go_back_step_by_step() -> None:
    found = after(5, 6, 7)
    assert (found.version, found.earlier) == (7, [5, 6])
    for version, earlier in ((6, [5]), (5, [])):
        found = rolled_back(found, "tests", "test")
        assert (found.version, found.earlier, found.action) == (version, earlier, "rollback")
    with pytest.raises(ModelError, match="no version before"):
        rolled_back(found, "tests", "test")
    with pytest.raises(ModelError, match="no version before"):
        rolled_back(None, "tests", "test")


def test_what_was_rolled_back_is_not_gone_back_to() -> None:
    found = promoted(rolled_back(after(5, 6), "tests", "test"), 7, "tests", "test")
    assert (found.version, found.earlier) == (7, [5])


def test_the_past_is_bounded() -> None:
    found = after(*range(1, 2 * EARLIER_MAX))
    assert len(found.earlier) == EARLIER_MAX
    assert found.earlier[-1] == found.version - 1


def test_a_later_command_is_later_whatever_the_clock_says(monkeypatch: pytest.MonkeyPatch) -> None:
    first = after(1)
    monkeypatch.setattr("models.assignment.time.time_ns", lambda: 0)
    second = promoted(first, 2, "tests", "test")
    assert newest(first, None, second) == second
    assert newest(None) is None


def test_a_canary_decides_until_it_is_ended_or_the_champion_is_said_anew() -> None:
    champion = after(1)
    found = later_than(canary_of(None, 2, 0.1, "tests", "test"), champion)
    assert (found.version, found.share, found.earlier) == (2, 0.1, [])
    assert deciding_canary(found, champion) == found
    assert deciding_canary(found, None) == found
    assert deciding_canary(None, champion) is None
    over = ended(found, "tests", "test")
    assert deciding_canary(over, champion) is None
    assert deciding_canary(found, later_than(promoted(champion, 3, "tests", "test"), found)) is None
    assert deciding_canary(canary_of(over, 4, 0.2, "tests", "test"), champion) is not None
    for before in (None, over):
        with pytest.raises(ModelError, match="none to end"):
            ended(before, "tests", "test")


def test_a_command_is_later_than_those_of_other_clocks() -> None:
    ahead = msgspec.structs.replace(after(1), at_ms=1 << 50)
    found = later_than(canary_of(None, 2, 0.1, "tests", "test"), None, ahead)
    assert newest(found, ahead) == found


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, float("nan")])
def test_a_share_lies_between_none_and_all(share: float) -> None:
    with pytest.raises(ValueError, match="share"):
        canary_of(None, 2, share, "tests", "test")


def test_what_no_canary_needs_is_not_written() -> None:
    assert b"share" not in msgspec.json.encode(after(1))
    found = ended(canary_of(None, 2, 0.25, "tests", "test"), "tests", "test")
    assert msgspec.json.decode(msgspec.json.encode(found), type=Assignment) == found
