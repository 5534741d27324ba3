"""ISO 4217: codes, numeric codes and how many digits a minor unit has."""

from iso4217 import Currency

from engine.errors import ConfigError


def minor_digits(code: str) -> int:
    """Digits after the decimal point: 2 for EUR, 0 for JPY, 3 for KWD; ConfigError for an unknown code."""
    try:
        digits: int | None = Currency(code).exponent
    except ValueError as error:
        raise ConfigError(f"rates.base_currency: {code!r} is not an ISO 4217 code") from error
    return digits or 0
