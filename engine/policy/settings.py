"""A policy as it is written: thresholds, rules, and what they read of events; with the same keys as `[policy]` has.

What is wrong with a single key is refused here; what needs the feature set to be seen, in engine/policy/program.py.
"""

import re
from typing import Literal

import msgspec

Action = Literal["approve", "challenge", "review", "decline"]
RULE_ID = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
WORD_CHARS_MAX = 64
RULES_MAX = 1_000
SCORE_MAX = 1_000
# A threshold that no score reaches.
NEVER_REACHED = SCORE_MAX + 1


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What follows where the condition `when` holds.

    `action`: the decision is at least as strict, or, by approve, not the model's. `override`: it is exactly this,
    whatever the model and lists of those who are allowed say. `weight` is added to the risk score. `reason` is what
    people read, with the values of `{names}`.
    """

    id: str
    when: str
    action: Action | None = None
    override: bool = False
    weight: int = 0
    typology: str = ""
    reason: str = ""

    def __post_init__(self) -> None:
        if not RULE_ID.fullmatch(self.id):
            raise ValueError(f"id: {self.id!r} must be of a-z, 0-9, '_', '-', '.', at most 64 of them")
        if self.action is None and not self.weight:
            raise ValueError(f"rule {self.id!r} does nothing: it needs an action, a weight, or both")
        if self.override and self.action is None:
            raise ValueError(f"rule {self.id!r}: override needs an action")
        if not -SCORE_MAX <= self.weight <= SCORE_MAX:
            raise ValueError(f"rule {self.id!r}: weight {self.weight} must be within -{SCORE_MAX}..{SCORE_MAX}")
        if len(self.typology) > WORD_CHARS_MAX:
            raise ValueError(f"rule {self.id!r}: typology has more than {WORD_CHARS_MAX} characters")


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How scores become decisions.

    `challenge`, `review`, `decline`: the risk scores (0-1000) from which a decision is that. `without_model`: what an
    event at least is decided as that no model can score, or that nothing may be decided then. `texts` and `numbers` are
    fields of events that only rules read. `file` is where it was read from, empty where from the configuration.
    """

    name: str = "thresholds"
    version: str = "1"
    challenge: int = 500
    review: int = 800
    decline: int = 950
    without_model: Literal["stop"] | Action = "stop"
    texts: list[str] = []
    numbers: list[str] = []
    rules: list[Rule] = []
    file: str = ""

    def __post_init__(self) -> None:
        for key, word in (("name", self.name), ("version", self.version)):
            if not 0 < len(word) <= WORD_CHARS_MAX:
                raise ValueError(f"{key}: {word!r} must have 1 to {WORD_CHARS_MAX} characters")
        if not 0 < self.challenge <= self.review <= self.decline <= NEVER_REACHED:
            written = f"{self.challenge}, {self.review}, {self.decline}"
            raise ValueError(f"challenge, review, decline: {written} must ascend within 1..{NEVER_REACHED}")
        if len(self.rules) > RULES_MAX:
            raise ValueError(f"rules: {len(self.rules)} are more than {RULES_MAX}")
        ids = [rule.id for rule in self.rules]
        if twice := sorted({rule for rule in ids if ids.count(rule) > 1}):
            raise ValueError(f"rules: the id {twice[0]!r} is given twice")
        if both := sorted(set(self.texts) & set(self.numbers)):
            raise ValueError(f"texts, numbers: {both[0]!r} is in both")

    @property
    def thresholds(self) -> tuple[int, int, int]:
        """Of challenge, review and decline."""
        return self.challenge, self.review, self.decline

    @property
    def facts(self) -> dict[str, str]:
        """Which policy it is, as decisions say."""
        return {"name": self.name, "version": self.version}

    @property
    def label(self) -> str:
        """The same in one word."""
        return f"{self.name}/{self.version}"
