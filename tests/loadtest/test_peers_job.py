"""The small job's oracle against a rescan of everything, and what of its stream everything else rests on."""

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from loadtest.peers.job import CARDS, HOT_CARD, WINDOW_MS, Stream, number_of, oracle, stream

# A card, cents, and ms since the event before; steps around a window's length, so that its edge is met.
STEPS = st.sampled_from([1, 20, WINDOW_MS // 2, WINDOW_MS - 1, WINDOW_MS, WINDOW_MS + 1])
EVENTS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 10**9), STEPS), min_size=1, max_size=30)


@given(EVENTS)
def test_the_oracle_is_a_rescan(rows: list[tuple[int, int, int]]) -> None:
    cards, amounts, steps = np.array(rows, np.int64).T
    times = np.cumsum(steps)
    counts, sums = oracle(Stream(cards, amounts, times))
    for row in range(len(rows)):
        within = (cards == cards[row]) & (times > times[row] - WINDOW_MS) & (times <= times[row])
        assert counts[row] == within.sum()
        assert sums[row] == amounts[within].sum()


def test_values_are_json_with_the_columns_in_it() -> None:
    events = stream(50, hot=False)
    for row, (value, key, event_id) in enumerate(
        zip(events.values(0, 50), events.keys(0, 50), events.ids(), strict=True)
    ):
        decoded = json.loads(value)
        assert decoded["event_id"] == event_id
        assert number_of(event_id) == row
        assert decoded["event_time"] == events.times_ms[row]
        assert round(decoded["amount"] * 100) == events.amounts_minor[row]
        assert decoded["card"].encode() == key


def test_parts_of_a_stream_are_what_they_are_in_the_whole() -> None:
    events = stream(25, hot=True)
    pieces = list(events.chunks(3, 25, size=10))
    assert pieces == [(3, 13), (13, 23), (23, 25)]
    assert [value for first, last in pieces for value in events.values(first, last)] == events.values(0, 25)[3:]


def test_no_two_events_have_the_same_time_and_cards_are_uniform() -> None:
    events = stream(200_000, hot=False)
    assert len(np.unique(events.times_ms)) == len(events)
    assert 80_000 < len(np.unique(events.cards)) < CARDS
    assert np.bincount(events.cards).max() < 20


def test_a_hot_card_has_half_of_all_events() -> None:
    share = (stream(100_000, hot=True).cards == HOT_CARD).mean()
    assert 0.49 < share < 0.51
