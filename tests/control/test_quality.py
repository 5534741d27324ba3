"""Figures against a count of every event, whatever was sampled, and however labels came."""

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.control.joined import Joined
from engine.control.quality import DAY_MS, Figures, Quality
from engine.control.records import Label
from engine.control.settings import Quality as Settings
from engine.telemetry import Sample
from tests.control.world import NOW_MS, World, label, sample, world

RATES = ("precision", "recall", "false_positive_rate")
ALWAYS = Settings(window="9000d", keep="9000d")


def joined_of(records: Sequence[Sample | Label]) -> Joined:
    joined = Joined(ALWAYS, {})
    for record in records:
        if isinstance(record, Sample):
            joined.take_sample(record)
        else:
            joined.take_label(record)
    return joined


def truth(made: World) -> dict[str, float]:
    """By counting all events, one after another."""
    kinds = {(True, True): 0, (True, False): 0, (False, True): 0, (False, False): 0}
    amounts = dict(kinds)
    for one, known in zip(made.samples, made.labels, strict=True):
        kind = (one.decision != "approve", known.label == 1)
        kinds[kind] += 1
        amounts[kind] += one.amount_minor
    caught, alarms, missed, passed = (kinds[kind] for kind in kinds)
    return {
        "precision": caught / (caught + alarms),
        "recall": caught / (caught + missed),
        "false_positive_rate": alarms / (alarms + passed),
        "value_caught": amounts[True, True],
        "value_missed": amounts[False, True],
    }


def estimates(figures: Figures) -> dict[str, float | None]:
    return {name: getattr(figures, name).value for name in (*RATES, "value_caught", "value_missed")}


def test_all_sampled_figures_are_the_truth() -> None:
    made = world(seed=1, events=2_000, rate=1.0)
    assert estimates(joined_of([*made.sampled, *made.labels]).figures(NOW_MS)) == pytest.approx(truth(made))


@given(st.randoms(use_true_random=False), st.integers(0, 5))
def test_figures_do_not_depend_on_the_order(random: Random, seed: int) -> None:
    """Labels before decisions, twice, and corrected ones: the sums are the same to the last digit."""
    made = world(seed=seed, events=60, rate=0.3, fraud_share=0.3)
    corrected = [label(number, number % 2, after_ms=2_000_000) for number in range(0, 60, 7)]
    records = [*made.sampled, *made.labels, *corrected]
    expected = joined_of(records)
    again = [*records, *random.choices(records, k=20)]
    random.shuffle(again)
    found = joined_of(again)
    assert found.quality.cells.keys() >= expected.quality.cells.keys()
    assert found.figures(NOW_MS) == expected.figures(NOW_MS)
    assert found.card_precision(NOW_MS) == expected.card_precision(NOW_MS)


def test_figures_of_a_table_are_those_of_the_records() -> None:
    made = world(seed=2, events=2_000, rate=0.1)
    table: dict[bytes, bytes] = {}
    joined = Joined(ALWAYS, table)
    for one in made.sampled:
        joined.take_sample(one)
    for known in made.labels:
        joined.take_label(known)
    again = Joined(ALWAYS, table)
    again.rebuild(table.items())
    assert again.figures(NOW_MS) == joined.figures(NOW_MS)
    assert again.quality.cards == joined.quality.cards


def test_at_a_quarter_figures_are_within_three_points() -> None:
    """Of 2,000 frauds, 600 missed: recall is off by 0.7 sqrt(3 x 600) / 2000, 1.5 points, one time in three."""
    made = world(seed=3, events=40_000, rate=0.25, fraud_share=0.05)
    found = joined_of([*made.sampled, *made.labels]).figures(NOW_MS)
    for name in RATES:
        assert getattr(found, name).value == pytest.approx(truth(made)[name], abs=0.03)


def test_at_one_percent_the_intervals_hold_the_truth_in_18_of_20_seeds() -> None:
    held = dict.fromkeys((*RATES, "value_missed"), 0)
    for seed in range(20):
        made = world(seed=seed, events=20_000, rate=0.01)
        found, exact = joined_of([*made.sampled, *made.labels]).figures(NOW_MS), truth(made)
        for name in held:
            estimate = getattr(found, name)
            low = 0.0 if estimate.low is None else estimate.low
            high = float("inf") if estimate.high is None else estimate.high
            held[name] += low <= exact[name] <= high
    assert min(held.values()) >= 18, held


def test_sampling_adds_no_bias() -> None:
    """The mean over many seeds, of what is a ratio of sums for recall alone."""
    missed, exact = [], []
    for seed in range(200):
        made = world(seed=seed, events=1_000, rate=0.1, fraud_share=0.1)
        found = joined_of([*made.sampled, *made.labels]).figures(NOW_MS)
        missed.append(found.value_missed.value or 0.0)
        exact.append(truth(made)["value_missed"])
    assert sum(missed) == pytest.approx(sum(exact), rel=0.05)


def test_segments_and_versions_have_figures_of_their_own() -> None:
    made = world(seed=4, events=3_000, rate=1.0, fraud_share=0.2)
    joined = joined_of([*made.sampled, *made.labels])
    of_web = [(one, known) for one, known in zip(made.samples, made.labels, strict=True) if one.channel == "web"]
    expected = truth(World([one for one, _ in of_web], [known for _, known in of_web], []))
    assert estimates(joined.figures(NOW_MS, channel="web")) == pytest.approx(expected)
    assert joined.figures(NOW_MS, model="fraud/2").labelled == 0


def test_decisions_before_the_window_do_not_count() -> None:
    joined = Joined(Settings(window="2d", keep="9d"), {})
    joined.take_sample(sample(1, "review"))
    joined.take_label(label(1, 1))
    assert joined.figures(NOW_MS + 2 * DAY_MS).labelled == 1
    assert joined.figures(NOW_MS + 4 * DAY_MS).labelled == 0


def test_forgotten_facts_leave_the_figures() -> None:
    table: dict[bytes, bytes] = {}
    joined = Joined(Settings(window="1d", keep="2d", label_wait="1d"), table)
    joined.take_sample(sample(1, "review"))
    joined.take_label(label(1, 1))
    joined.take_label(label(2, 1))
    over = list(joined.over(table.items(), NOW_MS + 3 * DAY_MS))
    assert sorted(over) == [b"event-1", b"event-2"]
    joined.forget(b"event-1", NOW_MS + DAY_MS)
    assert len(table) == 2
    for event in over:
        joined.forget(event, NOW_MS + 3 * DAY_MS)
    assert not table
    assert joined.figures(NOW_MS).labelled == 0


def test_card_precision_is_that_of_the_first_cards_of_each_day() -> None:
    """
    day 1     card-1 900 fraud    card-2 800 genuine   card-3 700 fraud     of 2 cards: 1/2
    day 2     card-4 100 fraud                                              of 2 cards: 1
    """
    rows = [(1, 900, 1, 0), (2, 800, 0, 0), (3, 700, 1, 0), (4, 100, 1, DAY_MS)]
    quality = Quality()
    for number, risk, fraud, later_ms in rows:
        joined = Joined(ALWAYS, {})
        joined.take_sample(sample(number, "review", risk_score=risk, decided_at_ms=NOW_MS + later_ms))
        joined.take_label(label(number, fraud))
        (cell,) = joined.quality.cells.values()
        assert cell
        quality.cards.update(
            {day: {**quality.cards.get(day, {}), **cards} for day, cards in joined.quality.cards.items()}
        )
    assert quality.card_precision(2) == 0.75
    assert quality.card_precision(1) == 1.0
    assert Quality().card_precision(2) is None


def test_quality_is_lost_where_the_whole_interval_lies_below() -> None:
    asked = Settings(window="9000d", keep="9000d", precision_min=0.5, recall_min=0.5)
    joined = Joined(asked, {})
    for number in range(100):
        joined.take_sample(sample(number, "review"))
        joined.take_label(label(number, int(number % 10 == 0)))
    (precision, recall) = joined.readings("fraud/1", NOW_MS)
    assert (precision.signal, precision.over, precision.value) == ("precision", True, 0.1)
    assert (recall.signal, recall.over) == ("recall", False)
    assert list(Joined(ALWAYS, {}).readings("fraud/1", NOW_MS)) == []
