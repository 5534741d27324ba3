"""Weighted figures: those of models.metrics where every weight is 1, and those of repeated rows where it is not."""

import numpy as np
import pytest

from models.metrics import card_precision, metrics_of
from models.ranking import card_ranking_of, ranking_of

SEEDS = range(5)
DAY_MS = 86_400_000


def sample(seed: int, rows: int = 4_000) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Labels, probabilities of which many are equal, cards and times over three days."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(rows) < 0.03).astype(np.int8)
    probabilities = np.round(np.clip(rng.beta(1, 8, rows) + 0.3 * labels * rng.random(rows), 0, 1), 2)
    cards = rng.integers(0, 400, rows)
    return labels, probabilities.astype(np.float32), cards, rng.integers(20_000, 20_003, rows) * DAY_MS


@pytest.mark.parametrize("seed", SEEDS)
def test_figures_are_those_of_the_metrics(seed: int) -> None:
    labels, probabilities, _, _ = sample(seed)
    found, expected = (
        ranking_of(labels, probabilities).figures(np.ones(len(labels), np.int64)),
        metrics_of(labels, probabilities),
    )
    assert found.auc == pytest.approx(expected["auc"], abs=1e-12)
    assert found.average_precision == pytest.approx(expected["average_precision"], abs=1e-12)
    assert found.recall == pytest.approx(expected["recall_at_0.1%_false_positives"], abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_weight_is_so_many_rows(seed: int) -> None:
    labels, probabilities, _, _ = sample(seed)
    weights = np.random.default_rng(seed).integers(0, 4, len(labels))
    found = ranking_of(labels, probabilities).figures(weights)
    expected = metrics_of(np.repeat(labels, weights), np.repeat(probabilities, weights))
    assert found.auc == pytest.approx(expected["auc"], abs=1e-12)
    assert found.average_precision == pytest.approx(expected["average_precision"], abs=1e-12)
    assert found.recall == pytest.approx(expected["recall_at_0.1%_false_positives"], abs=1e-12)


def test_a_perfect_ranking_and_one_without_information() -> None:
    labels = np.array([1, 0, 0, 1, 0], np.int8)
    ones = np.ones(5, np.int64)
    assert ranking_of(labels, labels.astype(np.float32)).figures(ones) == (1.0, 1.0, 1.0)
    assert ranking_of(labels, np.full(5, 0.5, np.float32)).figures(ones) == (0.5, pytest.approx(0.4), 0.0)


def test_rows_without_weight_at_the_top_change_nothing() -> None:
    labels, probabilities = np.array([0, 1, 0], np.int8), np.array([0.9, 0.8, 0.1], np.float32)
    assert ranking_of(labels, probabilities).figures(np.array([0, 1, 1])) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("seed", SEEDS)
def test_card_precision_is_that_of_the_metrics(seed: int) -> None:
    labels, probabilities, cards, times_ms = sample(seed)
    found = card_ranking_of(labels, probabilities, cards, times_ms).precision(np.ones(400, np.int64))
    assert found == pytest.approx(card_precision(labels, probabilities, cards, times_ms)[0], abs=1e-12)
    assert 0.05 < found < 0.95


@pytest.mark.parametrize("seed", SEEDS)
def test_a_card_that_counts_twice_is_two_cards(seed: int) -> None:
    labels, probabilities, cards, times_ms = sample(seed)
    weights = np.random.default_rng(seed).integers(0, 4, 400)
    copies = weights[cards]
    copy = np.arange(copies.sum()) - np.repeat(np.cumsum(copies) - copies, copies)
    doubles = np.repeat(cards, copies) * 10 + copy
    expected = card_precision(
        np.repeat(labels, copies), np.repeat(probabilities, copies), doubles, np.repeat(times_ms, copies)
    )
    found = card_ranking_of(labels, probabilities, cards, times_ms).precision(weights)
    assert found == pytest.approx(expected[0], abs=1e-12)
