"""Durations and feature definitions: names, column order, hashes, and errors that say where."""

import pytest

from features.durations import duration_ms
from features.spec import (
    LOCATION,
    Column,
    EventSpec,
    FeatureSpec,
    FieldTypes,
    SpecError,
    entity_spec,
    feature_spec,
)

TYPES = FieldTypes({"small": "amount < 2", "ecom": "entry_mode == 'ecom'"}, frozenset(["lat", "km"]), located=True)


@pytest.mark.parametrize(
    ("text", "ms"),
    [("1ms", 1), ("90s", 90_000), ("10m", 600_000), ("24h", 86_400_000), ("1d", 86_400_000), ("007s", 7_000),
     ("10000d", 864_000_000_000), ("240000h", 864_000_000_000), ("0" * 30 + "1s", 1_000)],
)  # fmt: skip
def test_duration(text: str, ms: int) -> None:
    assert duration_ms(text) == ms


@pytest.mark.parametrize(
    "text", ["", "0s", "000d", "5", "s", "-1s", "1.5h", "1 h", "1h ", "1H", "1w", "1h30m", "1h\n", "\u0663s"]
)
def test_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration: write a positive whole number") as raised:
        duration_ms(text)
    assert repr(text) in str(raised.value)


@pytest.mark.parametrize("text", ["10001d", "240001h", "864000000001ms", "9223372036854775808ms", "9" * 5_000 + "d"])
def test_a_duration_has_an_end(text: str) -> None:
    with pytest.raises(ValueError, match="is too long: at most 10000d"):
        duration_ms(text)


def spec(windows: list[str], aggregates: list[str], name: str = "card") -> FeatureSpec:
    return feature_spec([entity_spec(name, windows, aggregates)])


def hash_of(windows: list[str], aggregate: str, name: str = "card", types: FieldTypes | None = None) -> str:
    defined = feature_spec([entity_spec(name, windows, [aggregate], types)], types=types)
    return defined.features[0].definition_hash


def test_columns_stand_by_entity_then_aggregate_then_window() -> None:
    merchant = entity_spec("merchant", ["1d"], ["count", "distinct.card"])
    card = entity_spec(
        "card", ["24h", "90s", "10m"], ["since_last", "sum.amount", "distinct.city", "distinct.merchant"]
    )
    event = EventSpec(("hour_of_day", "amount"), (("city", ("Bern", "Rome")),), (("city", 8), ("mcc", 16)))
    both = feature_spec([merchant, card], event)
    assert both.names == (
        "card.since_last",
        "card.sum.amount.90s",
        "card.sum.amount.10m",
        "card.sum.amount.24h",
        "card.distinct.city.90s",
        "card.distinct.city.10m",
        "card.distinct.city.24h",
        "card.distinct.merchant.90s",
        "card.distinct.merchant.10m",
        "card.distinct.merchant.24h",
        "merchant.count.1d",
        "merchant.distinct.card.1d",
        "event.hour_of_day",
        "event.amount",
        "event.city.Bern",
        "event.city.Rome",
        "event.city.hash",
        "event.mcc.hash",
    )
    assert both.columns == (Column("card", "text"), Column("merchant", "text"), Column("city", "text"))
    assert both == feature_spec([card, merchant], event)


def test_a_predicate_and_prior_stand_at_the_end_of_a_name() -> None:
    aggregates = ["count.small", "sum.amount.small.prior", "rate.prior", "distinct.merchant.ecom", "since_last.small"]
    entity = entity_spec("card", ["1h"], [*aggregates, "last.km", "is_new.merchant", "geo_speed"], TYPES)
    defined = feature_spec([entity], EventSpec(("small", "km", "day_of_week")), TYPES)
    assert defined.names == (
        "card.count.1h.small",
        "card.sum.amount.1h.small.prior",
        "card.rate.1h.prior",
        "card.distinct.merchant.1h.ecom",
        "card.since_last.small",
        "card.last.km",
        "card.is_new.merchant.1h",
        "card.geo_speed",
        "event.small",
        "event.km",
        "event.day_of_week",
    )
    assert [aggregate.text for aggregate in entity.aggregates][:5] == aggregates


def test_what_is_stored_follows_from_fields_and_predicates_alone() -> None:
    aggregates = ["count.small", "distinct.merchant.ecom", "is_new.merchant", "last.km", "geo_speed", "last.amount"]
    card = entity_spec("card", ["1h"], aggregates, TYPES)
    assert card.columns == (
        Column("km", "number"),
        LOCATION,
        Column("merchant", "text"),
        Column("merchant", "text", "ecom"),
    )
    assert card.predicates == ("small",)
    assert entity_spec("card", ["1d", "1m"], aggregates, TYPES).columns == card.columns
    ip = entity_spec("ip", ["1h"], ["distinct.card"], TYPES)
    defined = feature_spec([ip, card], EventSpec(("ecom",)), TYPES)
    keys = (Column("card", "text"), Column("ip", "text"))
    assert defined.columns == keys + card.columns  # that of ip's distinct.card is the key
    assert defined.predicates == ("ecom", "small")


def test_windows_ascend_and_keep_their_spelling() -> None:
    entity = entity_spec("card", ["1d", "90s", "1h"], ["count"])
    assert entity.windows == ("90s", "1h", "1d")
    assert entity.windows_ms == (90_000, 3_600_000, 86_400_000)
    assert (entity.columns, entity.predicates) == ((), ())


def test_since_last_alone_needs_no_window() -> None:
    assert spec([], ["since_last"]).names == ("card.since_last",)
    assert entity_spec("card", [], ["since_last"]).windowless
    assert not entity_spec("card", ["1h"], ["count", "is_new.merchant"]).windowless


def test_a_definition_is_its_meaning_and_not_its_spelling() -> None:
    assert hash_of(["24h"], "count") == hash_of(["1d"], "count")
    assert hash_of(["24h", "7d"], "count") == hash_of(["24h"], "count")
    different = [
        hash_of(["24h"], "count"),
        hash_of(["25h"], "count"),
        hash_of(["24h"], "sum.amount"),
        hash_of(["24h"], "count", name="ip"),
        hash_of([], "since_last"),
    ]
    assert len(set(different)) == len(different)


def test_a_definition_covers_what_a_predicate_means_and_what_a_field_is() -> None:
    other = FieldTypes({"small": "amount < 3"}, frozenset(), located=True)
    assert hash_of(["1h"], "count.small", types=TYPES) != hash_of(["1h"], "count.small", types=other)
    assert hash_of(["1h"], "distinct.km", types=TYPES) != hash_of(["1h"], "distinct.km", types=other)
    assert hash_of(["1h"], "count", types=TYPES) == hash_of(["1h"], "count", types=other)
    card = entity_spec("card", ["1h"], ["count"])

    def event_hash(event: EventSpec, types: FieldTypes) -> str:
        return feature_spec([card], event, types).features[-1].definition_hash

    assert event_hash(EventSpec(("small",)), TYPES) != event_hash(EventSpec(("small",)), other)
    sizes = [event_hash(EventSpec(hashed=(("city", buckets),)), TYPES) for buckets in (8, 16, 16)]
    assert sizes[0] != sizes[1] == sizes[2]


def test_the_fingerprint_covers_names_definitions_and_order() -> None:
    fingerprint = spec(["1h", "24h"], ["count"]).fingerprint()
    assert spec(["24h", "1h"], ["count"]).fingerprint() == fingerprint
    assert spec(["1h", "1d"], ["count"]).fingerprint() != fingerprint
    assert spec(["1h"], ["count"]).fingerprint() != fingerprint
    orders = (["count", "sum.amount"], ["sum.amount", "count"])
    assert len({spec(["1h"], order).fingerprint() for order in orders}) == 2


@pytest.mark.parametrize(
    ("windows", "aggregates", "key", "said"),
    [
        (["1h", "1y"], ["count"], "windows", "'1y' is not a duration"),
        (["24h", "1d"], ["count"], "windows", "names the same length twice"),
        ([], ["count"], "windows", "is empty"),
        ([], ["count", "since_last"], "windows", "is empty"),
        (["1h"], ["count", "count"], "aggregates", "names an aggregate twice"),
        (["1h"], ["median.amount"], "aggregates", "'median.amount' is unknown; allowed: count, rate, sum.amount"),
        (["1h"], ["sum"], "aggregates", "'sum' is unknown"),
        (["1h"], ["sum.km"], "aggregates", "sum is kept of amount alone, not of 'km'"),
        (["1h"], ["distinct"], "aggregates", "'distinct' is unknown"),
        (["1h"], ["distinct.amount"], "aggregates", "distinct needs a field other than amount"),
        (["1h"], ["distinct.a.b"], "aggregates", "'b' is not a predicate; predicates: small, ecom"),
        (["1h"], ["count.small.ecom"], "aggregates", "'ecom' is too much"),
        (["1h"], ["count.prior.small"], "aggregates", "'small' is too much"),
        (["1h"], ["last.amount.small"], "aggregates", "takes no predicate"),
        (["1h"], ["since_first.small"], "aggregates", "takes no predicate"),
        (["1h"], ["since_last.prior"], "aggregates", "'prior' says nothing"),
        (["1h"], ["is_new.merchant.prior"], "aggregates", "'prior' says nothing"),
    ],
)
def test_a_wrong_definition(windows: list[str], aggregates: list[str], key: str, said: str) -> None:
    with pytest.raises(SpecError) as raised:
        entity_spec("card", windows, aggregates, TYPES)
    assert raised.value.key == key
    assert said in str(raised.value)


def test_a_speed_needs_places() -> None:
    with pytest.raises(SpecError, match=r"'geo_speed' needs mapping\.location"):
        entity_spec("card", ["1h"], ["geo_speed"])


@pytest.mark.parametrize(
    ("event", "key", "said"),
    [
        (
            EventSpec(("size",)),
            "features",
            "'size' is unknown; allowed: amount, hour_of_day, day_of_week, km, lat, ecom, ",
        ),
        (EventSpec(("km", "km")), "features", "'event.km' is named twice"),
        (EventSpec(one_hot=(("km", ("1",)),)), "one_hot.km", "is a number, not a category"),
        (EventSpec(one_hot=(("city", ("a", "a")),)), "features", "'event.city.a' is named twice"),
        (EventSpec(hashed=(("amount", 8),)), "hashed.amount", "is a number, not a category"),
        (EventSpec(hashed=(("city", 1),)), "hashed.city", "1 buckets: must be 2 to 1048576"),
    ],
)
def test_a_wrong_event_level_definition(event: EventSpec, key: str, said: str) -> None:
    with pytest.raises(SpecError) as raised:
        feature_spec([entity_spec("card", ["1h"], ["count"])], event, TYPES)
    assert raised.value.key == key
    assert said in str(raised.value)
