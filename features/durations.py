"""Durations as people write them: `90s`, `10m`, `24h`, `7d`."""

import re
from functools import cache

DAYS_MAX = 10_000
_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"0*([0-9]+)(ms|s|m|h|d)")
# Anything longer is beyond DAYS_MAX in any unit, and slow to read as a number.
_DIGITS_MAX = 18


@cache
def duration_ms(text: str) -> int:
    """Milliseconds of a duration, at most 10,000 days: sums of some durations and a time stay within 64 bits.

    Raises ValueError, with what is allowed, for anything that is not a positive whole number and a unit.

    >>> duration_ms("10m")
    600000
    """
    match = _DURATION.fullmatch(text)
    if match is None or match[1] == "0":
        raise ValueError(f"{text!r} is not a duration: write a positive whole number and ms, s, m, h or d, as in 90s")
    if len(match[1]) > _DIGITS_MAX or int(match[1]) * _UNIT_MS[match[2]] > DAYS_MAX * _UNIT_MS["d"]:
        raise ValueError(f"{text!r} is too long: at most {DAYS_MAX}d")
    return int(match[1]) * _UNIT_MS[match[2]]
