"""One entity as a person may look at it: its ring, its tiles, and its features at one moment."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.arena import CAPACITY, HEAD, LENGTH, NEVER, NEWEST_MS, POSITION
from features.bits import has_bit
from features.ring import (
    DROPPED_MS,
    FIRST_MS,
    NEWEST,
    TILES_AT,
    TIME_MS,
    amount_of,
    bits_at,
    column_at,
    row_at,
    word_of,
)
from features.spec import FeatureSpec
from features.tiles import (
    ACCUMULATORS,
    COUNT,
    LEAST,
    MOST,
    SUM,
    TILE_COUNT,
    end_of,
    first_of,
    last_of,
    start_of,
    tile_at,
)

Int64 = NDArray[np.int64]


class RingEvent(NamedTuple):
    """One event of a ring; `words` by the entity's columns, 0 where it has none."""

    time_ms: int
    amount_minor: int
    words: tuple[int, ...]
    predicates: tuple[str, ...]


class Tile(NamedTuple):
    """What is left of the dropped events of [start, end)."""

    start_ms: int
    end_ms: int
    first_ms: int
    last_ms: int
    events: int
    sum_minor: int
    min_minor: int
    max_minor: int


@dataclass(frozen=True, slots=True)
class Look:
    """`values` are the features at `at_ms`, NaN for null; `inexact` names the `{entity}.{window}` pairs that are not.

    `dropped_ms`: the newest event time that the ring has lost, None where it has lost nothing.
    """

    at_ms: int
    values: dict[str, float]
    inexact: list[str]
    first_ms: int
    newest_ms: int
    dropped_ms: int | None
    ring: list[RingEvent]
    tiles: list[Tile]


def look_at(
    spec: FeatureSpec,
    kind: int,
    slot: Int64,
    heap: Int64,
    at_ms: int,
    row: NDArray[np.float64],
    exact_windows: int,
    exact_all: bool,
) -> Look:
    """Puts together what a slot holds; `row` are the features of all entities, of which this one's are taken."""
    entity = spec.entities[kind]
    prefix = f"{entity.name}."
    inexact = [f"{entity.name}.{window}" for window in entity.windows[exact_windows:]]
    if entity.windowless and not exact_all:
        inexact.append(f"{entity.name}.all")
    block = heap[int(slot[POSITION]) :]
    dropped_ms = int(block[DROPPED_MS])
    return Look(
        at_ms=at_ms,
        values={name: float(row[i]) for i, name in enumerate(spec.names) if name.startswith(prefix)},
        inexact=inexact,
        first_ms=int(block[FIRST_MS]),
        newest_ms=int(slot[NEWEST_MS]),
        dropped_ms=None if dropped_ms == NEVER else dropped_ms,
        ring=_ring(slot, block, len(entity.columns), entity.predicates),
        tiles=_tiles(block, spec, kind) if block[TILES_AT] else [],
    )


def _ring(slot: Int64, block: Int64, columns: int, predicates: tuple[str, ...]) -> list[RingEvent]:
    capacity, head, length = (int(slot[word]) for word in (CAPACITY, HEAD, LENGTH))
    events = []
    for place in range(length):
        physical = (head + place) & (capacity - 1)
        words = tuple(
            int(word_of(block, column_at(0, capacity, column), capacity, physical)) % 2**64 for column in range(columns)
        )
        held = tuple(
            name
            for number, name in enumerate(predicates)
            if has_bit(block, bits_at(0, capacity, columns, NEWEST + columns + number), physical)
        )
        time_ms = int(block[row_at(0, capacity, head, place) + TIME_MS])
        events.append(RingEvent(time_ms, int(amount_of(block, 0, capacity, head, place)), words, held))
    return events


def _tiles(block: Int64, spec: FeatureSpec, kind: int) -> list[Tile]:
    entity, part = spec.entities[kind], int(block[TILES_AT])
    tables = sum(column.kind != "location" for column in entity.columns)
    tiles = []
    for index in range(int(block[part + TILE_COUNT])):
        tile = tile_at(part, index, len(entity.predicates), tables)
        sums = (int(block[tile + ACCUMULATORS + word]) for word in (COUNT, SUM, LEAST, MOST))
        times = (int(edge(block, tile)) for edge in (start_of, end_of, first_of, last_of))
        tiles.append(Tile(*times, *sums))
    return tiles
