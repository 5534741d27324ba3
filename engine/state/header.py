"""The record that says what the state in a database is: of which input, up to which offsets, under which rules."""

from hashlib import sha256

import msgspec

from engine.config import Config
from engine.errors import ConfigError
from engine.state.damage import WAY_OUT, DamageError
from features.arena import NEVER
from features.tiles import LADDER

FORMAT = 2


class Header(msgspec.Struct, forbid_unknown_fields=True):
    """Written with every flush. `vector`: next offset to read, per input partition. `commits`: the number of the commit
    that it is from, or of an earlier one, and `progress_offset`: where in the progress topic those after it are.

    `dedupe`: per partition the first live entry, the next one and the newest accepted time (ms). `shards` are those the
    vector holds for; in the local topology all of them. `entities`: how many of each are stored. `first_ms` and
    `newest_ms`: of the event times accepted, NEVER before any was. `cold_ms`: up to this event time there were events
    that were never seen. `forgotten_ms`: what was not heard of after this event time is deleted. `loaded`: made from
    files, and no worker has gone on from it yet.
    """

    fingerprint: str
    cluster_id: str | None = None
    topic: str = ""
    topic_id: str | None = None
    sequence: int = 0
    shards: tuple[int, int] = (0, 64)
    vector: dict[int, int] = {}
    commits: int = 0
    progress_offset: int = 0
    dedupe: dict[int, list[int]] = {}
    entities: dict[str, int] = {}
    first_ms: int = NEVER
    newest_ms: int = NEVER
    cold_ms: int = NEVER
    forgotten_ms: int = NEVER
    loaded: bool = False
    format: int = FORMAT


def encode_header(header: Header) -> bytes:
    """The bytes of a header."""
    return msgspec.json.encode(header)


def decode_header(data: bytes) -> Header:
    """Reads a header.

    ConfigError where the state was written in a format that this version does not know, DamageError where it is none.
    """
    try:
        header = msgspec.json.decode(data, type=Header)
    except msgspec.ValidationError as error:
        raise ConfigError(f"the state header is of another format ({error}); start with an empty state.dir") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DamageError(f"the state header is damaged ({error}); {WAY_OUT}") from error
    if header.format != FORMAT:
        raise ConfigError(f"the state has format {header.format}, this version reads {FORMAT}; use an empty state.dir")
    return header


def state_fingerprint(config: Config, rates_digest: str) -> str:
    """Changes with whatever decides which events are accepted and what of them is stored, and with nothing else."""
    spec = config.feature_spec()

    def meaning(name: str) -> tuple[str, list[str]] | None:
        """A predicate as what it says and of which fields of the input."""
        if not name:
            return None
        predicate = config.predicate(name)
        return predicate.text, [config.source(field) for field in (*predicate.texts, *predicate.numbers)]

    parts = {
        "mapping": {
            **msgspec.to_builtins(config.mapping),
            "base": None,
            "partition_key": None,
            "fields": None,
            "numbers": None,
            "location": None,
        },
        "keys": {entity.name: config.entity_key(entity.name) for entity in spec.entities},
        "stored": {
            entity.name: [
                [(config.sources(column), column.kind, meaning(column.predicate)) for column in entity.columns],
                [meaning(name) for name in entity.predicates],
            ]
            for entity in spec.entities
        },
        "ladder": LADDER,
        "base_currency": config.rates.base_currency,
        "rates": rates_digest,
        "ring_events_max": config.state.ring_events_max,
        "dedupe": [config.state.dedupe_horizon_ms, config.state.dedupe_entries_max],
    }
    return sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()[:16]
