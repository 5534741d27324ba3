"""A feature set compiled to plain arrays, the form in which the kernels read it."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.ring import HIGH, LOW, NEWEST
from features.spec import AMOUNT, FIELD_WINDOWED, WINDOWED, Aggregate, Column, EntitySpec, FeatureSpec

Int64 = NDArray[np.int64]

# Aggregates by number: windowed ones first.
KINDS = (
    "count", "rate", "sum", "mean", "std", "min", "max", "zscore", "ratio", "distinct", "is_new",
    "since_last", "since_first", "geo_speed", "last",
)  # fmt: skip
(
    COUNT, RATE, SUM, MEAN, STD, MIN, MAX, ZSCORE, RATIO, DISTINCT, IS_NEW,
    SINCE_LAST, SINCE_FIRST, GEO_SPEED, LAST,
) = range(len(KINDS))  # fmt: skip
# What is needed of an accumulator's amounts: bits of `needs`.
AMOUNTS, OF_SQUARES, LEAST_OF, MOST_OF = 1, 2, 4, 8
_NEEDS = {"sum": 1, "mean": 1, "ratio": 1, "std": 3, "zscore": 3, "min": 5, "max": 9}

# What an entity has: words of `facts`. MARKED has a bit for each bit set of marks that a ring keeps (features.ring).
WINDOWS, COLUMNS, PREDICATES, TABLES, INSTRUCTIONS, MATRIX_FIRST, MATRIX_END, MARKED, FACTS = range(9)
# An instruction: which aggregate, over which accumulator (0 all events, then the entity's predicates), of which of the
# entity's columns, without the event itself, from which column of the matrix on, and whether words are numbers.
KIND, ACCUMULATOR, COLUMN, WITHOUT_EVENT, TO, IS_NUMBER = range(6)
OF_AMOUNT = -1
NO_TABLE = -1


class Program(NamedTuple):
    """E entities, at most W windows, C columns, P predicates and I instructions each; all int64.

    `windows_ms[E, W]` ascends. `facts[E, FACTS]` are the words named above. `columns[E, C]` says which word of a batch
    an entity's column is, `tables[E, C]` which of its tables counts its values, `predicates[E, P]` which bit of
    a batch's flags a predicate is. `instructions[E, I, 6]`: one for each aggregate, whose values stand one per window
    in adjacent columns of the matrix. `needs[E, P + 1]`: what is needed of all events, then of each predicate's;
    `counted[E, C]`: whether values of a column are counted or looked for.
    """

    windows_ms: Int64
    facts: Int64
    columns: Int64
    tables: Int64
    predicates: Int64
    instructions: Int64
    needs: Int64
    counted: Int64


def compile_program(spec: FeatureSpec) -> Program:
    """The arrays for one feature set."""
    entities = spec.entities
    matrix = {name: index for index, name in enumerate(spec.names)}
    count = len(entities)
    program = Program(
        windows_ms=np.zeros((count, max(len(e.windows) for e in entities)), np.int64),
        facts=np.zeros((count, FACTS), np.int64),
        columns=np.zeros((count, max(len(e.columns) for e in entities)), np.int64),
        tables=np.full((count, max(len(e.columns) for e in entities)), NO_TABLE, np.int64),
        predicates=np.zeros((count, max(len(e.predicates) for e in entities)), np.int64),
        instructions=np.zeros((count, max(len(e.aggregates) for e in entities), 6), np.int64),
        needs=np.zeros((count, 1 + max(len(e.predicates) for e in entities)), np.int64),
        counted=np.zeros((count, max(len(e.columns) for e in entities)), np.int64),
    )
    for kind, entity in enumerate(entities):
        program.windows_ms[kind, : len(entity.windows)] = entity.windows_ms
        program.columns[kind, : len(entity.columns)] = [spec.columns.index(column) for column in entity.columns]
        counted = [place for place, column in enumerate(entity.columns) if column.kind != "location"]
        program.tables[kind, counted] = np.arange(len(counted))
        program.predicates[kind, : len(entity.predicates)] = [spec.predicates.index(p) for p in entity.predicates]
        column_names = [column.name for column in entity.columns]
        for place, aggregate in enumerate(entity.aggregates):
            instruction = _instruction(aggregate, entity, column_names, matrix)
            program.instructions[kind, place] = instruction
            program.needs[kind, instruction[ACCUMULATOR]] |= _NEEDS.get(aggregate.kind, 0)
            if aggregate.kind in FIELD_WINDOWED:
                program.counted[kind, instruction[COLUMN]] = 1
        own = [matrix[name] for name in matrix if name.startswith(f"{entity.name}.")]
        program.facts[kind] = (
            len(entity.windows), len(entity.columns), len(entity.predicates), len(counted), len(entity.aggregates),
            min(own, default=0), max(own, default=-1) + 1, _marked(program.needs[kind, 0], program.counted[kind]),
        )  # fmt: skip
    return program


def _marked(needs: int, counted: Int64) -> int:
    """The bit sets of marks that these needs and counted columns take."""
    marked = bool(needs & MOST_OF) << HIGH | bool(needs & LEAST_OF) << LOW
    for column in np.flatnonzero(counted).tolist():
        marked |= 1 << (NEWEST + column)
    return marked


def _instruction(
    aggregate: Aggregate, entity: EntitySpec, column_names: list[str], matrix: dict[str, int]
) -> tuple[int, ...]:
    of_columns = aggregate.kind in (*FIELD_WINDOWED, "last")
    accumulator, place, is_number = 0, OF_AMOUNT, False
    if aggregate.kind == "geo_speed":
        place = [column.kind for column in entity.columns].index("location")
    elif of_columns and aggregate.field != AMOUNT:
        place = column_names.index(_column_name(aggregate))
        is_number = entity.columns[place].kind == "number"
    elif aggregate.predicate:
        accumulator = 1 + entity.predicates.index(aggregate.predicate)
    window = entity.windows[0] if aggregate.kind in WINDOWED else ""
    to = matrix[aggregate.feature_name(entity.name, window)]
    return KINDS.index(aggregate.kind), accumulator, place, int(aggregate.prior), to, int(is_number)


def _column_name(aggregate: Aggregate) -> str:
    return Column(aggregate.field, "", aggregate.predicate).name
