"""Cases against a grouping of all alerts at once, whatever comes twice."""

from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.control.cases import decode_cases, group_of
from engine.control.desk import Desk
from engine.control.records import Alert, CaseSaid
from engine.control.settings import Cases
from tests.control.world import NOW_MS, alert

HOUR_MS = 3_600_000
SETTINGS = Cases(window="24h")


def slow_cases(alerts: list[Alert], window_ms: int) -> list[set[str]]:
    """Of alerts that came in the order of time: cut where nothing came for so long."""
    found: list[list[Alert]] = []
    for one in sorted(alerts, key=lambda one: one.event_time):
        if found and one.event_time - found[-1][-1].event_time < window_ms:
            found[-1].append(one)
        else:
            found.append([one])
    return [{one.alert_id for one in case} for case in found]


def members(table: dict[bytes, bytes]) -> list[set[str]]:
    return [{member.alert_id for member in case.members} for value in table.values() for case in decode_cases(value)]


@given(st.lists(st.integers(0, 100), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_alerts_that_are_close_are_one_case(hours: list[int], random: Random) -> None:
    """
    alerts    a  a a      a                a   a
    cases     |-----------|                |---|
    """
    alerts = [alert(number, after_ms=hour * HOUR_MS) for number, hour in enumerate(sorted(hours))]
    table: dict[bytes, bytes] = {}
    desk = Desk(SETTINGS, table)
    for at, one in enumerate(alerts):
        desk.take_alert(one)
        # As after a crash: some are read again.
        for again in random.sample(alerts[: at + 1], k=min(2, at + 1)):
            desk.take_alert(again)
    assert members(table) == slow_cases(alerts, 24 * HOUR_MS)
    assert sum(record.alerts for record in desk.standing.values()) == len(alerts)
    assert sum(record.exposure_minor for record in desk.standing.values()) == 500 * len(alerts)


def test_entities_and_typologies_are_cases_of_their_own() -> None:
    desk = Desk(SETTINGS, {})
    for number, (value, typology) in enumerate([("1", "a"), ("2", "a"), ("1", "b"), ("1", "a")]):
        desk.take_alert(alert(number, value, typology=typology))
    desk.take_alert(msgspec.structs.replace(alert(9), group_key=None))
    assert sorted(record.alerts for record in desk.standing.values()) == [1, 1, 1, 2]
    assert "4111" not in group_of(alert(1, "4111"))


def test_the_outcome_labels_every_event_of_the_case() -> None:
    desk = Desk(SETTINGS, {})
    (case_id,) = {desk.take_alert(alert(number)).case_id for number in range(3)}
    reviewed, none = desk.take_said(CaseSaid(case_id=case_id, status="in_review", author="ana", said_at_ms=NOW_MS))
    assert reviewed is not None
    assert (reviewed.status, none) == ("in_review", [])
    closing = CaseSaid(case_id=case_id, status="closed", outcome="fraud", author="bo", said_at_ms=NOW_MS + 1)
    closed, labels = desk.take_said(closing)
    assert closed is not None
    assert (closed.outcome, desk.counts()) == ("fraud", {"fraud": 1})
    assert [(one.event_id, one.label, one.labelled_at) for one in labels] == [
        (f"event-{number}", 1, NOW_MS + 1) for number in range(3)
    ]
    # Read again, it says the same again; what was said before it, nothing.
    assert desk.take_said(closing) == (closed, labels)
    stale = CaseSaid(case_id=case_id, status="in_review", author="ana", said_at_ms=NOW_MS)
    assert desk.take_said(stale) == (closed, [])


def test_what_comes_after_a_case_is_closed_is_another_case() -> None:
    desk = Desk(SETTINGS, {})
    first = desk.take_alert(alert(1)).case_id
    desk.take_said(CaseSaid(case_id=first, status="closed", outcome="genuine", author="ana", said_at_ms=NOW_MS))
    assert desk.take_alert(alert(2)).case_id != first
    assert desk.take_alert(alert(1)).case_id == first


def test_a_full_case_is_followed_by_another() -> None:
    desk = Desk(Cases(alerts_max=2), {})
    assert len({desk.take_alert(alert(number)).case_id for number in range(5)}) == 3


def test_nothing_is_said_of_a_case_that_nobody_knows() -> None:
    said = CaseSaid(case_id="0-0", status="in_review", author="ana", said_at_ms=NOW_MS)
    assert Desk(SETTINGS, {}).take_said(said) == (None, [])


@pytest.mark.parametrize(("status", "outcome"), [("closed", None), ("open", "fraud")])
def test_an_outcome_is_of_a_closed_case(status: str, outcome: str | None) -> None:
    value = msgspec.json.encode(
        {"schema": "tidegate.case-status.v1", "case_id": "1-1", "status": status, "outcome": outcome}
        | {"author": "ana", "said_at_ms": 1}
    )
    with pytest.raises(msgspec.ValidationError, match="outcome"):
        msgspec.json.decode(value, type=CaseSaid)


def test_old_cases_are_forgotten() -> None:
    table: dict[bytes, bytes] = {}
    desk = Desk(SETTINGS, table)
    case_id = desk.take_alert(alert(1)).case_id
    (group,) = desk.over(NOW_MS + 1)
    assert desk.over(NOW_MS) == []
    assert desk.forget(group, NOW_MS) == []
    assert desk.forget(group, NOW_MS + 1) == [case_id]
    assert not table
    assert not desk.standing


@pytest.mark.parametrize("apart_hours", [1, 30])
def test_a_rebuilt_desk_is_as_before(apart_hours: int) -> None:
    """Also where a group has had more cases than are remembered."""
    table: dict[bytes, bytes] = {}
    desk = Desk(SETTINGS, table)
    for number in range(40):
        desk.take_alert(alert(number, str(number % 3), after_ms=number * apart_hours * HOUR_MS))
    again = Desk(SETTINGS, table)
    again.rebuild(table.items())
    assert again.standing == desk.standing
