"""Two policies over the same events: how often which decision becomes which other one, and examples of each change.

Features and probabilities are computed once, so whatever differs is the policies' doing.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from engine.assemble import assemble, load_rates, policy_program
from engine.config import Config
from engine.decide import Decisions
from engine.decode import Decoder
from engine.events import Batch, Records
from engine.observe.logs import masked
from engine.policy.precedence import DECISIONS
from engine.policy.program import Program
from engine.policy.settings import Policy
from engine.rates import minor_per_major
from engine.replay import flush_when_full, with_scratch_state
from engine.score import score

KINDS = len(DECISIONS)

# Codes of DECISIONS: by the policy that runs, and by the candidate.
Change = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one policy says of an event; `rules` are the ids of those that hold."""

    decision: str
    risk_score: int
    rules: list[str]


@dataclass(frozen=True, slots=True)
class Example:
    """One event that is decided otherwise. `amount` in major units of `currency`; `keys` masked, by entity."""

    event_id: str
    event_time: int
    amount: float
    currency: str
    keys: dict[str, str]
    running: Outcome
    candidate: Outcome


@dataclass(slots=True)
class PolicyDiff:
    """`matrix[r][c]` counts events that the running policy decides as DECISIONS[r], the candidate as DECISIONS[c].

    `running_rules` and `candidate_rules`: of how many events each rule holds.
    """

    running: str
    candidate: str
    running_rules: dict[str, int]
    candidate_rules: dict[str, int]
    events: int = 0
    decided: int = 0
    dead_letters: int = 0
    duplicates: int = 0
    matrix: list[list[int]] = field(default_factory=lambda: [[0] * KINDS for _ in DECISIONS])
    examples: dict[Change, list[Example]] = field(default_factory=dict)

    @property
    def changed(self) -> int:
        """Events that are decided otherwise."""
        return sum(self.matrix[was][now] for was, now in self.changes())

    def changes(self) -> list[Change]:
        """The cells in which decisions differ and that have events."""
        return [(was, now) for was in range(KINDS) for now in range(KINDS) if was != now and self.matrix[was][now]]

    def as_json(self) -> dict[str, Any]:
        """With decisions by name: the matrix as what they were by the running policy, then what they become."""
        named = [dict(zip(DECISIONS, row, strict=True)) for row in self.matrix]
        return {
            "running": self.running,
            "candidate": self.candidate,
            "events": self.events,
            "decided": self.decided,
            "dead_letters": self.dead_letters,
            "duplicates": self.duplicates,
            "changed": self.changed,
            "matrix": dict(zip(DECISIONS, named, strict=True)),
            "rules": {"running": self.running_rules, "candidate": self.candidate_rules},
            "changes": [
                {
                    "running": DECISIONS[was],
                    "candidate": DECISIONS[now],
                    "events": self.matrix[was][now],
                    "examples": [msgspec.to_builtins(example) for example in self.examples[was, now]],
                }
                for was, now in self.changes()
            ],
        }


def compare(
    records: Iterator[Records],
    config: Config,
    candidate: Policy,
    *,
    examples_max: int,
    advance: Callable[[PolicyDiff], None] = lambda diff: None,
) -> PolicyDiff:
    """Decides every event by the policy of the configuration and by the candidate, both without lists.

    Keeps the first `examples_max` events of each change; calls `advance` after each micro-batch. ConfigError where
    the candidate cannot be used.
    """
    spec = config.feature_spec()
    program = policy_program(msgspec.structs.replace(config, policy=candidate), spec)
    with ExitStack() as resources_open:
        config = with_scratch_state(config, resources_open)
        pipeline = assemble(config, resources_open)
        running = pipeline.champion.decider
        other = running.under(program)
        decoder = Decoder(config, spec, load_rates(config), pipeline.program.fields | program.fields)
        diff = PolicyDiff(pipeline.program.policy.label, candidate.label, _no_hits(pipeline.program), _no_hits(program))
        for batch in records:
            decoded, dead_letters = decoder.decode(batch)
            accepted = pipeline.state.accept(decoded)
            if len(accepted):
                matrix = pipeline.state.features(accepted)
                probabilities = score(pipeline.model, matrix.values, goes_on=False)
                before = running.decide(accepted, matrix.values, probabilities)
                after = other.decide(accepted, matrix.values, probabilities)
                _count(diff, before, after)
                _keep_examples(diff, accepted, before, after, examples_max)
            diff.events += len(batch)
            diff.decided += len(accepted)
            diff.dead_letters += len(dead_letters)
            diff.duplicates += len(decoded) - len(accepted)
            flush_when_full(pipeline.state, config)
            advance(diff)
    return diff


def _no_hits(program: Program) -> dict[str, int]:
    return dict.fromkeys((rule.id for rule in program.rules), 0)


def _count(diff: PolicyDiff, before: Decisions, after: Decisions) -> None:
    cells = np.bincount(before.codes * KINDS + after.codes, minlength=KINDS * KINDS)
    for cell, events in enumerate(cells.tolist()):
        diff.matrix[cell // KINDS][cell % KINDS] += events
    for counts, decisions in ((diff.running_rules, before), (diff.candidate_rules, after)):
        for rule, events in decisions.rule_counts().items():
            counts[rule] += events


def _keep_examples(diff: PolicyDiff, batch: Batch, before: Decisions, after: Decisions, examples_max: int) -> None:
    for row in np.flatnonzero(before.codes != after.codes).tolist():
        kept = diff.examples.setdefault((int(before.codes[row]), int(after.codes[row])), [])
        if len(kept) < examples_max:
            kept.append(
                Example(
                    event_id=batch.event_ids[row],
                    event_time=int(batch.times_ms[row]),
                    amount=int(batch.amounts_minor[row]) / minor_per_major(batch.currency),
                    currency=batch.currency,
                    keys={name: masked(key) for name, column in batch.keys.items() if (key := column[row]) is not None},
                    running=_outcome(before, row),
                    candidate=_outcome(after, row),
                )
            )


def _outcome(decisions: Decisions, row: int) -> Outcome:
    rules = [hit.id for hit in decisions.rules.get(row, ())]
    return Outcome(DECISIONS[int(decisions.codes[row])], int(decisions.risk_scores[row]), rules)
