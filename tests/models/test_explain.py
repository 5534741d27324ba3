"""Reasons name the inputs farthest out in the reference's tails, and never overstate how far."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from models.explain import ABOVE, BELOW, CANDIDATES, NO_REASON, Explainer, Reasons, reason_text
from models.manifest import Manifest
from models.reference import Reference, References, reference_of
from models.runtime import Model, load_model
from tests.models.synthetic import DEFINITIONS, NAMES


@pytest.fixture
def model(store: Path) -> Model:
    return load_model(store, "fraud@champion", DEFINITIONS)


def flat(rows: np.ndarray) -> np.ndarray:
    """A model that tells nothing apart, so that only what is unusual counts."""
    return np.full(len(rows), 0.5, np.float32)


def unusual(manifest: Manifest, rows: np.ndarray) -> Reasons:
    return explainer(manifest, flat).explain(rows, flat(rows))


def explainer(manifest: Manifest, score: Callable[[np.ndarray], np.ndarray]) -> Explainer:
    names = [feature.name for feature in manifest.features]
    return Explainer(names, [manifest.reference[name] for name in names], score)


def usual_row(manifest: Manifest) -> list[float]:
    """Every input at its median."""
    references = [manifest.reference[name] for name in NAMES]
    return [reference.edges[int(np.searchsorted(reference.up_to, 0.5))] for reference in references]


def tail_shares(reference: Reference, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of one feature by itself."""
    above, below = References([reference]).tail_shares(values[:, None])
    return above[:, 0], below[:, 0]


@pytest.mark.parametrize("sample", ["counts", "amounts", "constant", "two"])
def test_tail_shares_against_the_sample_itself(sample: str) -> None:
    rng = np.random.default_rng(2)
    values = {
        "counts": rng.geometric(0.3, 5_000).astype(np.float64),
        "amounts": np.round(rng.lognormal(3, 1, 5_000), 2),
        "constant": np.full(500, 7.0),
        "two": np.array([1.0, 2.0]),
    }[sample]
    reference = reference_of(values)
    probes = np.concatenate([values[:500], [-1.0, 1e9], values[:100] + 0.001])
    above, below = tail_shares(reference, probes)
    true_above = np.array([(values >= probe).mean() for probe in probes])
    true_below = np.array([(values <= probe).mean() for probe in probes])
    assert (above >= true_above - 1e-12).all()
    assert (below >= true_below - 1e-12).all()
    on_edge = np.isin(probes, reference.edges)
    np.testing.assert_allclose(above[on_edge], true_above[on_edge], atol=1e-12)
    np.testing.assert_allclose(below[on_edge], true_below[on_edge], atol=1e-12)


def test_nulls_have_no_tail() -> None:
    reference = reference_of(np.array([1.0, np.nan, 3.0, np.nan]))
    assert reference.null_share == 0.5
    assert np.isnan(tail_shares(reference, np.array([np.nan]))).all()
    assert np.isnan(tail_shares(reference_of(np.array([np.nan])), np.array([1.0]))).all()


def test_features_side_by_side_are_as_each_by_itself() -> None:
    rng = np.random.default_rng(3)
    references = [reference_of(sample) for sample in (rng.normal(size=900), np.full(5, np.nan), np.array([2.0, 5.0]))]
    probes = np.concatenate([rng.normal(size=(50, 3)) * 3, [[np.nan] * 3, [np.inf] * 3, [-np.inf] * 3, [2.0] * 3]])
    above, below = References(references).tail_shares(probes)
    for column, reference in enumerate(references):
        alone = tail_shares(reference, probes[:, column])
        np.testing.assert_array_equal([above[:, column], below[:, column]], alone)


def test_the_most_unusual_come_first(model: Model) -> None:
    row = usual_row(model.manifest)
    row[NAMES.index("event.amount")] = 1e6
    row[NAMES.index("merchant.count.1m")] = 9.0
    reasons = unusual(model.manifest, np.array([row]))
    assert [NAMES[i] for i in reasons.inputs[0, :2]] == ["event.amount", "merchant.count.1m"]
    assert reasons.inputs[0, 2] == NO_REASON
    assert reasons.values[0, :2].tolist() == [1e6, 9.0]
    assert reasons.directions[0, :2].tolist() == [ABOVE, ABOVE]
    assert reasons.tail_shares[0, 0] == 0.0
    assert 0 < reasons.tail_shares[0, 1] < 0.05


def test_low_values_are_reasons_too(model: Model) -> None:
    row = usual_row(model.manifest)
    row[NAMES.index("card.mean.amount.1m")] = 0.01
    reasons = unusual(model.manifest, np.array([row]))
    assert NAMES[reasons.inputs[0, 0]] == "card.mean.amount.1m"
    assert reasons.directions[0, 0] == BELOW


def test_one_aggregate_is_one_reason(model: Model) -> None:
    row = usual_row(model.manifest)
    row[NAMES.index("card.count.10s")] = 50.0
    row[NAMES.index("card.count.1m")] = 80.0
    reasons = unusual(model.manifest, np.array([row]))
    named = [NAMES[i] for i in reasons.inputs[0] if i != NO_REASON]
    assert named == ["card.count.10s"]


def test_a_row_of_nulls_has_no_reason(model: Model) -> None:
    reasons = unusual(model.manifest, np.full((2, len(NAMES)), np.nan))
    assert (reasons.inputs == NO_REASON).all()


def test_rows_are_explained_alike_alone_and_together(model: Model) -> None:
    rng = np.random.default_rng(4)
    rows = rng.lognormal(3, 2, (50, len(NAMES)))
    together = unusual(model.manifest, rows)
    for i in range(len(rows)):
        np.testing.assert_array_equal(unusual(model.manifest, rows[i : i + 1]).inputs[0], together.inputs[i])


def test_values_are_compared_as_the_model_saw_them(model: Model) -> None:
    """0.1 is no float32: a reference that ends at float32(0.1) must not call 0.1 beyond it."""
    end = float(np.float32(0.1))
    reference = {**model.manifest.reference, "event.amount": reference_of(np.full(10, end))}
    manifest = msgspec.structs.replace(model.manifest, reference=reference)
    row = [0.1, *usual_row(model.manifest)[1:]]
    assert (unusual(manifest, np.array([row])).inputs == NO_REASON).all()


# --- what the model would say otherwise --------------------------------------------------------------------------

AMOUNT, COUNT, MEAN = (NAMES.index(name) for name in ("event.amount", "card.count.10s", "card.mean.amount.1m"))


def linear(**weights: float) -> Callable[[np.ndarray], np.ndarray]:
    """Adds a weight for each input that is above 100."""
    columns = {"amount": AMOUNT, "count": COUNT, "mean": MEAN}

    def score(rows: np.ndarray) -> np.ndarray:
        found = np.full(len(rows), 0.1, np.float32)
        for name, weight in weights.items():
            found += np.float32(weight) * (np.nan_to_num(rows[:, columns[name]]) > 100)
        return found

    return score


def suspicious_row(manifest: Manifest) -> np.ndarray:
    row = np.array([usual_row(manifest)])
    row[0, AMOUNT], row[0, COUNT], row[0, MEAN] = 1e6, 1e5, 1e7
    return row


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({"amount": 0.1, "count": 0.3, "mean": 0.2}, [COUNT, MEAN, AMOUNT]),
        # What does not raise the probability is no reason, however unusual it is.
        ({"amount": 0.1, "count": -0.05}, [AMOUNT]),
        ({"count": 0.2}, [COUNT]),
    ],
)
def test_what_raises_the_probability_most_comes_first(model: Model, weights: dict, expected: list[int]) -> None:
    row, score = suspicious_row(model.manifest), linear(**weights)
    reasons = explainer(model.manifest, score).explain(row, score(row))
    assert [at for at in reasons.inputs[0].tolist() if at != NO_REASON] == expected
    names = {COUNT: "count", MEAN: "mean", AMOUNT: "amount"}
    for at, without in zip(expected, reasons.without[0].tolist(), strict=False):
        assert without == pytest.approx(score(row)[0] - weights[names[at]], abs=1e-6)


def test_where_no_group_alone_matters_what_is_unusual_does(model: Model) -> None:
    row, score = suspicious_row(model.manifest), linear(amount=-0.05)
    reasons = explainer(model.manifest, score).explain(row, score(row))
    assert set(reasons.inputs[0].tolist()) == {AMOUNT, COUNT, MEAN}


def test_a_group_is_replaced_in_all_its_windows(model: Model) -> None:
    seen: list[np.ndarray] = []

    def score(rows: np.ndarray) -> np.ndarray:
        seen.append(rows)
        return flat(rows)

    row = np.array([usual_row(model.manifest)])
    windows = [at for at, name in enumerate(NAMES) if name.startswith("card.count.")]
    assert len(windows) > 1
    row[0, windows] = 1e5
    explainer(model.manifest, score).explain(row, flat(row))
    tried = seen[0]
    usual = np.array(usual_row(model.manifest), np.float32)
    assert len(tried) == CANDIDATES
    assert (tried[0, windows] == usual[windows]).all()
    # Where fewer groups are unusual, the rest are tries of the row as it is.
    np.testing.assert_array_equal(tried[1:], np.repeat(row.astype(np.float32), CANDIDATES - 1, axis=0))


@pytest.mark.parametrize(
    ("value", "direction", "tail_share", "text"),
    [
        (14.0, ABOVE, 0.001, "x = 14, above 99.9% of the reference"),
        (812.5, ABOVE, 0.0, "x = 812.5, above all of the reference"),
        (0.5, BELOW, 0.00001, "x = 0.5, below 99.99% of the reference"),
        (1200.0, ABOVE, 0.05, "x = 1200, above 95% of the reference"),
    ],
)
def test_reasons_read_well(value: float, direction: int, tail_share: float, text: str) -> None:
    assert reason_text("x", value, direction, tail_share) == text
