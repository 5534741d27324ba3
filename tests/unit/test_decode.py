"""Decoding: exact amounts and times, a reason for every way of being wrong, and nothing that raises."""

import json
import math
import struct
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import Config, parse_config
from engine.decode import EVENT_ID_CHARS_MAX, TIME_MS_MAX, Decoder, rounded
from engine.errors import ConfigError
from engine.events import AMOUNT_MINOR_MAX, REASONS, Batch, DeadLetter, Records, select
from engine.rates import Rate, RateTable
from features.words import ZERO_WORD, column_seed, key_hashes, text_word

ENTITIES = """
[entities.card]
windows = ["1h"]
aggregates = ["count", "distinct.merchant", "distinct.city"]
[entities.merchant]
windows = ["1h"]
aggregates = ["count"]
"""
# Every kind of field that is not a key: numbers, a place, conditions, categories.
RICH = """
[predicates]
small = "amount < 2.00"
ecom = 'mode == "ecom" and km > 100'
unused = 'no_such_field == "x"'
[event]
features = ["km", "small", "height"]
one_hot = { mode = ["ecom"] }
hashed = { card = 64 }
[entities.card]
windows = ["1h"]
aggregates = ["count.ecom", "distinct.merchant", "distinct.merchant.small", "last.km", "last.km.ecom", "geo_speed"]
"""
RICH_MAPPING = """
numbers = ["km", "height"]
location = { latitude = "lat", longitude = "long" }
fields = { lat = "y", long = "x" }
"""
TIME_MS = 1_735_689_600_000
DAY_MS = 86_400_000
CARD = "4000123412341234"
RATES = RateTable(
    "EUR",
    [
        Rate("USD", TIME_MS - DAY_MS, Decimal("0.9")),
        Rate("USD", TIME_MS, Decimal("0.912345678901234567")),
        Rate("JPY", 0, Decimal("0.0061")),
        Rate("KWD", 0, Decimal("3.125")),
        Rate("ZWD", 0, Decimal("0.0028")),
    ],
)
SLOW = settings(deadline=None, max_examples=200)


def config_of(mapping: str = "", base_currency: str = "EUR", definitions: str = ENTITIES) -> Config:
    text = f'[mapping]\n{mapping}\n[rates]\nbase_currency = "{base_currency}"\n{definitions}'
    return parse_config(text, Path(), {})


def decoder_of(
    mapping: str = "", rates: RateTable | None = RATES, base_currency: str = "EUR", definitions: str = ENTITIES
) -> Decoder:
    config = config_of(mapping, base_currency, definitions)
    return Decoder(config, config.feature_spec(), rates)


NATIVE = decoder_of()
MINOR = decoder_of('amount = { field = "amount", unit = "minor" }')
SECONDS = decoder_of('event_time = { field = "event_time", unit = "s" }')
ISO8601 = decoder_of('event_time = { field = "event_time", unit = "iso8601" }')
RICH_DECODER = decoder_of(RICH_MAPPING, definitions=RICH)


def event(**changes: Any) -> dict[str, Any]:
    """A valid event with some fields changed; ... takes a field away."""
    fields = {"event_id": "e1", "event_time": TIME_MS, "amount": 12.34, "currency": "EUR", "card": CARD} | changes
    return {name: value for name, value in fields.items() if value is not ...}


def records_of(values: Sequence[bytes | None], record_time_ms: int = -1) -> Records:
    n = len(values)
    return Records("in", list(values), np.full(n, 3), np.arange(n) + 100, np.full(n, record_time_ms))


def decode(decoder: Decoder, *events: dict[str, Any]) -> tuple[Batch, list[DeadLetter]]:
    return decoder.decode(records_of([json.dumps(e).encode() for e in events]))


def accepted(decoder: Decoder, *events: dict[str, Any]) -> Batch:
    batch, dead_letters = decode(decoder, *events)
    assert dead_letters == []
    return batch


def refusal(decoder: Decoder, value: bytes | None, record_time_ms: int = -1) -> str:
    batch, (dead_letter,) = decoder.decode(records_of([value], record_time_ms))
    assert len(batch) == 0
    return dead_letter.reason


# --- amounts ---------------------------------------------------------------------------------------------------


def minor_by_fractions(written: str, digits: int, rate: Decimal = Decimal(1)) -> int:
    """The oracle: rational arithmetic, rounded half to even once."""
    minor: int = round(Fraction(written) * Fraction(rate) * 10**digits)
    return minor


def ties(digits: int) -> st.SearchStrategy[float]:
    """Doubles nearest to half a minor unit: the product with 10^digits lands on either side of the half."""
    whole = st.one_of(st.integers(-(10**5), 10**5), st.integers(-(2**42), 2**42))
    return whole.map(lambda n: (2 * n + 1) / (2 * 10**digits))


amounts = st.one_of(
    ties(2),
    st.floats(-1e11, 1e11, allow_nan=False),
    st.integers(-(10**11), 10**11),
    st.decimals(-(10**11), 10**11, places=6).map(str),
)


@SLOW
@given(st.lists(amounts, min_size=1, max_size=40))
def test_amounts_are_those_of_decimal_arithmetic(values: list[float | int | str]) -> None:
    batch, dead_letters = decode(NATIVE, *(event(amount=value) for value in values))
    expected = [minor_by_fractions(str(value), 2) for value in values]
    fit = [minor for minor in expected if abs(minor) <= AMOUNT_MINOR_MAX]
    assert batch.amounts_minor.tolist() == fit
    assert {letter.reason for letter in dead_letters} <= {"amount_range"}


@SLOW
@given(st.lists(amounts, min_size=1, max_size=20), st.sampled_from(["USD", "JPY", "KWD"]))
def test_conversion_rounds_once(values: list[float | int | str], currency: str) -> None:
    batch, _ = decode(NATIVE, *(event(amount=value, currency=currency) for value in values))
    rate = RATES.rate(currency, TIME_MS)
    assert rate is not None
    expected = [minor_by_fractions(str(value), 2, rate) for value in values]
    assert batch.amounts_minor.tolist() == [minor for minor in expected if abs(minor) <= AMOUNT_MINOR_MAX]


@pytest.mark.parametrize("digits", range(5))
@SLOW
@given(data=st.data())
def test_what_is_surely_rounded_is_rounded_rightly(digits: int, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.one_of(ties(digits), st.floats(allow_nan=False)), min_size=1, max_size=40))
    found, sure = rounded(list(values), 10**digits)
    for value, minor in zip(np.array(values)[sure].tolist(), found[sure].tolist(), strict=True):
        assert minor == minor_by_fractions(repr(value), digits)


@pytest.mark.parametrize(
    ("amount", "minor"),
    [
        (0.005, 0),  # half to even; in binary 0.005 is above the half
        (0.015, 2),
        (1.005, 100),  # binary 1.005 is below the half, and 100 is even
        (-0.015, -2),
        (2.675, 268),
        (0.575, 58),  # binary 0.575 * 100 is below the half
        (1.385, 138),
        ("12.345", 1234),
        ("000012.30", 1230),
        ("1.5e2", 15_000),
        (-7, -700),
        (99_999_999_999.99, 9_999_999_999_999),
        (100_000_000_000, 10**13),
        ("-100000000000.004", -(10**13)),
    ],
)
def test_amount(amount: float | str, minor: int) -> None:
    assert accepted(NATIVE, event(amount=amount)).amounts_minor.tolist() == [minor]


@pytest.mark.parametrize(
    "text", ["1_000", " 12", "12 ", "nan", "NaN", "Infinity", "", "1,5", "$5", "٣", "1e9999", "0" * 65]
)
def test_text_that_is_no_amount(text: str) -> None:
    assert refusal(NATIVE, json.dumps(event(amount=text)).encode()) == "amount_invalid"


@pytest.mark.parametrize("amount", [100_000_000_000.01, -1e300, 10**30, "1e999", 2**63 - 1])
def test_amount_out_of_range(amount: float | str) -> None:
    assert refusal(NATIVE, json.dumps(event(amount=amount)).encode()) == "amount_range"


@pytest.mark.parametrize(
    ("amount", "currency", "minor"),
    [(1234, "EUR", 1234), ("000000001234", "978", 1234), (1234.0, "EUR", 1234), (-5, "EUR", -5),
     (1000, "JPY", 610), (1000, "KWD", 312), (100, 840, 91)],
)  # fmt: skip
def test_amount_in_minor_units_of_the_events_currency(amount: Any, currency: Any, minor: int) -> None:
    assert accepted(MINOR, event(amount=amount, currency=currency)).amounts_minor.tolist() == [minor]


@pytest.mark.parametrize("amount", [12.5, 12.25, "12.5", "1e-1"])
def test_a_part_of_a_minor_unit_is_no_amount(amount: float | str) -> None:
    assert refusal(MINOR, json.dumps(event(amount=amount)).encode()) == "amount_invalid"


def test_minor_units_of_a_currency_that_iso_4217_does_not_list() -> None:
    assert refusal(MINOR, json.dumps(event(amount=100, currency="ZWD")).encode()) == "unknown_currency"


@pytest.mark.parametrize(("base", "amount", "minor"), [("JPY", 150.5, 150), ("KWD", 1.2345, 1234), ("USD", 1.5, 150)])
def test_the_base_currency_says_how_many_digits(base: str, amount: float, minor: int) -> None:
    batch = accepted(decoder_of(rates=None, base_currency=base), event(amount=amount, currency=base))
    assert (batch.amounts_minor.tolist(), batch.currency) == ([minor], base)


# --- currencies ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("written", ["EUR", "eur", "Eur", 978, "978"])
def test_spellings_of_the_base_currency(written: str | int) -> None:
    assert accepted(NATIVE, event(currency=written)).amounts_minor.tolist() == [1234]


@pytest.mark.parametrize("written", ["USD", "usd", 840, "840"])
def test_spellings_of_a_foreign_currency(written: str | int) -> None:
    assert accepted(NATIVE, event(amount=100, currency=written)).amounts_minor.tolist() == [9123]


def test_the_rate_is_that_of_the_event_time() -> None:
    times = [TIME_MS - DAY_MS, TIME_MS - 1, TIME_MS]
    batch = accepted(NATIVE, *(event(amount=100, currency="USD", event_time=time) for time in times))
    assert batch.amounts_minor.tolist() == [9000, 9000, 9123]


@pytest.mark.parametrize("written", ["GBP", "XXQ", "EURO", "12 ", 12_345, -1, "", None, ...])
def test_unknown_currency(written: Any) -> None:
    assert refusal(NATIVE, json.dumps(event(currency=written)).encode()) == "unknown_currency"


def test_no_rate_before_the_first_one() -> None:
    early = event(currency="USD", event_time=TIME_MS - DAY_MS - 1)
    assert refusal(NATIVE, json.dumps(early).encode()) == "unknown_currency"


def test_default_currency_stands_for_absent_ones() -> None:
    decoder = decoder_of('currency = { field = "currency", default = "USD" }')
    batch = accepted(decoder, *(event(amount=100, currency=c) for c in (..., None, "", "EUR", "USD")))
    assert batch.amounts_minor.tolist() == [9123, 9123, 9123, 10_000, 9123]


def test_a_stream_in_one_currency_needs_no_field() -> None:
    decoder = decoder_of('currency = { default = "EUR" }', rates=None)
    assert accepted(decoder, event(currency="whatever")).amounts_minor.tolist() == [1234]


# --- times -----------------------------------------------------------------------------------------------------


@SLOW
@given(st.lists(st.integers(0, TIME_MS_MAX), min_size=1, max_size=20))
def test_times_survive_every_spelling(times_ms: list[int]) -> None:
    moments = [datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms) for ms in times_ms]
    spelled: list[tuple[Decoder, list[Any]]] = [
        (NATIVE, times_ms),
        (NATIVE, [str(ms) for ms in times_ms]),
        (NATIVE, [float(ms) for ms in times_ms]),
        (SECONDS, [ms / 1000 for ms in times_ms]),
        (SECONDS, [str(Decimal(ms) / 1000) for ms in times_ms]),
        (ISO8601, [moment.isoformat() for moment in moments]),
        (ISO8601, [moment.replace(tzinfo=None).isoformat() for moment in moments]),
    ]
    for decoder, values in spelled:
        batch = accepted(decoder, *(event(event_time=value) for value in values))
        assert batch.times_ms.tolist() == times_ms


@pytest.mark.parametrize(
    ("decoder", "written"),
    [(ISO8601, "2025-01-01"), (ISO8601, "2025-01-01T00:00:00Z"), (ISO8601, "2025-01-01T01:00+01:00"),
     (ISO8601, "2025-01-01 00:00:00.0009"), (SECONDS, 1_735_689_600), (NATIVE, 1.7356896e12)],
)  # fmt: skip
def test_time(decoder: Decoder, written: Any) -> None:
    assert accepted(decoder, event(event_time=written)).times_ms.tolist() == [TIME_MS]


@pytest.mark.parametrize(
    ("decoder", "written"),
    [(NATIVE, True), (NATIVE, -1), (NATIVE, TIME_MS_MAX + 1), (NATIVE, 10**25), (NATIVE, 1e300), (NATIVE, [1]),
     (NATIVE, "soon"), (NATIVE, ""), (NATIVE, "NaN"), (NATIVE, "2025-01-01"), (NATIVE, "1" * 200),
     (SECONDS, TIME_MS), (SECONDS, -0.5), (ISO8601, TIME_MS), (ISO8601, "2025-13-01"), (ISO8601, "1969-12-31"),
     (ISO8601, "2101-01-01"), (ISO8601, "0001-01-01T00:00+23:59"), (ISO8601, "9999-12-31T23:59-23:59")],
)  # fmt: skip
def test_no_time(decoder: Decoder, written: Any) -> None:
    assert refusal(decoder, json.dumps(event(event_time=written)).encode()) == "event_time_invalid"


def test_horizons_count_from_the_record_timestamp() -> None:
    #   |<------- horizon_past 7d ------->|<- horizon_future 1h ->|
    # earliest                      record time                 latest
    earliest, latest = TIME_MS - 7 * DAY_MS, TIME_MS + 3_600_000
    values = [json.dumps(event(event_time=t)).encode() for t in (earliest - 1, earliest, latest, latest + 1)]
    batch, dead_letters = NATIVE.decode(records_of(values, record_time_ms=TIME_MS))
    assert batch.times_ms.tolist() == [earliest, latest]
    assert [(d.reason, d.offset) for d in dead_letters] == [("event_time_past", 100), ("event_time_future", 103)]


def test_a_dead_letter_has_the_key_and_the_timestamp_of_its_record() -> None:
    records = records_of([b"{", json.dumps(event()).encode(), None], record_time_ms=TIME_MS)
    _, letters = NATIVE.decode(replace(records, keys=[b"k0", b"k1", None]))
    assert [(d.offset, d.key, d.record_time_ms) for d in letters] == [(100, b"k0", TIME_MS), (102, None, TIME_MS)]
    _, letters = NATIVE.decode(records_of([b"{"]))
    assert [(d.key, d.record_time_ms) for d in letters] == [(None, -1)]


def test_a_record_keeps_its_key_where_some_are_taken() -> None:
    records = replace(records_of([b"0", b"1", b"2"]), keys=[b"k0", None, b"k2"])
    assert select(records, np.array([True, False, True])).keys == [b"k0", b"k2"]
    assert select(records_of([b"0", b"1"]), np.array([False, True])).keys == []
    assert Records.joined([records, records]).keys == [b"k0", None, b"k2"] * 2


def test_without_a_record_timestamp_there_are_no_horizons() -> None:
    assert len(accepted(NATIVE, event(event_time=0), event(event_time=TIME_MS_MAX))) == 2


@pytest.mark.parametrize("record_time_ms", [2**63 - 1, 0])
def test_absurd_record_timestamps_refuse_but_do_not_raise(record_time_ms: int) -> None:
    reason = refusal(NATIVE, json.dumps(event()).encode(), record_time_ms)
    assert reason == ("event_time_past" if record_time_ms else "event_time_future")


# --- identifiers, keys and words -------------------------------------------------------------------------------


@pytest.mark.parametrize(("written", "text"), [("e", "e"), ("é" * 256, "é" * 256), (17, "17"), (2**70, str(2**70))])
def test_event_id(written: str | int, text: str) -> None:
    batch = accepted(NATIVE, event(event_id=written))
    assert batch.event_ids == [text]
    assert batch.event_id_hashes.tolist() == [xxhash.xxh3_64_intdigest(text.encode())]


@pytest.mark.parametrize("written", ["", "x" * (EVENT_ID_CHARS_MAX + 1), 10**EVENT_ID_CHARS_MAX])
def test_event_id_of_the_wrong_length(written: str | int) -> None:
    assert refusal(NATIVE, json.dumps(event(event_id=written)).encode()) == "event_id_invalid"


def test_keys_are_text_or_none() -> None:
    written = [..., None, "", "0", 0, CARD, int(CARD)]
    batch = accepted(NATIVE, *(event(card=key) for key in written))
    assert batch.keys["card"] == [None, None, None, "0", "0", CARD, CARD]
    assert batch.partition_keys == batch.keys["card"]
    assert (batch.words[:, 0] == 0).tolist() == [True, True, True, False, False, False, False]
    assert batch.words[3, 0] == batch.words[4, 0]


def test_columns_stand_in_the_order_of_the_feature_set() -> None:
    config = config_of()
    columns = tuple(column.name for column in config.feature_spec().columns)
    assert columns == ("card", "merchant", "city")
    batch = accepted(NATIVE, event(card="same", merchant="same", city="same"))
    expected = [xxhash.xxh3_64_intdigest(b"same", xxhash.xxh32_intdigest(name.encode())) for name in columns]
    assert batch.words.tolist() == [expected]
    assert len(set(expected)) == 3
    assert list(batch.keys) == ["card", "merchant"]


def test_a_hash_of_zero_becomes_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("features.words.xxhash.xxh3_64_intdigest", lambda data, seed: 0)
    assert key_hashes(["a", None], column_seed("card")).tolist() == [1, 0]


def test_foreign_field_names_and_shared_fields() -> None:
    mapping = (
        'event_id = "the id"\npartition_key = "card"\nfields = { card = "the id", city = "currency", merchant = "m.c" }'
    )
    batch = accepted(decoder_of(mapping), {**event(), "the id": "A1", "m.c": 5, "event_id": 1.5})
    assert batch.event_ids == batch.keys["card"] == ["A1"]
    assert batch.keys["merchant"] == ["5"]
    assert batch.words[0].tolist() == [
        key_hashes([text], column_seed(name))[0] for name, text in (("card", "A1"), ("merchant", "5"), ("city", "EUR"))
    ]


# --- numbers, places, conditions and categories ----------------------------------------------------------------


def bits(number: float) -> int:
    return int(struct.unpack("<Q", struct.pack("<d", number))[0])


def column(batch: Batch, name: str) -> list[int]:
    names = [column.name for column in config_of(RICH_MAPPING, definitions=RICH).feature_spec().columns]
    words: list[int] = batch.words[:, names.index(name)].tolist()
    return words


@pytest.mark.parametrize(
    ("written", "number"),
    [(1, 1.0), (1.5, 1.5), ("1.5", 1.5), ("-2e3", -2000.0), (10**30, 1e30), ("1" + "0" * 30, 1e30), (5e-324, 5e-324),
     (0, 0.0), (-0.0, 0.0), ("-0", 0.0), (None, math.nan), (..., math.nan), ("", math.nan)],
)  # fmt: skip
def test_number(written: Any, number: float) -> None:
    batch = accepted(RICH_DECODER, event(km=written), event(km=7))
    np.testing.assert_array_equal(batch.numbers["km"], [number, 7.0])
    expected = 0 if math.isnan(number) else bits(number or -0.0)
    assert column(batch, "km") == [expected, bits(7.0)]
    assert bits(-0.0) == ZERO_WORD


@pytest.mark.parametrize(
    "written", ["x", "NaN", "inf", "1,5", " 1", "1_0", "0x1", "1e999", True, [1], {}, "9" * 65, 10**309]
)
@pytest.mark.parametrize("field", ["km", "y"])
def test_no_number(field: str, written: Any) -> None:
    _, (letter,) = decode(RICH_DECODER, event(**{field: written}))
    assert (letter.reason, letter.detail) == ("wrong_type", f"{field}: must be a finite number or a decimal text")


def test_a_number_that_json_does_not_have() -> None:
    assert refusal(RICH_DECODER, json.dumps(event(km=math.nan)).encode()) == "malformed_json"
    overlong = json.dumps(event(km=0)).encode().replace(b'"km": 0', b'"km": 1e999')
    assert refusal(RICH_DECODER, overlong) == "wrong_type"


def test_location() -> None:
    places = [(90, 180), (-90, -180), (0, 0), (47.1234567, "8.5"), (1, None), (..., 1), (None, None)]
    batch = accepted(RICH_DECODER, *(event(y=y, x=x) for y, x in places))
    #            latitude                longitude, in 1e-7 degrees from -2^31 on
    assert column(batch, "location") == [
        (2**31 + 900_000_000 << 32) + 2**31 + 1_800_000_000,
        (2**31 - 900_000_000 << 32) + 2**31 - 1_800_000_000,
        (2**31 << 32) + 2**31,
        (2**31 + 471_234_567 << 32) + 2**31 + 85_000_000,
        0,
        0,
        0,
    ]


@pytest.mark.parametrize(("field", "written"), [("y", 90.0000001), ("y", "-91"), ("x", 181), ("x", -1e300)])
def test_a_place_that_is_not_on_earth(field: str, written: Any) -> None:
    _, (letter,) = decode(RICH_DECODER, event(**({"y": 1, "x": 1} | {field: written})))
    limit = 90 if field == "y" else 180
    assert (letter.reason, letter.detail) == ("wrong_type", f"{field}: must be within -{limit} to {limit} degrees")


def test_a_flag_for_each_predicate_that_is_used() -> None:
    batch = accepted(
        RICH_DECODER,
        event(amount=1.99),
        event(amount=2),
        event(amount=2, mode="ecom", km=101),
        event(amount="1.994", mode="ecom", km="100.5"),
        event(amount="1.996", mode="ecom", km=100),
    )
    assert config_of(RICH_MAPPING, definitions=RICH).feature_spec().predicates == ("ecom", "small")
    assert batch.flags.tolist() == [0b10, 0b00, 0b01, 0b11, 0b00]


def test_a_column_with_a_predicate_has_a_word_only_where_it_holds() -> None:
    batch = accepted(
        RICH_DECODER,
        event(amount=1, merchant="m", km=500),
        event(amount=2, merchant="m", km=500, mode="ecom"),
        event(amount=1, km=3),
    )
    merchant = text_word("merchant", "m")
    assert column(batch, "merchant") == [merchant, merchant, 0]
    assert column(batch, "merchant.small") == [merchant, 0, 0]
    assert column(batch, "km") == [bits(500), bits(500), bits(3)]
    assert column(batch, "km.ecom") == [0, bits(500), 0]


def test_only_what_event_level_features_need_is_kept_as_it_is() -> None:
    batch = accepted(RICH_DECODER, event(mode="ecom", height=2), event(card=None))
    np.testing.assert_array_equal(batch.numbers["height"], [2, math.nan])
    assert list(batch.numbers) == ["km", "height"]
    assert {name: hashes.tolist() for name, hashes in batch.categories.items()} == {
        "mode": [text_word("mode", "ecom"), 0],
        "card": [text_word("card", CARD), 0],
    }
    plain = accepted(NATIVE, event(mode="ecom", height=2))
    assert (plain.numbers, plain.categories, plain.flags.tolist()) == ({}, {}, [0])


def test_every_column_loses_the_rows_of_dead_letters() -> None:
    batch, dead_letters = decode(
        RICH_DECODER, event(km=1, mode="a"), event(km="x"), event(km=3, mode="c", amount=1), event(y=99, x=0)
    )
    assert [letter.offset for letter in dead_letters] == [101, 103]
    assert batch.numbers["km"].tolist() == [1, 3]
    assert batch.categories["mode"].tolist() == [text_word("mode", "a"), text_word("mode", "c")]
    assert batch.flags.tolist() == [0b00, 0b10]
    assert batch.words.shape == (2, 6)


def test_a_predicate_over_the_currency_or_an_entity_reads_the_same_field() -> None:
    definitions = """
[predicates]
home = 'currency == "EUR" and card != "0"'
[entities.card]
key = "pan"
windows = ["1h"]
aggregates = ["count.home"]
"""
    decoder = decoder_of(definitions=definitions)
    batch = accepted(decoder, event(pan="1"), event(pan="0"), event(currency="USD", pan="1"), event(card="1"))
    assert batch.flags.tolist() == [1, 0, 0, 0]
    assert batch.keys == {"card": ["1", "0", "1", None]}


# --- refusals --------------------------------------------------------------------------------------------------

FAULTS: list[tuple[str, bytes | None]] = [
    ("empty_value", None),
    ("empty_value", b""),
    ("oversize", json.dumps(event(note="x" * 262_144)).encode()),
    ("malformed_json", b"not json"),
    ("malformed_json", b"{"),
    ("malformed_json", b'{"event_id": "\xff"}'),
    ("malformed_json", json.dumps(event(card="\xff")).encode("utf-16")),
    ("malformed_json", json.dumps(event(card="\ud800")).encode()),
    ("malformed_json", json.dumps(event()).encode() + b"{}"),
    ("malformed_json", json.dumps(event(amount=float("nan"))).encode()),
    ("malformed_json", json.dumps(event(other=float("inf"))).encode()),
    ("malformed_json", json.dumps(event()).encode().replace(b"12.34", b"1" * 5000)),
    ("malformed_json", b"[" * 100_000),
    ("malformed_json", b'{"a":' * 50_000),
    ("malformed_json", json.dumps(event(note=0)).encode().replace(b"0}", b"[" * 9_999 + b"]" * 9_999 + b"}")),
    ("wrong_type", b"[]"),
    ("wrong_type", b"17"),
    ("wrong_type", b"null"),
    ("wrong_type", json.dumps(event(event_id=1.5)).encode()),
    ("wrong_type", json.dumps(event(event_id=True)).encode()),
    ("wrong_type", json.dumps(event(amount=True)).encode()),
    ("wrong_type", json.dumps(event(amount=[12.5])).encode()),
    ("wrong_type", json.dumps(event(currency={})).encode()),
    ("wrong_type", json.dumps(event(card=4.0e15)).encode()),
    ("wrong_type", json.dumps(event(merchant=False)).encode()),
    ("wrong_type", json.dumps(event(city=["x"])).encode()),
    ("missing_field", b"{}"),
    ("missing_field", json.dumps(event(event_id=...)).encode()),
    ("missing_field", json.dumps(event(event_time=None)).encode()),
    ("missing_field", json.dumps(event(amount=...)).encode()),
    ("event_id_invalid", json.dumps(event(event_id="")).encode()),
    ("amount_invalid", json.dumps(event(amount="x")).encode()),
    ("amount_invalid", json.dumps(event()).encode().replace(b"12.34", b"1e999")),
    ("amount_range", json.dumps(event(amount=1e12)).encode()),
    ("unknown_currency", json.dumps(event(currency="XXQ")).encode()),
    ("event_time_invalid", json.dumps(event(event_time=-1)).encode()),
    ("event_time_past", json.dumps(event(event_time=TIME_MS - 8 * DAY_MS)).encode()),
    ("event_time_future", json.dumps(event(event_time=TIME_MS + DAY_MS)).encode()),
]


@pytest.mark.parametrize(("reason", "value"), FAULTS)
def test_refusal(reason: str, value: bytes | None) -> None:
    assert refusal(NATIVE, value, record_time_ms=TIME_MS) == reason


def test_every_reason_is_reached() -> None:
    assert {reason for reason, _ in FAULTS} == set(REASONS)


def test_the_batch_goes_on_around_dead_letters() -> None:
    good = [json.dumps(event(event_id=f"e{i}", amount=i, card=f"c{i}")).encode() for i in range(len(FAULTS) + 1)]
    values = [value for i, (_, bad) in enumerate(FAULTS) for value in (good[i], bad)] + good[-1:]
    batch, dead_letters = NATIVE.decode(records_of(values, record_time_ms=TIME_MS))
    assert batch.event_ids == [f"e{i}" for i in range(len(good))]
    assert batch.amounts_minor.tolist() == [100 * i for i in range(len(good))]
    assert batch.keys["card"] == [f"c{i}" for i in range(len(good))]
    assert batch.offsets.tolist() == list(range(100, 100 + len(values), 2))
    assert [letter.reason for letter in dead_letters] == [reason for reason, _ in FAULTS]
    assert [letter.value for letter in dead_letters] == [value for _, value in FAULTS]
    assert {(letter.topic, letter.partition) for letter in dead_letters} == {("in", 3)}
    assert [letter.offset for letter in dead_letters] == list(range(101, 100 + len(values), 2))


def test_details_name_the_field_and_never_a_key() -> None:
    changes: list[dict[str, Any]] = [
        {"amount": "x"},
        {"amount": 1e12},
        {"currency": "XXQ"},
        {"currency": []},
        {"event_time": -1},
        {"event_id": ""},
        {"event_id": None},
        {"merchant": 1.5},
        {"km": "x"},
        {"y": 91, "x": 0},
    ]
    _, dead_letters = decode(RICH_DECODER, *(event(**change) for change in changes))
    for change, letter in zip(changes, dead_letters, strict=True):
        assert letter.detail.startswith(f"{next(iter(change))}: ")
    _, all_letters = NATIVE.decode(records_of([value for _, value in FAULTS], record_time_ms=TIME_MS))
    assert all(CARD not in letter.detail and len(letter.detail) < 160 for letter in all_letters)


def test_no_records_at_all() -> None:
    batch, dead_letters = NATIVE.decode(records_of([]))
    assert (len(batch), batch.words.shape, dead_letters) == (0, (0, 3), [])


# --- fuzz ------------------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
changed_events: st.SearchStrategy[bytes] = st.dictionaries(
    st.sampled_from([*event(), "merchant", "city", "note", "km", "y", "x", "mode"]), json_values, max_size=4
).map(lambda changes: json.dumps(event(**changes)).encode())


@st.composite
def broken_events(draw: st.DrawFn) -> bytes:
    """A valid event with some of its bytes overwritten, cut out or doubled."""
    value = bytearray(json.dumps(event(merchant="m1", city="c1")).encode())
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(value)))
        value[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(value)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.one_of(st.none(), st.binary(max_size=80), changed_events, broken_events()), max_size=12))
@pytest.mark.parametrize(
    "decoder", [NATIVE, MINOR, SECONDS, ISO8601, RICH_DECODER], ids=["ms", "minor", "s", "iso8601", "rich"]
)
def test_whatever_comes_in_is_an_event_or_a_dead_letter(decoder: Decoder, values: list[bytes | None]) -> None:
    batch, dead_letters = decoder.decode(records_of(values, record_time_ms=TIME_MS))
    offsets = sorted([*batch.offsets.tolist(), *(letter.offset for letter in dead_letters)])
    assert offsets == list(range(100, 100 + len(values)))
    assert {letter.reason for letter in dead_letters} <= set(REASONS)
    assert (np.abs(batch.amounts_minor) <= AMOUNT_MINOR_MAX).all()
    assert ((batch.times_ms >= 0) & (batch.times_ms <= TIME_MS_MAX)).all()
    assert all(1 <= len(event_id) <= EVENT_ID_CHARS_MAX for event_id in batch.event_ids)
    assert (batch.words[:, 0] == 0).tolist() == [key is None for key in batch.keys["card"]]


@settings(deadline=None, max_examples=100)
@given(st.lists(st.one_of(changed_events, broken_events()), min_size=1, max_size=8))
def test_neighbours_in_the_batch_do_not_matter(values: list[bytes]) -> None:
    together, _ = RICH_DECODER.decode(records_of(values))
    alone = [RICH_DECODER.decode(records_of([value]))[0] for value in values]
    for column in ("event_id_hashes", "times_ms", "amounts_minor", "words", "flags"):
        assert getattr(together, column).tolist() == [x for b in alone for x in getattr(b, column).tolist()]


# --- configurations that cannot work ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mapping", "base_currency", "named"),
    [
        ("", "XYZ", "rates.base_currency: 'XYZ' must be an ISO 4217 code"),
        ("", "XAU", "rates.base_currency: 'XAU'"),
        ("currency = {}", "EUR", "mapping.currency: needs a field, a default"),
        ('currency = { default = "GBP" }', "EUR", "mapping.currency.default: 'GBP' must be"),
        ('currency = { default = "dollars" }', "EUR", "mapping.currency.default: 'dollars' must be"),
        ('event_id = "amount"', "EUR", "mapping: event_id, event_time, amount and currency must differ"),
        ('fields = { card = "amount" }', "EUR", "entities: 'amount' is the event time or the amount"),
    ],
)
def test_impossible_configuration(mapping: str, base_currency: str, named: str) -> None:
    with pytest.raises(ConfigError) as raised:
        decoder_of(mapping, base_currency=base_currency)
    assert str(raised.value).startswith(named)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ("km = 'amount'", "entities: 'amount' is the event time or the amount"),
        ("lat = 'event_time'", "mapping.location: 'event_time' is the event time or the amount"),
        ("mode = 'amount'", "predicates.ecom: 'amount' is the event time or the amount"),
        ("height = 'amount'", "event.features: 'amount' is the event time or the amount"),
        ("km = 'merchant'", "entities: 'merchant' is read as text already"),
        ("height = 'currency'", "event.features: 'currency' is read as text already"),
    ],
)
def test_a_field_is_one_thing(fields: str, named: str) -> None:
    mapping = f"{RICH_MAPPING.partition('fields')[0]}\n[mapping.fields]\n{fields}"
    with pytest.raises(ConfigError) as raised:
        decoder_of(mapping, definitions=RICH)
    assert str(raised.value).startswith(named)


def test_a_category_is_no_amount() -> None:
    definitions = f"{ENTITIES}\n[event]\nhashed = {{ sum = 8 }}"
    with pytest.raises(ConfigError, match=r"^event\.one_hot, event\.hashed: 'amount' is the event time or the amount"):
        decoder_of("fields = { sum = 'amount' }", definitions=definitions)
