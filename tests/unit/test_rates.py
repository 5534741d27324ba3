"""Rates: effective-dated lookup, exact decimals, and errors that name file, line and what is allowed."""

from decimal import Decimal
from pathlib import Path

import pytest

from engine.errors import ConfigError
from engine.rates import RateTable, alphabetic_code, epoch_ms, minor_digits, spellings

TABLE = """currency,effective_from,rate
USD,2025-02-01,0.95
USD,2025-01-01,0.9
USD,2025-02-01T12:00:00+02:00,0.123456789012345678

JPY,2025-01-01T00:00:00Z,0.0061
EUR,2000-01-01,1
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rates.csv"


def read(path: Path, text: str = TABLE) -> RateTable:
    path.write_text(text, "utf-8")
    return RateTable.read(path, "EUR")


@pytest.mark.parametrize(
    ("time", "rate"),
    [
        ("2024-12-31T23:59:59.999", None),
        ("2025-01-01", "0.9"),
        ("2025-01-31T23:59:59.999", "0.9"),
        ("2025-02-01", "0.95"),
        ("2025-02-01T10:00", "0.123456789012345678"),
        ("2099-01-01", "0.123456789012345678"),
    ],
)
def test_a_rate_holds_from_its_time_until_the_next(path: Path, time: str, rate: str | None) -> None:
    #   2025-01-01      2025-02-01     10:00
    #  ------|-------------|------------|-------->
    #   none      0.9          0.95       0.1234...
    assert read(path).rate("USD", epoch_ms(time)) == (None if rate is None else Decimal(rate))


def test_a_currency_without_rates(path: Path) -> None:
    table = read(path)
    assert table.rate("GBP", epoch_ms("2025-01-01")) is None
    assert ("GBP" in table, "JPY" in table) == (False, True)


def test_a_byte_order_mark_does_not_matter(path: Path) -> None:
    assert read(path, "\ufeff" + TABLE).digest() == read(path).digest()


def test_the_digest_changes_with_what_conversions_see_and_with_nothing_else(path: Path) -> None:
    digest = read(path).digest()
    header, *lines = TABLE.split()
    assert read(path, "\n".join([header, *reversed(lines)])).digest() == digest
    assert read(path, TABLE.replace("0.95", "0.950")).digest() == digest
    assert read(path, TABLE.replace("0.95", "0.951")).digest() != digest
    assert read(path, TABLE.replace("2025-01-01,", "2025-01-02,")).digest() != digest
    assert read(path, TABLE.replace("JPY", "KRW")).digest() != digest
    path.write_text(TABLE.replace("EUR,2000-01-01,1\n", ""))
    assert RateTable.read(path, "EUR").digest() != RateTable.read(path, "GBP").digest()


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("", 1, "the first line must be currency,effective_from,rate"),
        ("currency,rate\n", 1, "the first line must be currency,effective_from,rate"),
        ("{}USD,2025-01-01\n", 2, "2 columns"),
        ("{}USD,2025-01-01,1,2\n", 2, "4 columns"),
        ("{}USD,2025-01-01,1\nusd,2025-01-01,1\n", 3, "currency 'usd' must be three capital letters"),
        ("{}DOLLAR,2025-01-01,1\n", 2, "currency 'DOLLAR' must be three capital letters"),
        ("{}USD,yesterday,1\n", 2, "effective_from 'yesterday' must be an ISO 8601 date or time"),
        ("{}USD,2025-01-01,0\n", 2, "rate '0' must be a positive decimal number"),
        ("{}USD,2025-01-01,0.000\n", 2, "rate '0.000' must be a positive decimal number"),
        ("{}USD,2025-01-01,-1\n", 2, "rate '-1' must be a positive decimal number"),
        ("{}USD,2025-01-01,1e3\n", 2, "rate '1e3' must be a positive decimal number"),
        ("{}USD,2025-01-01,nan\n", 2, "rate 'nan' must be a positive decimal number"),
        ("{}USD,2025-01-01, 1\n", 2, "rate ' 1' must be a positive decimal number"),
        ("{}EUR,2025-01-01,1.1\n", 2, "rate '1.1' of the base currency EUR must be 1"),
        ("{}USD,2025-01-01,1\n\nUSD,2025-01-01T00:00Z,2\n", 4, "USD has a rate from 2025-01-01T00:00Z on already"),
    ],
)
def test_a_bad_line_is_named(path: Path, text: str, line: int, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read(path, text.replace("{}", "currency,effective_from,rate\n"))
    assert str(raised.value).startswith(f"{path}:{line}: {said}")


def test_a_missing_file_is_named(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"rates.file: .*rates.csv cannot be read: No such file"):
        RateTable.read(path, "EUR")


def test_a_file_in_another_encoding_is_named(path: Path) -> None:
    path.write_bytes(TABLE.encode("utf-16"))
    with pytest.raises(ConfigError, match=r"rates.file: .*rates.csv is not a CSV file in UTF-8"):
        RateTable.read(path, "EUR")


@pytest.mark.parametrize(
    ("written", "code"),
    [("EUR", "EUR"), ("eur", "EUR"), (978, "EUR"), ("978", "EUR"), ("036", "AUD"), ("36", "AUD"), (36, "AUD"),
     ("ZWD", "ZWD"), ("", None), ("EURO", None), (" EUR", None), ("\u017fek", None), ("\u0669\u0667\u0668", None),
     (0, None), (-978, None), ("1000", None)],
)  # fmt: skip
def test_alphabetic_code(written: str | int, code: str | None) -> None:
    assert alphabetic_code(written) == code


def test_spellings_are_understood_as_the_code() -> None:
    for code in ("EUR", "AUD", "ALL"):
        assert {alphabetic_code(written) for written in spellings(code)} == {code}


@pytest.mark.parametrize(
    ("code", "digits"), [("EUR", 2), ("JPY", 0), ("KWD", 3), ("CLF", 4), ("XAU", None), ("ZWD", None)]
)
def test_minor_digits(code: str, digits: int | None) -> None:
    assert minor_digits(code) == digits
