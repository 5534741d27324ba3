"""Money: currencies, what they were worth when, and amounts in minor units of the base currency, exactly."""

import csv
import re
from bisect import bisect_right
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal, Inexact, InvalidOperation
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple, Self

from iso4217 import Currency

from engine.errors import ConfigError, PoisonError
from engine.events import AMOUNT_MINOR_MAX
from engine.mapping import Mapping

Number = int | float | str

HEADER = ["currency", "effective_from", "rate"]
NUMBER_CHARS_MAX = 64
# Room for NUMBER_CHARS_MAX digits times any rate; should it ever not suffice, the trap says so.
EXACT = Context(prec=200, rounding=ROUND_HALF_EVEN, traps=[InvalidOperation, Inexact])
_ALPHABETIC = re.compile(r"[A-Za-z]{3}")
_NUMERIC = re.compile(r"[0-9]{1,3}")
_DECIMAL = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]{1,3})?")
_RATE = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18})?")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CODE_BY_NUMBER: dict[int, str] = {currency.number: currency.code for currency in Currency}
_DIGITS: dict[str, int] = {c.code: c.exponent for c in Currency if c.exponent is not None}


def alphabetic_code(written: str | int) -> str | None:
    """The alphabetic code of a currency written as `EUR`, `eur`, `978` or 978; None for anything else.

    Any three letters pass: whether a withdrawn code such as ZWD means anything is for the rate table to say.
    """
    if isinstance(written, int):
        return _CODE_BY_NUMBER.get(written)
    if _NUMERIC.fullmatch(written):
        return _CODE_BY_NUMBER.get(int(written))
    return written.upper() if _ALPHABETIC.fullmatch(written) else None


def spellings(code: str) -> frozenset[str | int]:
    """Every way in which events may write a currency that ISO 4217 lists (but for mixed case)."""
    number = Currency(code).number
    return frozenset({code, code.lower(), number, str(number), f"{number:03d}"})


def minor_digits(code: str) -> int | None:
    """Decimal places of the minor unit: 2 for EUR, 0 for JPY; None where ISO 4217 lists none."""
    return _DIGITS.get(code)


def minor_per_major(code: str) -> int:
    """Minor units in a major one: 100 for EUR; 1 where ISO 4217 lists none."""
    return int(10 ** (minor_digits(code) or 0))


def epoch_ms(text: str) -> int:
    """Milliseconds since 1970 of an ISO 8601 date or time, UTC where it names no zone.

    Raises ValueError for any other text.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    since = moment - _EPOCH
    return since.days * 86_400_000 + since.seconds * 1_000 + since.microseconds // 1_000


def exact_decimal(value: Number) -> Decimal | None:
    """The decimal that a number is written as; None for text that is no decimal number or a very long one."""
    text = value if isinstance(value, str) else repr(value)
    return Decimal(text) if len(text) <= NUMBER_CHARS_MAX and _DECIMAL.fullmatch(text) else None


class Rate(NamedTuple):
    """From `from_ms` on, until the next one, 1 `currency` is worth `rate` units of the base currency."""

    currency: str
    from_ms: int
    rate: Decimal


class RateTable:
    """Exchange rates into the base currency, effective-dated: each holds until the next of its currency."""

    def __init__(self, base_currency: str, rates: Iterable[Rate]) -> None:
        """Takes rates in any order; two of one currency and time are the caller's mistake."""
        self.base_currency = base_currency
        self._starts_ms: dict[str, list[int]] = {}
        self._rates: dict[str, list[Decimal]] = {}
        for currency, from_ms, rate in sorted(rates):
            self._starts_ms.setdefault(currency, []).append(from_ms)
            self._rates.setdefault(currency, []).append(rate)

    @classmethod
    def read(cls, path: Path, base_currency: str) -> Self:
        """Reads a CSV of currency,effective_from,rate; ConfigError names file, line and what is allowed."""
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                reader = csv.reader(file)
                if next(reader, None) != HEADER:
                    raise ConfigError(f"{path}:1: the first line must be {','.join(HEADER)}")
                rates: dict[tuple[str, int], Rate] = {}
                for cells in reader:
                    if not cells:
                        continue
                    try:
                        rate = _parse_rate(cells, base_currency)
                        if rate[:2] in rates:
                            raise ValueError(f"{rate.currency} has a rate from {cells[1]} on already")
                    except ValueError as error:
                        raise ConfigError(f"{path}:{reader.line_num}: {error}") from error
                    rates[rate[:2]] = rate
        except OSError as error:
            raise ConfigError(f"rates.file: {path} cannot be read: {error.strerror}") from error
        except (UnicodeDecodeError, csv.Error) as error:
            raise ConfigError(f"rates.file: {path} is not a CSV file in UTF-8: {error}") from error
        return cls(base_currency, rates.values())

    def __contains__(self, currency: str) -> bool:
        return currency in self._rates

    def rate(self, currency: str, time_ms: int) -> Decimal | None:
        """What 1 `currency` is worth at that time; None before its first rate, or where it has none."""
        starts_ms = self._starts_ms.get(currency)
        if starts_ms is None:
            return None
        at = bisect_right(starts_ms, time_ms) - 1
        return None if at < 0 else self._rates[currency][at]

    def digest(self) -> str:
        """Changes whenever a converted amount could: part of the state fingerprint."""
        lines = [self.base_currency]
        for currency, starts_ms in self._starts_ms.items():
            lines += [
                f"{currency},{start_ms},{rate.normalize():f}"
                for start_ms, rate in zip(starts_ms, self._rates[currency], strict=True)
            ]
        return sha256("\n".join(lines).encode()).hexdigest()[:16]


def _parse_rate(cells: list[str], base_currency: str) -> Rate:
    if len(cells) != len(HEADER):
        raise ValueError(f"{len(cells)} columns, but {','.join(HEADER)} are {len(HEADER)}")
    code, effective_from, written = cells
    if not (_ALPHABETIC.fullmatch(code) and code.isupper()):
        raise ValueError(f"currency {code!r} must be three capital letters, as in USD")
    try:
        from_ms = epoch_ms(effective_from)
    except ValueError as error:
        raise ValueError(
            f"effective_from {effective_from!r} must be an ISO 8601 date or time, as in 2025-01-31"
        ) from error
    if not _RATE.fullmatch(written) or not Decimal(written):
        raise ValueError(f"rate {written!r} must be a positive decimal number of at most 18 + 18 digits")
    if code == base_currency and Decimal(written) != 1:
        raise ValueError(f"rate {written!r} of the base currency {code} must be 1, or left out")
    return Rate(code, from_ms, Decimal(written))


class Converter:
    """Amounts as events write them, in minor units of the base currency: converted, then rounded once.

    `base_spellings`: every way to write that an amount needs no conversion, None and "" too where that is the
    default.
    """

    def __init__(self, mapping: Mapping, base_currency: str, rates: RateTable | None) -> None:
        """Raises ConfigError where no amount, or none without a currency, could ever be converted."""
        digits = minor_digits(base_currency)
        if digits is None:
            raise ConfigError(
                f"rates.base_currency: {base_currency!r} must be an ISO 4217 code with minor units, as in EUR"
            )
        default = mapping.currency.default
        if default is None and mapping.currency.field is None:
            raise ConfigError("mapping.currency: needs a field, a default (as in USD), or both")
        code = None if default is None else alphabetic_code(default)
        listed = code is not None and rates is not None and code in rates
        if default is not None and code != base_currency and not listed:
            raise ConfigError(
                f"mapping.currency.default: {default!r} must be rates.base_currency, {base_currency}, "
                f"or have a rate in rates.file"
            )
        self.base_currency = base_currency
        self.base_digits = digits
        self.base_spellings = spellings(base_currency) | ({None, ""} if code == base_currency else set())
        self._default_currency = code
        self._rates = rates
        self._in_minor = mapping.amount.unit == "minor"
        self._amount_field = mapping.amount.field
        self._currency_field = mapping.currency.field or "currency"

    def minor(self, value: Number, currency: str | int | None, time_ms: int) -> int:
        """One amount in minor units of the base currency, half to even; raises PoisonError."""
        number = exact_decimal(value)
        if number is None:
            raise amount_invalid(self._amount_field)
        code = self._default_currency if currency is None or currency == "" else alphabetic_code(currency)
        rate = self._rate(code, time_ms)
        if self._in_minor:
            if number != number.to_integral_value():
                raise amount_invalid(self._amount_field)
            number = EXACT.scaleb(number, -self._digits(code))
        worth = EXACT.scaleb(EXACT.multiply(number, rate), self.base_digits)
        minor = EXACT.to_integral_value(worth)
        if not -AMOUNT_MINOR_MAX <= minor <= AMOUNT_MINOR_MAX:
            raise amount_range(self._amount_field)
        return int(minor)

    def _rate(self, code: str | None, time_ms: int) -> Decimal:
        if code == self.base_currency:
            return Decimal(1)
        if code is None:
            raise PoisonError("unknown_currency", f"{self._currency_field}: must be an ISO 4217 code")
        rate = None if self._rates is None else self._rates.rate(code, time_ms)
        if rate is None:
            raise PoisonError("unknown_currency", f"{self._currency_field}: no rate for {code} at the event time")
        return rate

    def _digits(self, code: str | None) -> int:
        digits = minor_digits(code or "")
        if digits is None:
            raise PoisonError("unknown_currency", f"{self._currency_field}: {code} has no minor unit in ISO 4217")
        return digits


def amount_invalid(field: str) -> PoisonError:
    """What to raise for an amount that is no number."""
    return PoisonError("amount_invalid", f"{field}: must be a decimal number, whole if in minor units")


def amount_range(field: str) -> PoisonError:
    """What to raise for an amount that is too large to hold."""
    return PoisonError("amount_range", f"{field}: more than 10^13 minor units of the base currency")
