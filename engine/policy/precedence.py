"""Which of all that speaks about an event decides it: block > override > allow > rules > model.

The highest that says something decides. A blocked entity is declined. A rule that overrides is obeyed to the letter, of
several the strictest. An allowed entity is approved. Other rules make a decision as strict as the strictest of them,
and never milder, but for rules that approve: those take the place of the model where no stricter one holds. The model
decides by its risk score, to which the weights of all rules that hold were added; where it has no score, that is 0,
and the decision in place of the model's is the policy's `without_model` at least.
"""

import numpy as np
from numpy.typing import NDArray

from engine.policy.lists import ListHits
from engine.policy.settings import SCORE_MAX, Action, Policy

Bool = NDArray[np.bool_]
Int64 = NDArray[np.int64]

DECISIONS: tuple[Action, ...] = ("approve", "challenge", "review", "decline")
APPROVE, DECLINE = 0, 3


class Precedence:
    """Decides n events by one policy."""

    def __init__(self, policy: Policy) -> None:
        self._thresholds = np.array(policy.thresholds)
        self._without_model = 0 if policy.without_model == "stop" else DECISIONS.index(policy.without_model)
        rules = policy.rules
        self._weights = np.array([rule.weight for rule in rules], np.int64)
        # How strict each rule is among those that override, and among the others; a row each, for columns of events.
        self._overriding = np.array([rule.override for rule in rules], np.bool_)[:, None]
        strict = np.array([0 if rule.action is None else DECISIONS.index(rule.action) for rule in rules], np.int64)
        self._overrides = np.where(self._overriding, strict[:, None], 0)
        self._rules = np.where(self._overriding, 0, strict[:, None])
        approving = [rule.action == "approve" and not rule.override for rule in rules]
        self._approving = np.array(approving, np.bool_)[:, None]

    def decide(
        self, scores: Int64, unscored: Bool, hits: Bool, rows: NDArray[np.intp], listed: ListHits | None
    ) -> tuple[Int64, Int64]:
        """Codes of DECISIONS and risk scores of n events, from the model's `scores[n]`, 0 where `unscored[n]`.

        `hits[rules, m]` says which rules hold of the m events of `rows`, which ascend; no rule holds of the others.
        """
        scores = scores.copy()
        held = hits.astype(np.int64)
        scores[rows] = (scores[rows] + self._weights @ held).clip(0, SCORE_MAX)
        codes = np.searchsorted(self._thresholds, scores, side="right")
        codes[unscored] = np.maximum(codes[unscored], self._without_model)
        if len(rows):
            strictest = (self._rules * held).max(axis=0)
            milder = np.where((self._approving & hits).any(axis=0), APPROVE, codes[rows])
            codes[rows] = np.where(strictest > APPROVE, np.maximum(strictest, codes[rows]), milder)
        if listed is not None:
            codes[listed.allow.rows] = APPROVE
        if len(rows):
            overridden = (self._overriding & hits).any(axis=0)
            codes[rows[overridden]] = (self._overrides * held).max(axis=0)[overridden]
        if listed is not None:
            codes[listed.block.rows] = DECLINE
        return codes, scores
