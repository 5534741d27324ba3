"""A fact does not depend on the order in which its records come, nor on how often."""

from random import Random

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from engine.control.facts import NOTHING, Fact, Known, decode_fact, encode_fact, is_over, with_label, with_sample
from engine.control.records import Label
from engine.telemetry import Sample
from tests.control.world import NOW_MS, label, sample

DAY_MS = 86_400_000


def fact_of(records: list[Sample | Label]) -> Fact:
    fact = NOTHING
    for record in records:
        fact = with_sample(fact, record) if isinstance(record, Sample) else with_label(fact, record)
    return fact


@given(st.randoms(use_true_random=False), st.lists(st.tuples(st.integers(0, 1), st.integers(0, 50)), max_size=5))
def test_any_order_and_any_repetition_give_the_same_fact(random: Random, said: list[tuple[int, int]]) -> None:
    labels = [label(1, value, days * DAY_MS + at) for at, (value, days) in enumerate(said)]
    records: list[Sample | Label] = [sample(1, "review"), sample(1, decided_at_ms=NOW_MS + 50), *labels]
    expected = fact_of(records)
    again = records + random.choices(records, k=3)
    random.shuffle(again)
    assert fact_of(again) == expected
    assert decode_fact(encode_fact(expected)) == expected
    newest = max(labels, key=lambda one: one.labelled_at, default=None)
    assert (expected.known.label if expected.known else None) == (newest.label if newest else None)
    assert expected.decided is not None
    assert expected.decided.flagged


def test_of_two_labels_of_one_time_the_later_record_counts() -> None:
    assert fact_of([label(1, 1), label(1, 0)]).known == Known(0, NOW_MS + 1_000_000)


def test_what_nobody_waits_for_is_over() -> None:
    """
    decided    keep
    |----------------|
    labelled   label_wait      without a decision
    |------|
    """
    decided, known = with_sample(NOTHING, sample(0)), with_label(NOTHING, label(0, 1, 0))
    assert not is_over(decided, NOW_MS + 10, keep_ms=10, label_wait_ms=1)
    assert is_over(decided, NOW_MS + 11, keep_ms=10, label_wait_ms=1)
    assert not is_over(known, NOW_MS + 1, keep_ms=10, label_wait_ms=1)
    assert is_over(known, NOW_MS + 2, keep_ms=10, label_wait_ms=1)
    assert not is_over(msgspec.structs.replace(decided, known=known.known), NOW_MS + 5, keep_ms=10, label_wait_ms=1)
