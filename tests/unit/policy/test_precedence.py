"""block > override > allow > rules > model, against an interpreter that takes one event at a time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.policy.lists import Found, ListHits, Note
from engine.policy.precedence import DECISIONS, Precedence
from engine.policy.settings import Policy, Rule

ACTIONS = (None, "approve", "challenge", "review", "decline")


def rule(number: int, action: str | None, *, override: bool = False, weight: int = 0) -> Rule:
    weight = weight or (1 if action is None else 0)
    return Rule(id=f"r{number}", when="amount > 0", action=action, override=override, weight=weight)


def listed(rows: list[int]) -> Found:
    return Found(np.array(rows, np.intp), np.zeros(len(rows), np.int64), [Note("a", "b")] * len(rows))


SCORED = np.zeros(1, np.bool_)


def decide(rules: list[Rule], held: list[bool], score: int = 0, *, block: bool = False, allow: bool = False) -> str:
    """What becomes of one event, of which the model gives this score."""
    hits = np.array(held, np.bool_).reshape(-1, 1)
    rows = np.flatnonzero(hits.any(axis=0))
    lists = ListHits(block=listed([0] if block else []), allow=listed([0] if allow else []))
    codes, _ = Precedence(Policy(rules=rules)).decide(np.array([score]), SCORED, hits[:, rows], rows, lists)
    return DECISIONS[codes[0]]


def test_a_block_is_above_everything() -> None:
    rules = [rule(0, "approve", override=True), rule(1, "approve")]
    assert decide(rules, [True, True], block=True, allow=True) == "decline"


def test_an_override_is_above_lists_of_allowed_and_below_blocks() -> None:
    rules = [rule(0, "review", override=True)]
    assert decide(rules, [True], allow=True) == "review"
    assert decide(rules, [True], 999) == "review"
    assert decide(rules, [True], block=True) == "decline"


def test_of_overrides_the_strictest_counts() -> None:
    rules = [rule(0, "approve", override=True), rule(1, "challenge", override=True), rule(2, "decline")]
    assert decide(rules, [True, True, True]) == "challenge"
    assert decide(rules, [True, False, True], 999) == "approve"


def test_who_is_allowed_is_asked_no_rules_and_no_model() -> None:
    assert decide([rule(0, "decline")], [True], 1000, allow=True) == "approve"


@pytest.mark.parametrize(
    ("action", "score", "decision"),
    [
        ("challenge", 0, "challenge"),
        ("challenge", 960, "decline"),
        ("decline", 0, "decline"),
        ("approve", 960, "approve"),
        ("approve", 0, "approve"),
    ],
)
def test_a_rule_makes_nothing_milder_unless_it_approves(action: str, score: int, decision: str) -> None:
    assert decide([rule(0, action)], [True], score) == decision


def test_a_rule_that_approves_gives_way_to_a_stricter_one() -> None:
    assert decide([rule(0, "approve"), rule(1, "review")], [True, True], 0) == "review"


@pytest.mark.parametrize(("weight", "score", "decision"), [(300, 250, "challenge"), (-300, 960, "challenge")])
def test_weights_change_the_score_that_thresholds_see(weight: int, score: int, decision: str) -> None:
    assert decide([rule(0, None, weight=weight)], [True], score) == decision


def test_scores_stay_within_their_range() -> None:
    policy = Policy(rules=[rule(0, None, weight=900), rule(1, None, weight=-900)])
    rows = np.array([0, 1], np.intp)
    held = np.eye(2, dtype=np.bool_)
    _, scores = Precedence(policy).decide(np.array([500, 500]), np.zeros(2, np.bool_), held, rows, None)
    assert scores.tolist() == [1000, 0]


def by_hand(policy: Policy, held: list[bool], score: int | None, block: bool, allow: bool) -> tuple[int, int]:
    """One event, as the page reads; None: without a score."""
    rules, unscored, score = policy.rules, score is None, score or 0
    hit = [r for r, holds in zip(rules, held, strict=True) if holds]
    score = min(1000, max(0, score + sum(r.weight for r in hit)))
    overrides = [DECISIONS.index(r.action) for r in hit if r.override]
    plain = [DECISIONS.index(r.action) for r in hit if not r.override and r.action]
    by_model = sum(score >= threshold for threshold in policy.thresholds)
    if unscored:
        by_model = max(by_model, DECISIONS.index(policy.without_model))
    if block:
        return 3, score
    if overrides:
        return max(overrides), score
    if allow:
        return 0, score
    if any(plain):
        return max(*plain, by_model), score
    return (0 if plain else by_model), score


@given(st.data())
def test_whole_batches_are_decided_as_one_event_after_another(data: st.DataObject) -> None:
    rules = []
    for number in range(data.draw(st.integers(0, 6))):
        action = data.draw(st.sampled_from(ACTIONS))
        override = action is not None and data.draw(st.booleans())
        rules.append(rule(number, action, override=override, weight=data.draw(st.integers(-400, 400))))
    events = data.draw(st.integers(0, 12))
    flags = st.lists(st.booleans(), min_size=events, max_size=events)
    held = np.array([data.draw(flags) for _ in rules], np.bool_).reshape(len(rules), events)
    some = st.one_of(st.none(), st.integers(0, 1000))
    scores = data.draw(st.lists(some, min_size=events, max_size=events))
    unscored = np.array([score is None for score in scores], np.bool_)
    block, allow = data.draw(flags), data.draw(flags)
    challenge, review, decline = sorted(data.draw(st.tuples(*[st.integers(1, 1001)] * 3)))
    without = data.draw(st.sampled_from(DECISIONS))
    policy = Policy(challenge=challenge, review=review, decline=decline, without_model=without, rules=rules)
    rows = np.flatnonzero(held.any(axis=0))
    lists = ListHits(block=listed(np.flatnonzero(block).tolist()), allow=listed(np.flatnonzero(allow).tolist()))
    given_scores = np.array([score or 0 for score in scores], np.int64)
    codes, final = Precedence(policy).decide(given_scores, unscored, held[:, rows], rows, lists)
    for event in range(events):
        expected = by_hand(policy, held[:, event].tolist(), scores[event], block[event], allow[event])
        assert (codes[event], final[event]) == expected
