"""The compacted `control` topic: what operators decided while workers run. One record for each alias of a model.

key    tidegate/fraud@champion          application, model, alias: the last record of each is what holds
value  {"schema":"tidegate.control.v1","kind":"model", ... "assignment":{"version":7, ...}}
"""

from typing import Literal

import msgspec

from models.assignment import Assignment

SCHEMA: Literal["tidegate.control.v1"] = "tidegate.control.v1"


class AliasMoved(msgspec.Struct, frozen=True, kw_only=True):
    """An alias of a model stands for another version."""

    application_id: str
    model: str
    alias: str
    assignment: Assignment
    kind: Literal["model"] = "model"
    schema: Literal["tidegate.control.v1"] = SCHEMA

    @property
    def key(self) -> bytes:
        """Of the record."""
        return alias_key(self.application_id, self.model, self.alias)


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(AliasMoved)


def alias_key(application_id: str, model: str, alias: str) -> bytes:
    """Under which the assignment of one alias is found."""
    return f"{application_id}/{model}@{alias}".encode()


def encode_command(command: AliasMoved) -> bytes:
    """The value of its record."""
    return _encoder.encode(command)


def decode_command(value: bytes) -> AliasMoved:
    """Reads a record's value; msgspec.DecodeError where it is none that this version knows."""
    return _decoder.decode(value)
