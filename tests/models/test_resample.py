"""The bootstrap draws cards with all their events, both models on the same draw, and the same draws each time."""

import itertools

import numpy as np

from models.labelled import NO_CARD
from models.ranking import ranking_of
from models.resample import RESAMPLES, draws, interval_of, units_of


def test_a_card_is_one_unit_and_a_row_without_one_its_own() -> None:
    labels = np.array([1, 0, 0, 1, 1], np.int8)
    units = units_of(labels, np.array([1, NO_CARD, 0, 1, NO_CARD]))
    assert units.of.tolist() == [1, 2, 0, 1, 3]
    assert (units.number, units.cards, units.frauds) == (4, 2, 2)
    without = units_of(labels, None)
    assert without.of.tolist() == [0, 1, 2, 3, 4]
    assert (without.number, without.cards, without.frauds) == (5, 0, 3)


def test_draws_are_the_same_each_time_and_of_one_size() -> None:
    labels = (np.arange(50) % 5 == 0).astype(np.int8)
    units = units_of(labels, np.arange(50) // 2)
    first, again = list(draws(units, labels)), list(draws(units, labels))
    assert len(first) == RESAMPLES
    assert {int(drawn.sum()) for drawn in first} == {25}
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(not np.array_equal(a, b) for a, b in itertools.pairwise(first))


def test_a_draw_without_a_fraud_is_drawn_again() -> None:
    labels = np.array([1, 0, 0], np.int8)
    for drawn in draws(units_of(labels, None), labels):
        assert 0 < drawn[0] < 3


def test_ten_equal_events_of_a_card_are_no_ten_proofs() -> None:
    """Copies of every row tell nothing new: by card the interval stays as wide, by event it would seem narrower."""
    rng = np.random.default_rng(3)
    labels = (rng.random(400) < 0.2).astype(np.int8)
    scores = [(0.4 * labels + rng.random(400)).astype(np.float32) for _ in range(2)]
    many = [np.repeat(score, 10) for score in scores]
    cards = np.repeat(np.arange(400), 10)
    once = width(labels, scores, None)
    assert abs(width(np.repeat(labels, 10), many, cards) / once - 1) < 1e-9
    assert width(np.repeat(labels, 10), many, None) < once / 2


def width(labels: np.ndarray, scores: list[np.ndarray], cards: np.ndarray | None) -> float:
    """Of the interval of the difference in AUC."""
    units, rankings = units_of(labels, cards), [ranking_of(labels, score) for score in scores]
    found = [[ranking.figures(drawn[units.of]).auc for ranking in rankings] for drawn in draws(units, labels)]
    low, high = interval_of(np.diff(np.array(found), axis=1)[:, 0])
    return high - low
