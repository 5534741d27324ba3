"""Which dead letters are sent again, and why the others are left."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from engine.letters import Filter, Ledger, Letter


class Left(StrEnum):
    """Why a letter is not sent."""

    REPLAYED = "replayed before"
    CUT = "cut, so that their end is lost"
    ATTEMPTED = "failed again after a replay (--attempts-max)"
    EXPIRED = "older than the topic keeps records (--new-timestamps)"
    LIMITED = "beyond --limit"
    GONE = "no longer in the topic"


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be sent. `to`: the topic for all; None: each letter's own. `limit`: the oldest so many."""

    filter: Filter = field(default_factory=Filter)
    to: str | None = None
    attempts_max: int = 1
    limit: int | None = None
    new_timestamps: bool = False

    def target(self, letter: Letter) -> str:
        """The topic that the letter goes to."""
        return self.to or letter.topic


@dataclass(frozen=True, slots=True)
class Plan:
    """Letters to be sent, oldest first, and how many are left, by why."""

    letters: list[Letter]
    left: Counter[Left]


def plan(
    letters: Iterable[Letter], ledger: Ledger, request: Request, oldest_ms: Mapping[str, int] | None = None
) -> Plan:
    """Decides letter by letter. `oldest_ms`: by topic, what is older than that would not be kept there."""
    chosen: list[Letter] = []
    left: Counter[Left] = Counter()
    for letter in letters:
        why = _why_left(letter, ledger, request, oldest_ms or {})
        if why is None and request.limit is not None and len(chosen) >= request.limit:
            why = Left.LIMITED
        if why is None:
            chosen.append(letter)
        else:
            left[why] += 1
    return Plan(chosen, left)


def _why_left(letter: Letter, ledger: Ledger, request: Request, oldest_ms: Mapping[str, int]) -> Left | None:
    target = request.target(letter)
    if target in ledger.sent_to(letter):
        return Left.REPLAYED
    if letter.cut_from_bytes is not None:
        return Left.CUT
    if ledger.attempt(letter) > request.attempts_max:
        return Left.ATTEMPTED
    if not request.new_timestamps and letter.sent_time_ms < oldest_ms.get(target, 0):
        return Left.EXPIRED
    return None
