"""Logs: one JSON object a line whatever is in it, and keys masked."""

import logging
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import Observe
from engine.observe.logs import REPEATED_AFTER_S, ConsoleFormatter, JsonFormatter, Seldom, masked, set_up_logs

LEVELS = ("debug", "info", "warning", "error")


def record_of(message: str, *args: object, level: int = logging.INFO, **extra: Any) -> logging.LogRecord:
    return logging.getLogger("tidegate.test").makeRecord(
        "tidegate.test", level, "file.py", 1, message, args, None, extra=extra
    )


def failed(message: str) -> logging.LogRecord:
    """A record with the traceback of a ValueError."""
    record = record_of("went wrong", level=logging.ERROR)
    try:
        raise ValueError(message)
    except ValueError:
        record.exc_info = sys.exc_info()
    return record


# --- masking ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "shown"),
    [("4111111111111111", "************1111"), ("12345", "*2345"), ("1234", "****"), ("1", "*"), ("", "")],
)
def test_a_key_shows_its_last_four_and_never_all_of_itself(key: str, shown: str) -> None:
    assert masked(key) == shown


@given(st.text(max_size=30))
def test_masking_keeps_the_length_and_hides_at_least_half_of_eight(key) -> None:
    shown = masked(key)
    assert len(shown) == len(key)
    assert shown[: max(len(key) - 4, 0)].strip("*") == ""
    assert len(key) > 4 or set(shown) <= {"*"}


# --- JSON ------------------------------------------------------------------------------------------------------


def test_a_line_says_when_who_and_what() -> None:
    record = record_of("replaying %d", 5, level=logging.WARNING, events=7, topic="in")
    record.created, record.msecs = 1_735_689_600.25, 250.0
    fields = orjson.loads(JsonFormatter().format(record))
    assert fields.pop("time").endswith(":00.250")
    assert fields == {
        "level": "warning",
        "logger": "tidegate.test",
        "message": "replaying 5",
        "events": 7,
        "topic": "in",
    }


@given(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8")))
def test_whatever_is_said_stands_on_one_line(message, value) -> None:
    line = JsonFormatter().format(record_of("%s", message, detail=value))
    assert "\n" not in line
    assert "\r" not in line
    assert orjson.loads(line)["message"] == message
    assert orjson.loads(line)["detail"] == value


def test_values_of_any_type_become_json() -> None:
    fields = orjson.loads(JsonFormatter().format(record_of("x", number=np.int64(3), error=ValueError("bad"))))
    assert (str(fields["number"]), fields["error"]) == ("3", "bad")


def test_an_offset_vector_becomes_json() -> None:
    fields = orjson.loads(JsonFormatter().format(record_of("x", vector={0: 12, 11: 5})))
    assert fields["vector"] == {"0": 12, "11": 5}


def test_a_traceback_is_part_of_the_line() -> None:
    line = JsonFormatter().format(failed("no such thing"))
    assert "\n" not in line
    assert "ValueError: no such thing" in orjson.loads(line)["traceback"]


# --- for people ------------------------------------------------------------------------------------------------


def test_a_plain_line_has_its_extras_behind() -> None:
    line = ConsoleFormatter().format(record_of("active", partitions=3))
    assert line.endswith(" info    active partitions=3")
    assert line.count("\n") == 0


def test_a_plain_traceback_follows_its_line() -> None:
    lines = ConsoleFormatter().format(failed("no such thing")).splitlines()
    assert lines[0].endswith(" error   went wrong")
    assert lines[-1] == "ValueError: no such thing"


# --- set-up ----------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def loggers_as_before() -> Iterator[None]:
    root = logging.getLogger("tidegate")
    before = (root.handlers, root.propagate, root.level)
    yield
    root.handlers, root.propagate = before[:2]
    root.setLevel(before[2])


@pytest.mark.parametrize("level", LEVELS)
def test_only_what_is_loud_enough_is_said(capsys: pytest.CaptureFixture[str], level: str) -> None:
    set_up_logs(Observe(log_level=level, log_format="json"))
    for name in LEVELS:
        logging.getLogger("tidegate.any").log(getattr(logging, name.upper()), name)
    said = [orjson.loads(line)["message"] for line in capsys.readouterr().err.splitlines()]
    assert said == list(LEVELS[LEVELS.index(level) :])


def test_setting_up_twice_says_everything_once(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logs(Observe(log_format="json"))
    set_up_logs(Observe(log_format="console"))
    logging.getLogger("tidegate.any").info("once")
    assert [line.endswith(" info    once") for line in capsys.readouterr().err.splitlines()] == [True]


def test_other_libraries_loggers_are_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    before = logging.getLogger().handlers[:]
    set_up_logs(Observe())
    assert logging.getLogger().handlers == before
    logging.getLogger("another.library").debug("not ours")
    assert capsys.readouterr().err == ""


# --- what repeats ----------------------------------------------------------------------------------------------


def test_what_a_client_repeats_is_said_seldom_and_counted() -> None:
    seldom, passed = Seldom(), []
    for tenth in range(round(REPEATED_AFTER_S * 20) + 1):
        record = record_of("FAIL [rdkafka#consumer-%d] [thrd:a]: refused (after %dms in state CONNECT)", tenth, tenth)
        record.created = tenth / 10
        if seldom.filter(record):
            passed.append((record.created, getattr(record, "suppressed", 0)))
    assert passed == [(0.0, 0), (30.0, 299), (60.0, 299)]


@pytest.mark.parametrize("message", ["FAIL [rdkafka#producer-1] [thrd:b]: refused", "a Kafka broker answers again"])
def test_other_lines_pass(message: str) -> None:
    seldom = Seldom()
    assert seldom.filter(record_of("FAIL [rdkafka#producer-1] [thrd:a]: refused"))
    assert seldom.filter(record_of(message))


def test_our_own_lines_pass_every_time() -> None:
    seldom = Seldom()
    assert all(seldom.filter(record_of("active")) for _ in range(3))
