"""Which version an alias stands for, and who decided so: what the store keeps, and what goes over the control topic.

promote 7      7, earlier [5, 6]
rollback       6, earlier [5]           needs no more than the assignment before
"""

import time
import uuid
from typing import Literal

import msgspec

from models.errors import ModelError

Action = Literal["promote", "rollback"]

# How far back a rollback can go.
EARLIER_MAX = 20


class Assignment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An alias stands for `version` since `at_ms` (ms since 1970), because of the command `id`.

    `earlier`: what it stood for before, the last one last, without what was rolled back.
    """

    version: int
    earlier: list[int] = []
    action: Action
    id: str
    at_ms: int
    author: str
    reason: str

    def __post_init__(self) -> None:
        if self.version < 1 or any(version < 1 for version in self.earlier):
            raise ValueError("version, earlier: versions are 1 or more")


def promoted(before: Assignment | None, version: int, author: str, reason: str) -> Assignment:
    """The alias stands for this version from now on."""
    earlier = [] if before is None else [*before.earlier, before.version]
    return _after(before, "promote", version, earlier[-EARLIER_MAX:], author, reason)


def rolled_back(before: Assignment | None, author: str, reason: str) -> Assignment:
    """The alias stands for what it stood for before; ModelError where that was nothing."""
    if before is None or not before.earlier:
        raise ModelError("there is no version before to go back to")
    return _after(before, "rollback", before.earlier[-1], before.earlier[:-1], author, reason)


def newest(*known: Assignment | None) -> Assignment | None:
    """The one that was decided last, of those that there are."""
    return max((one for one in known if one is not None), key=lambda one: (one.at_ms, one.id), default=None)


def _after(
    before: Assignment | None, action: Action, version: int, earlier: list[int], author: str, reason: str
) -> Assignment:
    """Later than the one before, whatever this machine's clock says."""
    now_ms = time.time_ns() // 1_000_000
    return Assignment(
        version=version,
        earlier=earlier,
        action=action,
        id=str(uuid.uuid4()),
        at_ms=now_ms if before is None else max(now_ms, before.at_ms + 1),
        author=author,
        reason=reason,
    )
