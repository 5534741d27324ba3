"""An alias remembers what it stood for, so that a rollback needs nothing else."""

import pytest

from models.assignment import EARLIER_MAX, Assignment, newest, promoted, rolled_back
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
