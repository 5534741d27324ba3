"""A feature set compiled to plain arrays, the form in which the kernel reads it."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.spec import EntitySpec, FeatureSpec

Int64 = NDArray[np.int64]


class Program(NamedTuple):
    """E entities, at most W windows and D distinct fields each.

    `windows_ms[E, W]` ascends; `window_counts[E]` says how many of a row are used. An entity's columns of the matrix
    are contiguous, from `first_column[E]` to before `end_column[E]`, and an aggregate's within them, one per window.
    `*_columns` [E], for `distinct` [E, D], name the first column of each, -1 where
    nobody asked for it. `distinct_hash[E, D]` is the batch's hash column to count, `distinct_counts[E]` how many.
    """

    windows_ms: Int64
    window_counts: Int64
    first_column: Int64
    end_column: Int64
    count_columns: Int64
    total_columns: Int64
    mean_columns: Int64
    peak_columns: Int64
    since_last_columns: Int64
    distinct_columns: Int64
    distinct_hash: Int64
    distinct_counts: Int64


def compile_program(spec: FeatureSpec) -> Program:
    """The arrays for one feature set."""
    entities = spec.entities
    column = {name: index for index, name in enumerate(spec.names)}
    windows_max = max((len(e.windows) for e in entities), default=0)
    fields_max = max((len(e.distinct_fields) for e in entities), default=0)

    def first(entity: EntitySpec, aggregate: str) -> int:
        return column.get(f"{entity.name}.{aggregate}.{entity.windows[0]}", -1) if entity.windows else -1

    def firsts(aggregate: str) -> Int64:
        return np.array([first(entity, aggregate) for entity in entities], np.int64)

    windows_ms = np.zeros((len(entities), windows_max), np.int64)
    distinct = np.full((len(entities), fields_max), -1, np.int64)
    distinct_hash = np.zeros((len(entities), fields_max), np.int64)
    for row, entity in enumerate(entities):
        windows_ms[row, : len(entity.windows)] = entity.windows_ms
        for place, name in enumerate(entity.distinct_fields):
            distinct[row, place] = first(entity, f"distinct.{name}")
            distinct_hash[row, place] = spec.hash_columns.index(name)
    owned = [_own_columns(spec, entity) for entity in entities]
    return Program(
        windows_ms=windows_ms,
        window_counts=np.array([len(e.windows) for e in entities], np.int64),
        first_column=np.array([min(own) for own in owned], np.int64),
        end_column=np.array([max(own) + 1 for own in owned], np.int64),
        count_columns=firsts("count"),
        total_columns=firsts("sum.amount"),
        mean_columns=firsts("mean.amount"),
        peak_columns=firsts("max.amount"),
        since_last_columns=np.array([column.get(f"{e.name}.since_last", -1) for e in entities], np.int64),
        distinct_columns=distinct,
        distinct_hash=distinct_hash,
        distinct_counts=np.array([len(e.distinct_fields) for e in entities], np.int64),
    )


def _own_columns(spec: FeatureSpec, entity: EntitySpec) -> list[int]:
    return [index for index, name in enumerate(spec.names) if name.startswith(f"{entity.name}.")]
