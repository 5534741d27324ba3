"""Reads every row of a state and says what is wrong with it, without changing anything.

What RocksDB checks by itself (the checksum of every block) and what only we can: the kind and place of every key, the
checksum and form of every entity, that the header's counts are those of the rows, that no event id is missing.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from engine.errors import ConfigError
from engine.state.cache import CHECKSUM_BYTES, checksum
from engine.state.damage import DamageError
from engine.state.dedupe import segment_entries
from engine.state.header import Header, decode_header
from engine.state.keys import (
    DEDUPE,
    ENTITY_KEY_BYTES,
    ENTITY_KIND_FIRST,
    HEADER,
    SEGMENT_KEY_BYTES,
    SHARDS,
    parsed_entity_keys,
    parsed_segment_key,
)
from engine.state.manifest import check_file, check_sizes, read_manifest
from engine.state.peek import FrozenStore, has_state
from features.blob import room_for
from features.block import block_words_max
from features.dedupe import FIRST, NEXT
from features.program import COLUMNS, PREDICATES, TABLES, compile_program
from features.spec import FeatureSpec

BATCH_ROWS = 4_096
PROBLEMS_MAX = 20

Row = tuple[bytes, bytes]


@dataclass(slots=True)
class Verdict:
    """What was read, and what is wrong: the first `PROBLEMS_MAX` of it, and how much there is in all."""

    rows: int = 0
    bytes: int = 0
    entities: dict[str, int] = field(default_factory=dict)
    event_ids: int = 0
    header: Header | None = None
    problems: list[str] = field(default_factory=list)
    problem_count: int = 0

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return self.problem_count == 0

    def as_json(self) -> dict[str, object]:
        """For programs."""
        return {
            "sound": self.sound,
            "rows": self.rows,
            "bytes": self.bytes,
            "entities": self.entities,
            "event_ids": self.event_ids,
            "sequence": self.header and self.header.sequence,
            "vector": self.header and self.header.vector,
            "problems": self.problems,
            "problem_count": self.problem_count,
        }

    def wrong(self, problem: str) -> None:
        """Notes something."""
        self.problem_count += 1
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(problem)


@dataclass(frozen=True, slots=True)
class Shape:
    """What the rows of a state must be like: the entities, and how much one can take up."""

    spec: FeatureSpec
    ring_events_max: int
    ttl_ms: int


def verify_state(folder: Path, shape: Shape, advance: Callable[[Verdict], None] = lambda verdict: None) -> Verdict:
    """Verifies the state in a folder, or that of a checkpoint; a worker may be running on it.

    `advance` is called now and then. ConfigError where there is no state, or it is of another format.
    """
    if not has_state(folder) and not any(folder.glob("rocksdb/*.sst")):
        raise ConfigError(f"{folder} holds no state yet")
    verdict = Verdict(entities={entity.name: 0 for entity in shape.spec.entities})
    rows = _Rows(verdict, shape)
    try:
        with FrozenStore(folder) as store:
            stored = store.get(HEADER)
            verdict.header = decode_header(stored) if stored is not None else None
            scan = store.scan_from(b"")
            while batch := list(islice(scan, BATCH_ROWS)):
                rows.check(batch)
                advance(verdict)
    except DamageError as error:
        verdict.wrong(str(error))
        return verdict
    rows.check_whole()
    return verdict


def verify_checkpoint(folder: Path, shape: Shape, advance: Callable[[Verdict], None] = lambda verdict: None) -> Verdict:
    """Verifies every file of a checkpoint against its manifest, and then the state in it."""
    try:
        manifest = read_manifest(folder)
        check_sizes(folder, manifest)
        for file in manifest.files:
            check_file(folder, file)
    except DamageError as error:
        verdict = Verdict()
        verdict.wrong(str(error))
        return verdict
    return verify_state(folder, shape, advance)


class _Rows:
    """Everything that is known of the rows so far."""

    def __init__(self, verdict: Verdict, shape: Shape) -> None:
        self._verdict = verdict
        self._names = [entity.name for entity in shape.spec.entities]
        self._facts = compile_program(shape.spec).facts
        self._ring_events_max = shape.ring_events_max
        self._words_max = max(
            block_words_max(shape.ring_events_max, fact[COLUMNS], fact[PREDICATES], fact[TABLES], shape.ttl_ms)
            for fact in self._facts.tolist()
        )
        self._last = b""
        self._live: Counter[int] = Counter()

    def check(self, rows: list[Row]) -> None:
        """The next rows, in the order in which the database has them."""
        entities = []
        for key, value in rows:
            self._verdict.rows += 1
            self._verdict.bytes += len(key) + len(value)
            if key <= self._last:
                self._verdict.wrong(f"key {key.hex()} follows {self._last.hex()}")
            self._last = key
            if key[:1] == DEDUPE and len(key) == SEGMENT_KEY_BYTES:
                self._check_segment(key, value)
            elif len(key) == ENTITY_KEY_BYTES and 0 <= key[0] - ENTITY_KIND_FIRST < len(self._names):
                entities.append((key, value))
            elif key != HEADER:
                self._verdict.wrong(f"key {key.hex()} is of no known kind")
        self._check_entities(entities)

    def _check_segment(self, key: bytes, value: bytes) -> None:
        partition, segment = parsed_segment_key(key)
        where = f"partition {partition}: segment {segment} of the event ids"
        header = self._verdict.header
        if header is None or partition not in header.dedupe:
            self._verdict.wrong(f"{where} belongs to no partition of the header")
            return
        counters = header.dedupe[partition]
        try:
            entries = segment_entries(segment, value)
        except DamageError as error:
            self._verdict.wrong(f"partition {partition}: {error}")
            return
        live = int(np.count_nonzero((entries >= counters[FIRST]) & (entries < counters[NEXT])))
        if live == 0 or entries[-1] >= counters[NEXT]:
            self._verdict.wrong(f"{where} has none of those that the header counts, or more")
        self._live[partition] += live
        self._verdict.event_ids += live

    def _check_entities(self, rows: list[Row]) -> None:
        keys = [key for key, _ in rows]
        kinds, hashes = parsed_entity_keys(keys)
        shards = np.array([key[1] for key in keys], np.uint64)
        for at in np.flatnonzero(hashes % SHARDS != shards).tolist():
            self._verdict.wrong(f"{self._place(keys[at])} is in shard {shards[at]}")
        for kind, name in enumerate(self._names):
            self._verdict.entities[name] += int(np.count_nonzero(kinds == kind))
        sound = []
        for key, blob in rows:
            if checksum(memoryview(blob)[:-CHECKSUM_BYTES]) == blob[-CHECKSUM_BYTES:]:
                sound.append((key, blob[:-CHECKSUM_BYTES]))
            else:
                self._verdict.wrong(f"{self._place(key)} does not fit its checksum")
        self._check_forms(sound)

    def _check_forms(self, rows: list[Row]) -> None:
        """Whether each of these can be an entity; what the kernel stops at is noted, and it goes on behind that."""
        kinds, _ = parsed_entity_keys([key for key, _ in rows])
        bounds = np.zeros(len(rows) + 1, np.int64)
        np.cumsum([len(body) for _, body in rows], out=bounds[1:])
        joined = np.frombuffer(b"".join(body for _, body in rows), np.uint8)
        first = 0
        while first < len(rows):
            words = room_for(kinds[first:], bounds[first:], joined, self._facts, self._words_max, self._ring_events_max)
            if words >= 0:
                return
            first -= 1 + words
            self._verdict.wrong(f"{self._place(rows[first][0])} has the checksum of an entity and is none")
            first += 1

    def _place(self, key: bytes) -> str:
        return f"{self._names[key[0] - ENTITY_KIND_FIRST]} {key[2:].hex()}"

    def check_whole(self) -> None:
        """Once all rows were read: whether they are as many as the header says."""
        verdict, header = self._verdict, self._verdict.header
        if header is None:
            if verdict.rows:
                verdict.wrong("there are rows, but no header")
            return
        for name, count in verdict.entities.items():
            wanted = header.entities.get(name, 0)
            if count != wanted:
                verdict.wrong(f"there are {count:,} of entity {name}, and the header says {wanted:,}")
        if unknown := sorted(header.entities.keys() - verdict.entities.keys()):
            verdict.wrong(f"the header counts entities that are not configured: {', '.join(unknown)}")
        for partition, counters in header.dedupe.items():
            found, wanted = self._live[partition], counters[NEXT] - counters[FIRST]
            if found != wanted:
                verdict.wrong(f"partition {partition}: there are {found:,} event ids, and the header says {wanted:,}")
