"""Durations and feature definitions: names, column order, hashes, and errors that say where."""

import pytest

from features.durations import duration_ms
from features.spec import EVENT_FEATURES, FeatureSpec, SpecError, entity_spec, feature_spec


@pytest.mark.parametrize(
    ("text", "ms"),
    [("1ms", 1), ("90s", 90_000), ("10m", 600_000), ("24h", 86_400_000), ("1d", 86_400_000), ("007s", 7_000)],
)
def test_duration(text: str, ms: int) -> None:
    assert duration_ms(text) == ms


@pytest.mark.parametrize("text", ["", "0s", "000d", "5", "s", "-1s", "1.5h", "1 h", "1h ", "1H", "1w", "1h30m", "1h\n"])
def test_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration: write a positive whole number") as raised:
        duration_ms(text)
    assert repr(text) in str(raised.value)


def spec(windows: list[str], aggregates: list[str], name: str = "card") -> FeatureSpec:
    return feature_spec([entity_spec(name, windows, aggregates)], [])


def hash_of(windows: list[str], aggregate: str, name: str = "card") -> str:
    return spec(windows, [aggregate], name).features[0].definition_hash


def test_columns_stand_by_entity_then_aggregate_then_window() -> None:
    merchant = entity_spec("merchant", ["1d"], ["count", "distinct.card"])
    card = entity_spec(
        "card", ["24h", "90s", "10m"], ["since_last", "sum.amount", "distinct.city", "distinct.merchant"]
    )
    both = feature_spec([merchant, card], ["hour_of_day", "amount"])
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
    )
    assert both.hash_columns == ("card", "merchant", "city")
    assert both == feature_spec([card, merchant], ["hour_of_day", "amount"])


def test_windows_ascend_and_keep_their_spelling() -> None:
    entity = entity_spec("card", ["1d", "90s", "1h"], ["count"])
    assert entity.windows == ("90s", "1h", "1d")
    assert entity.windows_ms == (90_000, 3_600_000, 86_400_000)
    assert entity.distinct_fields == ()


def test_since_last_alone_needs_no_window() -> None:
    assert spec([], ["since_last"]).names == ("card.since_last",)
    assert entity_spec("card", [], ["since_last"]).windowless
    assert not entity_spec("card", ["1h"], ["count"]).windowless


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
        (["1h"], ["median.amount"], "aggregates", "'median.amount' is unknown; allowed: count, sum.amount"),
        (["1h"], ["distinct.a.b"], "aggregates", "'distinct.a.b' is unknown"),
        (["1h"], ["distinct"], "aggregates", "'distinct' is unknown"),
    ],
)
def test_a_wrong_definition(windows: list[str], aggregates: list[str], key: str, said: str) -> None:
    with pytest.raises(SpecError) as raised:
        entity_spec("card", windows, aggregates)
    assert raised.value.key == key
    assert said in str(raised.value)


def test_an_unknown_event_feature() -> None:
    with pytest.raises(SpecError, match=f"'size' is unknown; allowed: {', '.join(EVENT_FEATURES)}") as raised:
        feature_spec([entity_spec("card", ["1h"], ["count"])], ["size"])
    assert raised.value.key == "event"
