"""Alarms against a look at all of the past, and what lasts asks for another model."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.control.alarms import Alarm, Alarms, after_look, decode_alarms, encode_alarms, next_alarm
from engine.control.drift import Reading
from engine.control.retraining import asked_for
from engine.control.settings import Retraining

MINUTE_MS = 60_000


def reading(over: bool, signal: str = "psi:card.count.1h") -> Reading:
    return Reading(signal, "10m", 0.5 if over else 0.1, 0.25, over, 5_000)


def slow_raised(looks: list[bool], raise_after: int, clear_after: int) -> bool:
    """From all looks: the last run that was long enough, of either kind, decides."""
    raised = False
    for at in range(len(looks)):
        past = looks[: at + 1]
        if len(past) >= raise_after and all(past[-raise_after:]):
            raised = True
        elif len(past) >= clear_after and not any(past[-clear_after:]):
            raised = False
    return raised


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 4), st.integers(1, 4))
def test_an_alarm_takes_some_looks_to_begin_and_to_end(looks: list[bool], raise_after: int, clear_after: int) -> None:
    """
    over       . x . x x x x . x . . . . . .
    alarm              |-------------------|
    """
    alarm = Alarm()
    for at, over in enumerate(looks, 1):
        alarm = next_alarm(alarm, reading(over), at, raise_after, clear_after)
    assert bool(alarm.raised_at_ms) == slow_raised(looks, raise_after, clear_after)


def test_an_alarm_says_since_when() -> None:
    alarms = Alarms()
    for at, over in enumerate([True, True, True, False], 1):
        alarms = after_look(alarms, "fraud/1", [reading(over)], at, 2, 6)
    assert alarms.raised["psi:card.count.1h@10m"].raised_at_ms == 2
    assert decode_alarms(encode_alarms(alarms)) == alarms


def test_without_a_reading_an_alarm_stays_and_with_another_model_it_goes() -> None:
    alarms = after_look(Alarms(), "fraud/1", [reading(True)], 1, 1, 1)
    alarms = after_look(alarms, "fraud/1", [], 2, 1, 1)
    assert alarms.raised
    assert not after_look(alarms, "fraud/2", [], 3, 1, 1).alarms


def lasting(at_ms: int, signal: str = "psi:card.count.1h@10m") -> Alarms:
    return Alarms(at_ms, "fraud/1", {signal: Alarm(raised_at_ms=MINUTE_MS, value=0.5, limit=0.25, events=10)}, [])


def test_what_lasts_asks_once_in_a_while() -> None:
    settings = Retraining(after="30m", pause="1d")
    assert asked_for(lasting(30 * MINUTE_MS), "tidegate", settings)[1] is None
    alarms, request = asked_for(lasting(31 * MINUTE_MS), "tidegate", settings)
    assert request is not None
    assert request.evidence["psi:card.count.1h@10m"]["value"] == 0.5
    assert request.request_id == f"tidegate-fraud-1-{31 * MINUTE_MS}"
    # The same look again is the same request; the next one, none.
    assert asked_for(lasting(31 * MINUTE_MS), "tidegate", settings)[1] == request
    for minutes, again in [(32, False), (31 + 24 * 60 - 1, False), (31 + 24 * 60, True)]:
        later = Alarms(minutes * MINUTE_MS, "fraud/1", alarms.alarms, alarms.asked)
        assert (asked_for(later, "tidegate", settings)[1] is not None) == again


@pytest.mark.parametrize("signal", ["freshness", "unseen:channel@10m", "field_nulls:channel@10m"])
def test_bad_data_asks_for_no_model(signal: str) -> None:
    assert asked_for(lasting(60 * MINUTE_MS, signal), "tidegate", Retraining())[1] is None


def test_lost_quality_asks_for_one() -> None:
    _, request = asked_for(lasting(60 * MINUTE_MS, "recall"), "tidegate", Retraining())
    assert request is not None
    assert msgspec.json.decode(msgspec.json.encode(request), type=type(request)) == request
