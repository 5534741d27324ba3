"""Which version an alias stands for, and who decided so: what the store keeps, and what goes over the control topic.

promote 7      7, earlier [5, 6]
rollback       6, earlier [5]           needs no more than the assignment before

The alias `canary` stands for a version that decides for a share of the entities, until it is ended, or until the
champion is said anew.
"""

import time
import uuid
from typing import Literal

import msgspec

from models.errors import ModelError

Action = Literal["promote", "rollback"]

CHAMPION, CHALLENGER, CANARY = ALIASES = ("champion", "challenger", "canary")

# How far back a rollback can go.
EARLIER_MAX = 20


class Assignment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """An alias stands for `version` since `at_ms` (ms since 1970), because of the command `id`.

    `earlier`: what it stood for before, the last one last, without what was rolled back. Of a canary, `share` says for
    how many of the entities it decides, and `ended` that it does so no longer.
    """

    version: int
    earlier: list[int] = []
    action: Action
    id: str
    at_ms: int
    author: str
    reason: str
    share: float | None = None
    ended: bool = False

    def __post_init__(self) -> None:
        if self.version < 1 or any(version < 1 for version in self.earlier):
            raise ValueError("version, earlier: versions are 1 or more")
        if self.share is not None and not 0 < self.share < 1:
            raise ValueError(f"share: {self.share} must be more than 0 and less than 1")


def promoted(before: Assignment | None, version: int, author: str, reason: str) -> Assignment:
    """The alias stands for this version from now on."""
    earlier = [] if before is None else [*before.earlier, before.version]
    return _after(before, "promote", version, earlier[-EARLIER_MAX:], author, reason)


def rolled_back(before: Assignment | None, author: str, reason: str) -> Assignment:
    """The alias stands for what it stood for before; ModelError where that was nothing."""
    if before is None or not before.earlier:
        raise ModelError("there is no version before to go back to")
    return _after(before, "rollback", before.earlier[-1], before.earlier[:-1], author, reason)


def canary_of(before: Assignment | None, version: int, share: float, author: str, reason: str) -> Assignment:
    """This version decides for that share of the entities from now on."""
    return msgspec.structs.replace(_after(before, "promote", version, [], author, reason), share=share)


def ended(before: Assignment | None, author: str, reason: str) -> Assignment:
    """The canary decides no longer; ModelError where there is none."""
    if before is None or before.ended:
        raise ModelError("there is none to end")
    return msgspec.structs.replace(_after(before, "rollback", before.version, [], author, reason), ended=True)


def deciding_canary(canary: Assignment | None, champion: Assignment | None) -> Assignment | None:
    """The canary, unless it was ended, or the champion was said after it: whoever moves that has drawn a conclusion."""
    if canary is None or canary.ended or canary.share is None or newest(canary, champion) is not canary:
        return None
    return canary


def standing(known: dict[str, Assignment]) -> dict[str, Assignment]:
    """Those of a model's aliases that stand for something: all but a canary that is over."""
    over = deciding_canary(known.get(CANARY), known.get(CHAMPION)) is None
    return {alias: assignment for alias, assignment in known.items() if alias != CANARY or not over}


def later_than(assignment: Assignment, *others: Assignment | None) -> Assignment:
    """The same, said after all of these, whatever the clocks of those who said them."""
    at_ms = max((assignment.at_ms, *(other.at_ms + 1 for other in others if other is not None)))
    return msgspec.structs.replace(assignment, at_ms=at_ms)


def newest(*known: Assignment | None) -> Assignment | None:
    """The one that was decided last, of those that there are."""
    return max((one for one in known if one is not None), key=lambda one: (one.at_ms, one.id), default=None)


def _after(
    before: Assignment | None, action: Action, version: int, earlier: list[int], author: str, reason: str
) -> Assignment:
    assignment = Assignment(
        version=version,
        earlier=earlier,
        action=action,
        id=str(uuid.uuid4()),
        at_ms=time.time_ns() // 1_000_000,
        author=author,
        reason=reason,
    )
    return later_than(assignment, before)
