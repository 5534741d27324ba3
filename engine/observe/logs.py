"""Structured logs: one JSON object a line for machines, or plain lines for people. Key values never appear whole."""

import logging
import re
import sys
from typing import Any

import orjson

from engine.config import Observe

OF_A_CLIENT = re.compile(r"rdkafka#|^kafka client: ")
# Which client of ours it was, how long after what, and how often before.
CHANGING = re.compile(r"rdkafka#\w+-\d+|\(after .*")
REPEATED_AFTER_S = 30.0
LINES_KEPT_MAX = 1_000

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


def masked(key: str) -> str:
    """A key field as people may see it: all but the last four characters hidden.

    >>> masked("4111111111111111")
    '************1111'
    """
    return "*" * (len(key) - 4) + key[-4:] if len(key) > 4 else "*" * len(key)


class JsonFormatter(logging.Formatter):
    """`{"time","level","logger","message",...}` with whatever was passed as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        fields: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_extra(record),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(fields, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


class ConsoleFormatter(logging.Formatter):
    """`time level message key=value ...`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        extra = "".join(f" {key}={value}" for key, value in _extra(record).items())
        line = f"{self.formatTime(record, '%H:%M:%S')} {record.levelname.lower():7} {record.getMessage()}{extra}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


class Seldom(logging.Filter):
    """Of lines of Kafka clients that say the same, lets one pass in half a minute: in an outage they go on and on.

    The next one that passes says how many did not, as `suppressed`.
    """

    def __init__(self) -> None:
        super().__init__()
        # Per line: when it passed last, and how many have not since.
        self._passed: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it passes."""
        message = record.getMessage()
        if not OF_A_CLIENT.search(message):
            return True
        said = CHANGING.sub("", message)
        at, suppressed = self._passed.get(said, (-REPEATED_AFTER_S, 0))
        if record.created - at < REPEATED_AFTER_S:
            self._passed[said] = at, suppressed + 1
            return False
        if len(self._passed) >= LINES_KEPT_MAX:
            self._passed.clear()
        self._passed[said] = record.created, 0
        if suppressed:
            record.suppressed = suppressed
        return True


def set_up_logs(settings: Observe) -> None:
    """Sends the program's logs to standard error in the configured form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else ConsoleFormatter())
    handler.addFilter(Seldom())
    root = logging.getLogger("tidegate")
    root.handlers = [handler]
    root.propagate = False
    root.setLevel(settings.log_level.upper())
