"""The oracle itself, against numbers worked out by hand."""

import math
import statistics

import pytest

from tests.build import MINOR_PER_MAJOR, PREDICATES, full_config
from tests.features import timelines
from tests.features.timelines import event, timeline
from tests.oracle import amounts, geo
from tests.oracle.events import text_hash, word
from tests.oracle.windows import features_of, reading_at

SPEC = full_config().feature_spec()
CARD = next(entity for entity in SPEC.entities if entity.name == "card")


def values_of(events, name: str) -> list[float]:
    """One feature's value for each event of a timeline."""
    return [
        features_of(one, list(events[:number]), SPEC, MINOR_PER_MAJOR, PREDICATES)[name]
        for number, one in enumerate(events)
    ]


NULL = pytest.approx(math.nan, nan_ok=True)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("card.count.10s", [1, 2, 2, 1, 2]),
        ("card.count.10s.prior", [0, 1, 1, 0, 1]),
        ("card.sum.amount.10s", [10, 30, 21, 1.5, 3]),
        ("card.mean.amount.10s.prior", [NULL, 10, 20, NULL, 1.5]),
        ("card.max.amount.10s", [10, 20, 20, 1.5, 1.5]),
        ("card.min.amount.10s.prior", [NULL, 10, 20, NULL, 1.5]),
        ("card.rate.1m", [60, 120, 180, 240, 300]),
        ("card.rate.10s", [360, 720, 720, 360, 720]),
        ("card.std.amount.10s", [NULL, math.sqrt(50), math.sqrt(2 * 9.5**2), NULL, 0]),
        ("card.zscore.amount.10s", [NULL, 5 / math.sqrt(50), -math.sqrt(0.5), NULL, NULL]),
        ("card.ratio.amount.10s", [1, 20 / 15, 1 / 10.5, 1, 1]),
        ("card.ratio.amount.10s.prior", [NULL, 2, 0.05, NULL, 1]),
        ("card.is_new.merchant.10s", [1, 0, 0, 1, 0]),
        ("card.since_last", [NULL, 0.001, 9.999, 10, 0]),
        ("card.since_first", [0, 0.001, 10, 20, 20]),
        ("card.last.amount", [NULL, 10, 20, 1, 1.5]),
        ("card.count.10s.small", [0, 0, 1, 1, 2]),
        ("card.since_last.small", [NULL, NULL, NULL, 10, 0]),
        ("card.geo_speed", [NULL, 0, 0, 0, 0]),
        ("merchant.count.5s", [1, 2, 1, 1, 2]),
        ("event.hour_of_day", [23] * 5),
        ("event.day_of_week", [1] * 5),  # 2024-12-31 was a Tuesday
        ("event.small", [0, 0, 1, 1, 1]),
        ("event.entry_mode.chip", [1] * 5),
        ("event.entry_mode.ecom", [0] * 5),
        ("event.distance_km", [1] * 5),
    ],
)
def test_edges(name: str, expected: list[float]) -> None:
    assert values_of(timelines.EDGES, name) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("card.count.1m", [1, 2, 2, 4, 2]),
        ("card.count.10s", [1, 1, 2, 2, 2]),
        ("card.distinct.merchant.1m", [1, 1, 2, 2, 2]),
        ("card.is_new.merchant.1m", [1, 0, 1, 0, 1]),
        ("card.is_new.merchant.10s", [1, 1, 1, 1, 1]),
        ("card.last.amount", [NULL, 1, 1, 10, 1]),
        ("card.since_last", [NULL, 10, 5, 5, 0]),
        ("card.since_first", [0, 10, 5, 15, 0]),
        ("card.sum.amount.1m", [1, 11, 4, 21, 1.5]),
    ],
)
def test_late_events_are_scored_at_their_own_time(name: str, expected: list[float]) -> None:
    assert values_of(timelines.LATE, name) == pytest.approx(expected, nan_ok=True)


def test_who_was_last_among_ties_does_not_depend_on_the_order_of_arrival() -> None:
    tied = [event(5, 100, merchant="m1"), event(5, 300, merchant="m2"), event(5, 300, merchant="m3")]
    asking = event(6, 1)
    greatest = max(tied[1:], key=lambda x: _signed(text_hash("merchant", x.texts["merchant"])))
    for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2]):
        before = [tied[place] for place in order]
        values = features_of(asking, before, SPEC, MINOR_PER_MAJOR, PREDICATES)
        assert values["card.last.amount"] == 3
        assert values["card.last.merchant"] == text_hash("merchant", greatest.texts["merchant"]) % 2**20
        assert values["card.last.merchant.small"] == text_hash("merchant", "m1") % 2**20


def _signed(number: int) -> int:
    return int.from_bytes(number.to_bytes(8, "big"), "big", signed=True)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("card.count.1m", [1, NULL, 2, 3, 4, 5, 1]),
        ("card.distinct.merchant.1m", [0, NULL, 1, 1, 1, 1, 0]),
        ("card.distinct.distance_km.1m", [0, NULL, 1, 1, 1, 2, 1]),
        ("card.is_new.merchant.1m", [NULL, NULL, 1, NULL, 0, NULL, NULL]),
        ("card.is_new.distance_km.1m", [NULL, NULL, 1, 0, NULL, 1, 1]),
        ("card.last.distance_km", [NULL, NULL, NULL, 0, 0, 0, NULL]),
        ("card.last.distance_km.far", [NULL] * 7),
        ("card.geo_speed", [NULL, NULL, NULL, NULL, 0, 0, NULL]),
        ("event.distance_km", [NULL, 1, 0, 0, NULL, 250, 1]),
        ("event.far", [0, 0, 0, 0, 0, 1, 0]),
    ],
)
def test_absent_values(name: str, expected: list[float]) -> None:
    assert values_of(timelines.ABSENT, name) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("card.count.1m.small", [1, 1, 2, 2, 2, 2, 3, 2]),
        ("card.count.10s.ecom.prior", [0, 1, 2, 2, 2, 1, 1, 0]),
        ("card.sum.amount.1m.far", [0, 2, 3.5, 3.5, 3.5, 3.5, 3.5, 0]),
        ("card.zscore.amount.1m.ecom", [NULL, math.sqrt(0.5), NULL, NULL, 1.0, NULL, NULL, NULL]),
        ("card.distinct.merchant.1m.ecom", [1, 1, 1, 1, 2, 2, 2, 0]),
        ("card.is_new.merchant.1m.ecom", [1, 0, NULL, NULL, 1, NULL, NULL, NULL]),
        ("card.since_last.far", [NULL, NULL, 1, 1, 2, 10, 11, 68]),
        ("card.last.distance_km.far", [NULL, NULL, 100.1, 500, 500, 500, 500, 500]),
    ],
)
def test_predicates(name: str, expected: list[float]) -> None:
    found = values_of(timelines.PREDICATES, name)
    if name.startswith("card.zscore"):
        # The chip events are compared with the e-commerce ones too.
        mean, spread = 1.995, math.sqrt(2) * 0.005
        expected[2:4] = [(1.5 - mean) / spread, (90 - mean) / spread]
        three = [1.99, 2.0, 2.01]
        expected[4:7] = [(x - 2) / statistics.stdev(three) for x in (2.01, 50, 1.99)]
    assert found == pytest.approx(expected, nan_ok=True)


def test_statistics_are_those_of_the_standard_library() -> None:
    values = [1, 5, 5, -3, 10**13]
    assert amounts.std(values, 100.0) == pytest.approx(statistics.stdev(values) / 100, rel=1e-14)
    assert amounts.mean(values, 100.0) == pytest.approx(statistics.mean(values) / 100, rel=1e-14)
    assert amounts.std([10**13] * 7, 100.0) == 0
    assert math.isnan(amounts.zscore(3, [3, 3]))
    assert math.isnan(amounts.ratio(3, [3, -3]))


@pytest.mark.parametrize(
    ("one", "other", "km"),
    [
        # A meridian's quarter; half way round, both ways; a degree on the equator; Paris to New York within 0.1 km.
        ((0, 0), (90 * 10**7, 0), math.pi / 2 * geo.EARTH_RADIUS_KM),
        ((0, 0), (0, 180 * 10**7), math.pi * geo.EARTH_RADIUS_KM),
        ((90 * 10**7, 5), (-90 * 10**7, 77), math.pi * geo.EARTH_RADIUS_KM),
        ((0, 0), (0, 10**7), math.pi / 180 * geo.EARTH_RADIUS_KM),
        ((0, 180 * 10**7), (0, -180 * 10**7), 0),
        ((12, 34), (12, 34), 0),
        ((0, 0), (1, 0), math.pi / 180 * 1e-7 * geo.EARTH_RADIUS_KM),
    ],
)
def test_distances(one: tuple[int, int], other: tuple[int, int], km: float) -> None:
    assert geo.distance_km(one, other) == pytest.approx(km, rel=1e-12, abs=1e-9)
    assert geo.distance_km(other, one) == pytest.approx(km, rel=1e-12, abs=1e-9)


def test_distances_agree_with_the_angle_between_two_vectors() -> None:
    one, other = (488_566_140, 23_522_219), (407_127_753, -740_059_728)
    assert geo.distance_km(one, other) == pytest.approx(5_837.24, abs=0.02)
    vectors = []
    for latitude, longitude in (one, other):
        up, around = math.radians(latitude / 1e7), math.radians(longitude / 1e7)
        vectors.append((math.cos(up) * math.cos(around), math.cos(up) * math.sin(around), math.sin(up)))
    angle = math.acos(sum(a * b for a, b in zip(*vectors, strict=True)))
    assert geo.distance_km(one, other) == pytest.approx(angle * geo.EARTH_RADIUS_KM, rel=1e-12)


def test_a_reading_without_an_event_holds_everything_up_to_its_moment() -> None:
    events = timeline((0, 100), (5, 300), (9, 500, {"merchant": "m2"}))
    values = reading_at(events[1].time_ms + 5_000, events, CARD, MINOR_PER_MAJOR, PREDICATES)
    assert values["card.count.10s"] == values["card.count.10s.prior"] == 2
    assert values["card.sum.amount.1m"] == 9
    assert values["card.since_last"] == 1
    assert values["card.since_first"] == 10
    assert values["card.last.amount"] == 5
    for name in ("card.is_new.merchant.1m", "card.zscore.amount.1m", "card.ratio.amount.1m", "card.geo_speed"):
        assert math.isnan(values[name])


def test_words_are_those_of_the_batch() -> None:
    found = {column.name: word(event(0, 1, distance_km=0.0), column, PREDICATES) for column in SPEC.columns}
    assert found["distance_km"] == 1 << 63
    assert found["merchant.small"] == found["merchant"] == text_hash("merchant", "m1")
    assert found["merchant.ecom"] == 0
    assert found["location"] == (481_371_000 + 2**31) << 32 | (115_754_000 + 2**31)
