"""Event-level features and the words of fields: each against a plain calculation of one event."""

import math
import struct
from datetime import UTC, datetime

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from features.event import event_values
from features.spec import EventSpec, FeatureSpec, FieldTypes, entity_spec, feature_spec
from features.words import column_seed, key_hashes, location_words, number_words, text_word

TYPES = FieldTypes({"big": "amount > 100", "small": "amount < 2"}, frozenset(["km", "lat"]))
EVENT = EventSpec(
    ("small", "day_of_week", "km", "amount", "hour_of_day"),
    (("mode", ("chip", "ecom")), ("shop", ("a.b",))),
    (("mode", 7), ("city", 1 << 20)),
)


def spec_of(event: EventSpec) -> FeatureSpec:
    """The features of the event beside one that needs the predicate `big`, so that `small` is bit 1."""
    return feature_spec([entity_spec("card", ["1h"], ["count.big"], TYPES)], event, TYPES)


def hashes_of(field: str, texts: list[str | None]) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    return key_hashes(texts, column_seed(field))


def bucket(field: str, text: str | None, buckets: int) -> float:
    return math.nan if text is None else text_word(field, text) % buckets


Row = tuple[int, int, bool, float | None, str | None, str | None, str | None]
rows: st.SearchStrategy[list[Row]] = st.lists(
    st.tuples(
        st.integers(0, 4_133_980_799_999),
        st.integers(-(10**13), 10**13),
        st.booleans(),
        st.none() | st.floats(allow_nan=False, allow_infinity=False),
        st.sampled_from([None, "chip", "ecom", "moto"]),
        st.sampled_from([None, "a.b", "b"]),
        st.none() | st.text(min_size=1, max_size=3),
    ),
    max_size=8,
)


@given(rows)
def test_event_level_features_are_those_of_each_event(events: list[Row]) -> None:
    times_ms, amounts, small, km, modes, shops, cities = map(list, zip(*events, strict=True)) if events else [[]] * 7
    expected = []
    for time_ms, amount_minor, is_small, distance, mode, shop, city in events:
        moment = datetime.fromtimestamp(time_ms // 1_000, UTC)
        expected.append(
            [
                float(is_small), moment.weekday(), math.nan if distance is None else distance, amount_minor / 100.0,
                moment.hour, mode == "chip", mode == "ecom", shop == "a.b", bucket("mode", mode, 7),
                bucket("city", city, 1 << 20),
            ]
        )  # fmt: skip
    spec = spec_of(EVENT)
    assert spec.predicates == ("big", "small")
    found = event_values(
        spec,
        np.array(times_ms, np.int64),
        np.array(amounts, np.int64),
        100.0,
        {"km": np.array(km, np.float64)},
        {"mode": hashes_of("mode", modes), "shop": hashes_of("shop", shops), "city": hashes_of("city", cities)},
        np.array(small, np.int64) << 1 | 1,
    )
    assert found.shape == (len(events), len(EVENT.names()))
    np.testing.assert_array_equal(found, np.array(expected, np.float64).reshape(found.shape))


def test_names_stand_in_the_order_of_the_columns() -> None:
    assert spec_of(EVENT).names[1:] == tuple(EVENT.names())
    assert EVENT.names() == [
        "event.small",
        "event.day_of_week",
        "event.km",
        "event.amount",
        "event.hour_of_day",
        "event.mode.chip",
        "event.mode.ecom",
        "event.shop.a.b",
        "event.mode.hash",
        "event.city.hash",
    ]


def test_a_set_without_event_level_features_has_no_columns() -> None:
    one = np.ones(3, np.int64)
    assert event_values(spec_of(EventSpec()), one, one, 100.0, {}, {}, one).shape == (3, 0)


def test_a_week_begins_on_monday_in_utc() -> None:
    #                     Thursday     Sunday 23:59:59.999   Monday 00:00
    times_ms = np.array([0, 4 * 86_400_000 - 1, 4 * 86_400_000])
    spec = spec_of(EventSpec(("day_of_week", "hour_of_day")))
    assert event_values(spec, times_ms, times_ms, 1.0, {}, {}, times_ms).tolist() == [[3, 0], [6, 23], [0, 0]]


# --- words -------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(allow_infinity=False)))
def test_a_number_word_is_its_bits_and_zero_for_none(numbers: list[float]) -> None:
    expected = [0 if math.isnan(n) else struct.unpack("<Q", struct.pack("<d", n or -0.0))[0] for n in numbers]
    assert number_words(np.array(numbers, np.float64)).tolist() == expected


degrees = st.one_of(st.none(), st.sampled_from([0.0, -0.0, 1.0, -1.0]), st.floats(-1, 1))


@given(st.lists(st.tuples(degrees, degrees)))
def test_a_location_word_is_both_coordinates_in_order(places: list[tuple[float | None, float | None]]) -> None:
    scaled = [tuple(None if x is None else x * most for x, most in zip(p, (90, 180), strict=True)) for p in places]
    expected = [
        0 if lat is None or long is None else (round(lat * 1e7) + 2**31 << 32) + round(long * 1e7) + 2**31
        for lat, long in scaled
    ]
    latitudes, longitudes = (np.array([p[axis] for p in scaled], np.float64) for axis in (0, 1))
    assert location_words(latitudes, longitudes).tolist() == expected


def test_a_text_word_is_that_of_its_column() -> None:
    assert text_word("mode", "a") == key_hashes(["a"], column_seed("mode"))[0] != text_word("shop", "a")
    assert key_hashes([None, "a"], column_seed("mode")).tolist() == [0, text_word("mode", "a")]
