"""Durations as people write them: `90s`, `10m`, `24h`, `7d`."""

import re

_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"(\d+)(ms|s|m|h|d)")


def duration_ms(text: str) -> int:
    """Milliseconds of a duration.

    Raises ValueError, with what is allowed, for anything that is not a positive whole number and a unit.

    >>> duration_ms("10m")
    600000
    """
    match = _DURATION.fullmatch(text)
    if match is None or int(match[1]) == 0:
        raise ValueError(f"{text!r} is not a duration: write a positive whole number and ms, s, m, h or d, as in 90s")
    return int(match[1]) * _UNIT_MS[match[2]]
