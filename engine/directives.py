"""The compacted `control` topic: what operators decided while workers run. The last record of each key holds.

key    tidegate/fraud@champion                application, model, alias
value  {"schema":"tidegate.control.v1","kind":"model", ... "assignment":{"version":7, ...}}

key    tidegate/list/block/card/4111...       application, list, entity, key
value  {"schema":"tidegate.control.v1","kind":"list", ... "until_ms":1735689600000,"author":"ana","reason":"stolen"}
"""

from collections.abc import Iterable
from itertools import groupby
from typing import Literal, TypeAlias

import msgspec

from engine.policy.lists import FOREVER_MS, ListName, Lists, Note
from models.assignment import Assignment

SCHEMA: Literal["tidegate.control.v1"] = "tidegate.control.v1"


class AliasMoved(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="model"):
    """An alias of a model stands for another version."""

    application_id: str
    model: str
    alias: str
    assignment: Assignment
    schema: Literal["tidegate.control.v1"] = SCHEMA

    @property
    def key(self) -> bytes:
        """Of the record."""
        return alias_key(self.application_id, self.model, self.alias)


class Listed(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="list"):
    """An entity is on a list for events before a time, or, where that is 0, was taken off it."""

    application_id: str
    list: ListName
    entity: str
    entity_key: str
    until_ms: int = FOREVER_MS
    author: str
    reason: str
    said_at_ms: int
    schema: Literal["tidegate.control.v1"] = SCHEMA

    @property
    def key(self) -> bytes:
        """Of the record."""
        return f"{self.application_id}/list/{self.list}/{self.entity}/{self.entity_key}".encode()


Command: TypeAlias = AliasMoved | Listed

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Command] = msgspec.json.Decoder(Command)


def alias_key(application_id: str, model: str, alias: str) -> bytes:
    """Under which the assignment of one alias is found."""
    return f"{application_id}/{model}@{alias}".encode()


def change_lists(lists: Lists, said: Iterable[Listed]) -> None:
    """Changes lists as was said, one after another; keys of which the same was said go together."""
    for (name, entity, until_ms, author, reason), several in groupby(said, key=_same):
        keys = [listed.entity_key for listed in several]
        if until_ms:
            lists.put(name, entity, keys, until_ms, Note(author, reason))
        else:
            lists.remove(name, entity, keys)


def _same(listed: Listed) -> tuple[ListName, str, int, str, str]:
    return listed.list, listed.entity, listed.until_ms, listed.author, listed.reason


def encode_command(command: Command) -> bytes:
    """The value of its record."""
    return _encoder.encode(command)


def decode_command(value: bytes) -> Command:
    """Reads a record's value; msgspec.DecodeError where it is none that this version knows."""
    return _decoder.decode(value)
