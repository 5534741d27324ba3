"""Decisions: thresholds to the point, and reasons that can be found again in the features."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.decide import Decisions
from engine.policy.precedence import DECISIONS
from engine.policy.settings import Policy
from models.explain import REASONS_PER_ROW
from tests.pipelines import blank_batch, decider_of, demo_model, profile

NAMES = profile().feature_spec().names


def decide(probabilities: list[float], policy: Policy | None = None, values: np.ndarray | None = None) -> Decisions:
    if values is None:
        values = np.zeros((len(probabilities), len(NAMES)))
    batch = blank_batch(len(probabilities))
    return decider_of(policy or Policy()).decide(batch, values, np.array(probabilities, np.float32))


def kinds(decisions: Decisions) -> list[str]:
    return [DECISIONS[code] for code in decisions.codes]


@pytest.mark.parametrize(
    ("score", "decision"),
    [
        (0, "approve"),
        (499, "approve"),
        (500, "challenge"),
        (799, "challenge"),
        (800, "review"),
        (949, "review"),
        (950, "decline"),
        (1000, "decline"),
    ],
)
def test_a_decision_begins_at_its_threshold(score: int, decision: str) -> None:
    decisions = decide([score / 1000])
    assert decisions.risk_scores.tolist() == [score]
    assert kinds(decisions) == [decision]


@pytest.mark.parametrize(
    ("policy", "at_600"),
    [
        (Policy(challenge=600, review=600, decline=600), "decline"),
        (Policy(challenge=600, review=600, decline=601), "review"),
        (Policy(challenge=600, review=601, decline=1001), "challenge"),
        (Policy(challenge=1001, review=1001, decline=1001), "approve"),
    ],
)
def test_equal_thresholds_leave_the_milder_decisions_out(policy: Policy, at_600: str) -> None:
    assert kinds(decide([0.6], policy)) == [at_600]


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=20), st.tuples(*[st.integers(1, 1001)] * 3))
def test_every_row_is_decided_by_itself(probabilities, thresholds) -> None:
    challenge, review, decline = sorted(thresholds)
    decisions = decide(probabilities, Policy(challenge=challenge, review=review, decline=decline))
    for row, probability in enumerate(probabilities):
        score = round(probability * 1000)
        assert decisions.risk_scores[row] == score
        by_hand = (score >= challenge) + (score >= review) + (score >= decline)
        assert decisions.codes[row] == by_hand
    assert decisions.flagged.tolist() == [row for row, code in enumerate(decisions.codes.tolist()) if code]
    assert len(decisions.reasons) == len(decisions.flagged)


def test_nothing_to_decide() -> None:
    decisions = decide([])
    assert (len(decisions.codes), len(decisions.flagged), decisions.reasons) == (0, 0, [])


# --- reasons ---------------------------------------------------------------------------------------------------


def unusual(**features: float) -> np.ndarray:
    """One row, everything null but these; `card_count_10s` is card.count.10s."""
    row = np.full((1, len(NAMES)), np.nan)
    for name, value in features.items():
        row[0, NAMES.index(name.replace("__", "."))] = value
    return row


def test_only_decisions_that_are_not_approve_have_reasons() -> None:
    values = np.concatenate([unusual(card__count__1m=90.0), unusual(card__count__10s=50.0), unusual()])
    decisions = decide([0.1, 0.9, 0.2], values=values)
    assert decisions.flagged.tolist() == [1]
    assert [reason["feature"] for reason in decisions.reasons[0]] == ["card.count.10s"]


def test_a_reason_names_feature_value_and_direction() -> None:
    (reasons,) = decide([0.9], values=unusual(card__count__10s=50.0)).reasons
    assert reasons == [
        {
            "code": "unusually_high",
            "feature": "card.count.10s",
            "value": 50.0,
            "text": "card.count.10s = 50, above all of the reference; score 9 without",
        }
    ]


def test_reasons_are_what_the_features_say() -> None:
    rng = np.random.default_rng(3)
    values = np.round(rng.lognormal(2, 2, (200, len(NAMES))), 2)
    values[rng.random(values.shape) < 0.3] = np.nan
    decisions = decide([0.9] * 200, values=values)
    inputs = {feature.name for feature in demo_model().manifest.features}
    for row, reasons in enumerate(decisions.reasons):
        assert 1 <= len(reasons) <= REASONS_PER_ROW
        assert len({reason["feature"] for reason in reasons}) == len(reasons)
        for reason in reasons:
            assert reason["feature"] in inputs
            assert reason["value"] == values[row, NAMES.index(reason["feature"])]
            assert (reason["code"] == "unusually_high") == (" above " in reason["text"])
            assert reason["text"].startswith(f"{reason['feature']} = ")
            assert type(reason["value"]) is float
    codes = {reason["code"] for reasons in decisions.reasons for reason in reasons}
    assert codes == {"unusually_high", "unusually_low"}


def test_without_any_value_there_is_no_reason() -> None:
    assert decide([0.9], values=unusual()).reasons == [[]]
