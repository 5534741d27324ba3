"""The rules of a policy, ready for whole batches of one feature set."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.events import Batch
from engine.policy.evaluate import Inputs, Layout, Rules
from engine.policy.expressions import Expression, ExpressionError, Kind, parse_expression
from engine.policy.settings import Policy, Rule
from features.spec import FeatureSpec
from features.words import text_word

Bool = NDArray[np.bool_]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

# What the model says, and the amount in major units: names that every policy has.
SCORE, PROBABILITY, AMOUNT = "score", "probability", "amount"
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}|[{}]")


class PolicyError(ValueError):
    """A policy that cannot be used; says which key of it is wrong, and where."""


@dataclass(frozen=True, slots=True)
class Fields:
    """Event fields, by our name, that a policy may use beside features."""

    texts: frozenset[str]
    numbers: frozenset[str]

    def __or__(self, other: "Fields") -> "Fields":
        """Those of either; what one reads as text and the other as a number is in both."""
        return Fields(self.texts | other.texts, self.numbers | other.numbers)


NO_FIELDS = Fields(frozenset(), frozenset())


def names_of(policy: Policy, spec: FeatureSpec, fields: Fields) -> dict[str, Kind]:
    """Every name that conditions of this policy may have; raises PolicyError where one would mean two things."""
    names: dict[str, Kind] = dict.fromkeys(spec.predicates, "flag")
    names |= dict.fromkeys(sorted(fields.texts), "text")
    names |= dict.fromkeys(sorted(fields.numbers), "number")
    names |= dict.fromkeys((entity.name for entity in spec.entities), "text")
    names |= dict.fromkeys((*spec.names, SCORE, PROBABILITY, AMOUNT), "number")
    for key, kind, declared in (("texts", "text", policy.texts), ("numbers", "number", policy.numbers)):
        for name in declared:
            if names.setdefault(name, kind) != kind:  # type: ignore[arg-type]
                raise PolicyError(f"{key}: {name!r} is a {names[name]} already")
    return names


@dataclass(frozen=True, slots=True)
class Told:
    """The text of a rule's reason in parts: what stands between the values, and the names of the values."""

    texts: tuple[str, ...]
    names: tuple[str, ...]


class Program:
    """What holds for which event. `rules[r]` have `expressions[r]` and are told by `reasons[r]`.

    `fields` are those of events that have to be read for it, beside what features need.
    """

    def __init__(self, policy: Policy, spec: FeatureSpec, fields: Fields, minor_per_major: int) -> None:
        """Raises PolicyError for the first condition or reason that cannot be read."""
        names = names_of(policy, spec, fields)
        self.policy = policy
        self.rules = policy.rules
        self.expressions = [_parsed(rule, names) for rule in policy.rules]
        self.reasons = [_told(rule, names, spec) for rule in policy.rules]
        self.names = names
        used = {name for expression in self.expressions for name in expression.names}
        used |= {name for told in self.reasons for name in told.names}
        self._minor_per_major = minor_per_major
        features = {name: at for at, name in enumerate(spec.names)}
        kinds = {name: names[name] for name in sorted(used - features.keys())}
        self._words = {entity.name: at for at, entity in enumerate(spec.entities)}
        self._bits = {name: bit for bit, name in enumerate(spec.predicates)}
        self._extra, self._texts, self._flags = (
            [name for name, kind in kinds.items() if kind == wanted] for wanted in ("number", "text", "flag")
        )
        self.fields = Fields(frozenset(self._texts) - self._words.keys(), frozenset(self._extra) - _OWN)
        self._layout = Layout(features, *(_places(found) for found in (self._extra, self._texts, self._flags)))
        self._rules = Rules(self.expressions, self._layout, text_word)

    def inputs(self, batch: Batch, values: Float64, scores: Float64, probabilities: NDArray[np.float32]) -> Inputs:
        """What the conditions read of n events: `values[n, features]`; `scores[n]`, `probabilities[n]`, NaN without."""
        events = len(scores)
        extra = np.empty((len(self._extra), events))
        for row, name in enumerate(self._extra):
            extra[row] = self._number(name, batch, scores, probabilities)
        texts = np.empty((len(self._texts), events), np.uint64)
        for row, name in enumerate(self._texts):
            texts[row] = batch.words[:, self._words[name]] if name in self._words else batch.categories[name]
        flags = np.empty((len(self._flags), events), np.bool_)
        for row, name in enumerate(self._flags):
            flags[row] = batch.flags >> self._bits[name] & 1
        return Inputs(np.require(values, np.float64, ("C", "W")), extra, texts, flags)

    def _number(
        self, name: str, batch: Batch, scores: Float64, probabilities: NDArray[np.float32]
    ) -> NDArray[np.float32] | Float64:
        if name == SCORE:
            return scores
        if name == PROBABILITY:
            return probabilities
        return batch.amounts_minor / self._minor_per_major if name == AMOUNT else batch.numbers[name]

    def hits(self, inputs: Inputs) -> Bool:
        """Where which rule holds: bool[rules, n]."""
        return self._rules.holds(inputs)

    def number(self, name: str, inputs: Inputs, row: int) -> float | None:
        """A number that a condition or a reason reads of one event; None where that is no number, or absent."""
        if name in self._layout.values:
            value = inputs.values[row, self._layout.values[name]]
        elif name in self._layout.extra:
            value = inputs.extra[self._layout.extra[name], row]
        else:
            return None
        return float(value) if np.isfinite(value) else None


def _places(names: list[str]) -> dict[str, int]:
    return {name: at for at, name in enumerate(names)}


_OWN = frozenset({SCORE, PROBABILITY, AMOUNT})


def _parsed(rule: Rule, names: Mapping[str, Kind]) -> Expression:
    try:
        return parse_expression(rule.when, names)
    except ExpressionError as error:
        raise PolicyError(f"rules.{rule.id}.when: {error}") from error


def _told(rule: Rule, names: Mapping[str, Any], spec: FeatureSpec) -> Told:
    texts, used, end = [], [], 0
    entities = {entity.name for entity in spec.entities}
    for match in _PLACEHOLDER.finditer(rule.reason):
        name = match[1]
        where = f"rules.{rule.id}.reason: column {match.start() + 1}"
        if name is None:
            raise PolicyError(f"{where}: a brace without its pair; a value is written as {{name}}")
        if names.get(name) != "number" and name not in entities:
            raise PolicyError(f"{where}: {name!r} is no number and no entity, which are all that reasons can name")
        texts.append(rule.reason[end : match.start()])
        used.append(name)
        end = match.end()
    return Told((*texts, rule.reason[end:]), tuple(used))
