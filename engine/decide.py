"""From a probability to a decision: the model's score, rules and lists over whole columns, and the reasons."""

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

from engine.events import Batch
from engine.observe.logs import masked
from engine.policy.evaluate import Inputs
from engine.policy.lists import LISTS, Found, ListHits, Lists
from engine.policy.precedence import DECISIONS, Precedence
from engine.policy.program import Program
from engine.policy.settings import Rule
from models.calibration import risk_scores
from models.explain import ABOVE, NO_REASON, Explainer, number_text, reason_text
from models.runtime import Scorer

# Any value lies in one half of the reference, so that three reasons are always found among three or more aggregates.
TAIL_SHARE_MAX = 0.5
# Codes of reasons beside the model's; documented in docs/policy.md.
RULE_CODE = "rule"
# What is told of a value that an event does not have.
UNKNOWN = "unknown"
# Combinations of rules that hold together, of which so many are kept as they are put out.
COMBINATIONS_MAX = 10_000


class Reason(TypedDict):
    """One reason, as it stands in a decision."""

    code: str
    feature: str
    value: float | None
    text: str


class RuleHit(NamedTuple):
    """A rule that held, or a list that had the event, and what it asks for."""

    id: str
    action: str


@dataclass(slots=True)
class Decisions:
    """What was decided for n events: `codes[n]` index DECISIONS, `risk_scores[n]` in 0..1000, `probabilities[n]`.

    `flagged` are the rows that are not approve, ascending; `reasons` and `typologies` have one entry for each of them,
    "" for a typology that no rule names. `rules` has the rows of which any rule or list holds.
    """

    codes: NDArray[np.int64]
    risk_scores: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    flagged: NDArray[np.intp]
    reasons: list[list[Reason]]
    typologies: list[str]
    rules: dict[int, tuple[RuleHit, ...]] = field(default_factory=dict)

    def rule_counts(self) -> dict[str, int]:
        """Of how many events which rule or list holds."""
        counts: dict[str, int] = {}
        for held, events in Counter(self.rules.values()).items():
            for hit in held:
                counts[hit.id] = counts.get(hit.id, 0) + events
        return counts


class Decider:
    """Decides by one policy and the scores of one model."""

    def __init__(self, program: Program, model: Scorer, lists: Lists, explainer: Explainer | None = None) -> None:
        """`lists` change between batches; `explainer` is the model's, where there is one."""
        self.program = program
        self._model = model
        self._lists = lists
        self._precedence = Precedence(program.policy)
        self._explainer = explainer or model.explainer()
        # As rules are told: those that override first, the strictest first, else as they are written.
        self._order = sorted(range(len(program.rules)), key=lambda at: _rank(program.rules[at]))
        self._combinations: dict[bytes, tuple[RuleHit, ...]] = {}

    def under(self, program: Program) -> "Decider":
        """The same for another policy."""
        return Decider(program, self._model, self._lists, self._explainer)

    def decide(self, batch: Batch, values: NDArray[np.float64], probabilities: NDArray[np.float32]) -> Decisions:
        """Decides n events by `probabilities[n]` and `values[n, columns]`, their features."""
        unscored = np.isnan(probabilities)
        scores = risk_scores(self._model.calibration, np.where(unscored, np.float32(0), probabilities))
        inputs = self.program.inputs(batch, values, np.where(unscored, np.nan, scores), probabilities)
        hits = self.program.hits(inputs)
        rows = np.flatnonzero(hits.any(axis=0))
        hits = hits[:, rows]
        listed = self._lists.find(batch)
        codes, scores = self._precedence.decide(scores, unscored, hits, rows, listed)
        flagged = np.flatnonzero(codes)
        decisions = Decisions(codes, scores, probabilities, flagged, [], [""] * len(flagged))
        if len(flagged):
            decisions.reasons = self._model_reasons(values, probabilities, flagged)
            self._tell_rules(decisions, batch, inputs, hits, rows)
        decisions.rules = self._combined(hits, rows)
        if listed is not None:
            self._tell_lists(decisions, batch, listed)
        return decisions

    def _combined(self, hits: NDArray[np.bool_], rows: NDArray[np.intp]) -> dict[int, tuple[RuleHit, ...]]:
        if not len(rows):
            return {}
        packed = np.packbits(hits.T, axis=1)
        keys = packed.view(f"V{packed.shape[1]}").ravel().tolist()
        found = {}
        if len(self._combinations) > COMBINATIONS_MAX:
            self._combinations.clear()
        for place, (row, key) in enumerate(zip(rows.tolist(), keys, strict=True)):
            if key not in self._combinations:
                self._combinations[key] = tuple(
                    RuleHit(self.program.rules[at].id, self.program.rules[at].action or WEIGHT)
                    for at in self._order
                    if hits[at, place]
                )
            found[row] = self._combinations[key]
        return found

    def _tell_rules(
        self, decisions: Decisions, batch: Batch, inputs: Inputs, hits: NDArray[np.bool_], rows: NDArray[np.intp]
    ) -> None:
        """Puts what rules say in front of what the model says."""
        for place, row in enumerate(decisions.flagged.tolist()):
            at = int(np.searchsorted(rows, row))
            if at == len(rows) or rows[at] != row:
                continue
            held = [rule for rule in self._order if hits[rule, at]]
            decisions.reasons[place][:0] = [self._rule_reason(rule, batch, inputs, row) for rule in held]
            typologies = (self.program.rules[rule].typology for rule in held)
            decisions.typologies[place] = next((typology for typology in typologies if typology), "")

    def _rule_reason(self, number: int, batch: Batch, inputs: Inputs, row: int) -> Reason:
        program = self.program
        rule, told, expression = program.rules[number], program.reasons[number], program.expressions[number]

        def shown(name: str) -> str:
            if name in batch.keys:
                return masked(batch.keys[name][row] or UNKNOWN)
            value = program.number(name, inputs, row)
            return UNKNOWN if value is None else number_text(value)

        values = [*map(shown, told.names), ""]
        text = "".join(part for pair in zip(told.texts, values, strict=True) for part in pair)
        feature = next((name for name in expression.names if program.names[name] == "number"), expression.names[0])
        value = program.number(feature, inputs, row)
        return Reason(code=RULE_CODE, feature=feature, value=value, text=text or f"{rule.id}: {expression.text}")

    def _tell_lists(self, decisions: Decisions, batch: Batch, listed: ListHits) -> None:
        for name, found in zip(LISTS, (listed.block, listed.allow), strict=True):
            for row, entity in zip(found.rows.tolist(), found.entities.tolist(), strict=True):
                hit = RuleHit(f"list.{name}.{self._lists.entity(entity)}", DECISIONS[-1 if name == "block" else 0])
                decisions.rules[row] = (hit, *decisions.rules.get(row, ()))
        self._tell_blocked(decisions, batch, listed.block)

    def _tell_blocked(self, decisions: Decisions, batch: Batch, found: Found) -> None:
        places = np.searchsorted(decisions.flagged, found.rows)
        for place, row, entity, note in zip(
            places.tolist(), found.rows.tolist(), found.entities.tolist(), found.notes, strict=True
        ):
            name = self._lists.entity(entity)
            text = f"{name} {masked(batch.keys[name][row] or '')} is blocked: {note.reason} ({note.author})"
            decisions.reasons[place].insert(0, Reason(code="block_list", feature=name, value=None, text=text))

    def _model_reasons(
        self, values: NDArray[np.float64], probabilities: NDArray[np.float32], flagged: NDArray[np.intp]
    ) -> list[list[Reason]]:
        """Those of the flagged rows; without a score there are none."""
        scored = ~np.isnan(probabilities[flagged])
        reasons: list[list[Reason]] = [[] for _ in flagged]
        if scored.any():
            rows = flagged[scored]
            found = self._told_by_model(values[rows], probabilities[rows])
            for place, told in zip(np.flatnonzero(scored).tolist(), found, strict=True):
                reasons[place] = told
        return reasons

    def _told_by_model(self, values: NDArray[np.float64], probabilities: NDArray[np.float32]) -> list[list[Reason]]:
        found = self._explainer.explain(values[:, self._model.columns], probabilities, TAIL_SHARE_MAX)
        calibration, names = self._model.calibration, self._explainer.names
        scores = risk_scores(calibration, probabilities)
        without = risk_scores(calibration, found.without.ravel().astype(np.float32)).reshape(found.without.shape)
        columns = (found.inputs, found.values, found.directions, found.tail_shares, without)
        return [
            [
                Reason(
                    code="unusually_high" if direction == ABOVE else "unusually_low",
                    feature=names[column],
                    value=value,
                    text=reason_text(names[column], value, direction, share) + _lower(score, less),
                )
                for column, value, direction, share, less in zip(*row, strict=True)
                if column != NO_REASON
            ]
            for score, *row in zip(scores.tolist(), *(column.tolist() for column in columns), strict=True)
        ]


def _lower(score: int, without: int) -> str:
    """What the model's risk score would be with usual values in that group, where it is lower."""
    return f"; score {without} without" if without < score else ""


# What a rule asks for that has no action.
WEIGHT = "weight"


def _rank(rule: Rule) -> tuple[bool, int]:
    return not rule.override, -(DECISIONS.index(rule.action) if rule.action else -1)
