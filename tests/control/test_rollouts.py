"""Commands as people read them."""

import msgspec
import pytest

from engine.control.rollouts import decode_rollout, encode_rollout, rollout_of
from engine.directives import AliasMoved, Listed
from models.assignment import Assignment, canary_of, ended, promoted, rolled_back

FIRST = promoted(None, 6, "ana", "first")
SECOND = promoted(FIRST, 7, "bo", "better")


@pytest.mark.parametrize(
    ("alias", "assignment", "kind", "effect"),
    [
        ("champion", FIRST, "promote", "fraud@champion: version 6"),
        ("champion", SECOND, "promote", "fraud@champion: version 7, before 6"),
        ("champion", rolled_back(SECOND, "bo", "worse"), "rollback", "fraud@champion: version 6"),
        (
            "canary",
            canary_of(None, 8, 0.05, "bo", "try"),
            "promote",
            "fraud@canary: version 8 decides for 5.00% of the entities",
        ),
        (
            "canary",
            ended(canary_of(None, 8, 0.05, "bo", "try"), "bo", "over"),
            "rollback",
            "fraud@canary: version 8 decides no longer",
        ),
    ],
)
def test_a_moved_alias(alias: str, assignment: Assignment, kind: str, effect: str) -> None:
    moved = AliasMoved(application_id="tidegate", model="fraud", alias=alias, assignment=assignment)
    rollout = rollout_of(moved, 5)
    assert (rollout.kind, rollout.effect, rollout.offset) == (kind, effect, 5)
    assert (rollout.author, rollout.reason, rollout.at_ms) == (assignment.author, assignment.reason, assignment.at_ms)
    assert decode_rollout(encode_rollout(rollout)) == rollout


def test_a_list_gives_no_card_away() -> None:
    listed = Listed(
        application_id="tidegate",
        list="block",
        entity="card",
        entity_key="4111111111111111",
        author="ana",
        reason="stolen",
        said_at_ms=1,
    )
    assert rollout_of(listed, 1).effect == "card ************1111 is on the list block for good"
    assert rollout_of(msgspec.structs.replace(listed, until_ms=0), 1).kind == "unlist"
