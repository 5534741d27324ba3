"""The record that says what the state in a database is: of which input, up to which offsets, under which rules."""

from hashlib import sha256

import msgspec

from engine.config import Config
from engine.errors import ConfigError
from features.arena import NEVER

FORMAT = 1


class Header(msgspec.Struct, forbid_unknown_fields=True):
    """Written with every flush. `vector`: next offset to read, per input partition.

    `dedupe`: per partition the first live entry, the next one and the newest accepted time (ms). `shards` are those the
    vector holds for; in the local topology all of them. `entities`: how many of each have been seen. `floor_ms`: up to
    this event time nothing is known of an absent entity.
    """

    fingerprint: str
    cluster_id: str | None = None
    topic: str = ""
    topic_id: str | None = None
    sequence: int = 0
    shards: tuple[int, int] = (0, 64)
    vector: dict[int, int] = {}
    dedupe: dict[int, list[int]] = {}
    entities: dict[str, int] = {}
    floor_ms: int = NEVER
    format: int = FORMAT


def encode_header(header: Header) -> bytes:
    """The bytes of a header."""
    return msgspec.json.encode(header)


def decode_header(data: bytes) -> Header:
    """Reads a header; ConfigError where the state was written in a format that this version does not know."""
    try:
        header = msgspec.json.decode(data, type=Header)
    except msgspec.DecodeError as error:
        raise ConfigError(f"the state header is of another format ({error}); start with an empty state.dir") from error
    if header.format != FORMAT:
        raise ConfigError(f"the state has format {header.format}, this version reads {FORMAT}; use an empty state.dir")
    return header


def state_fingerprint(config: Config, rates_digest: str) -> str:
    """Changes with whatever decides which events are accepted and what of them is stored, and with nothing else."""
    spec = config.feature_spec()
    parts = {
        "mapping": {
            **msgspec.to_builtins(config.mapping),
            "base": None,
            "partition_key": None,
            "fields": None,
        },
        "keys": {entity.name: config.entity_key(entity.name) for entity in spec.entities},
        "stored": {
            entity.name: [config.mapping.source(field) for field in entity.distinct_fields] for entity in spec.entities
        },
        "base_currency": config.rates.base_currency,
        "rates": rates_digest,
        "ring_events_max": config.state.ring_events_max,
        "dedupe": [config.state.dedupe_horizon_ms, config.state.dedupe_entries_max],
    }
    return sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()[:16]
