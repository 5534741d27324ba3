"""What operators said on `control`, in the order in which they said it."""

import msgspec

from engine.directives import AliasMoved, Command, Listed
from engine.observe.logs import masked
from engine.policy.lists import FOREVER_MS
from models.assignment import Assignment


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """One command: who said it, why, when, and what follows from it."""

    offset: int
    application_id: str
    kind: str
    effect: str
    author: str
    reason: str
    at_ms: int


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Rollout)


def encode_rollout(rollout: Rollout) -> bytes:
    """As the table holds it."""
    return _encoder.encode(rollout)


def decode_rollout(value: bytes) -> Rollout:
    """As the table holds it."""
    return _decoder.decode(value)


def rollout_of(command: Command, offset: int) -> Rollout:
    """The command at this offset, for people; keys of lists are masked."""
    if isinstance(command, AliasMoved):
        said = command.assignment
        return Rollout(
            offset=offset,
            application_id=command.application_id,
            kind=said.action,
            effect=_moved(command, said),
            author=said.author,
            reason=said.reason,
            at_ms=said.at_ms,
        )
    return Rollout(
        offset=offset,
        application_id=command.application_id,
        kind="list" if command.until_ms else "unlist",
        effect=_listed(command),
        author=command.author,
        reason=command.reason,
        at_ms=command.said_at_ms,
    )


def _moved(command: AliasMoved, said: Assignment) -> str:
    name = f"{command.model}@{command.alias}"
    if said.ended:
        return f"{name}: version {said.version} decides no longer"
    if said.share is not None:
        return f"{name}: version {said.version} decides for {said.share:.2%} of the entities"
    before = f", before {said.earlier[-1]}" if said.earlier and said.action == "promote" else ""
    return f"{name}: version {said.version}{before}"


def _listed(command: Listed) -> str:
    key = f"{command.entity} {masked(command.entity_key)}"
    if not command.until_ms:
        return f"{key} is off the list {command.list}"
    until = "for good" if command.until_ms == FOREVER_MS else f"until {command.until_ms}"
    return f"{key} is on the list {command.list} {until}"
