"""The labelled rows of a feature table, with what judging a model by them takes beside the features."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from models.errors import ModelError, one_line
from models.table import UNLABELLED, read_column, read_table

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int8 = NDArray[np.int8]
Int64 = NDArray[np.int64]

AMOUNT = "event.amount"
TIME = "event_time"
NO_CARD = -1


@dataclass(frozen=True, slots=True)
class LabelledRows:
    """The n rows of a table that have a label, in the order of the file.

    `features` [n, F] with NaN for null, `labels` [n] of 0 and 1, both among them. `cards` [n]: which rows are of one
    card, as numbers from 0 in the order of the column's values, NO_CARD where that is null. `times_ms` [n], `amounts`
    [n] in major units. Of these three each is None where the table lacks the column. `unlabelled`: rows left out.
    """

    features: Float32
    labels: Int8
    cards: Int64 | None
    times_ms: Int64 | None
    amounts: Float64 | None
    unlabelled: int
    sha256: str


def read_labelled(path: Path, names: Sequence[str], card_column: str) -> LabelledRows:
    """Reads the features `names`, in this order, and the rest where it is there.

    Raises ModelError where the file cannot be read, lacks a feature or holds something else than numbers in it, or
    its labels are not both 0 and 1.
    """
    try:
        with pq.ParquetFile(path) as file:
            _check_numbers(file.schema_arrow, [*names, "label", TIME, AMOUNT], path)
            table = read_table(path, names, np.float32)
            known = table.labels != UNLABELLED
            labels = table.labels[known]
            if set(np.unique(labels).tolist()) != {0, 1}:
                raise ModelError(f"{path} needs labelled rows of both kinds, 0 and 1: {_found(labels)}")
            columns = file.schema_arrow.names
            return LabelledRows(
                features=table.features[known],
                labels=labels,
                cards=_cards(file, card_column, known) if card_column in columns else None,
                times_ms=_whole(file, TIME, known, path).astype(np.int64) if TIME in columns else None,
                amounts=_whole(file, AMOUNT, known, path) if AMOUNT in columns else None,
                unlabelled=int(np.count_nonzero(~known)),
                sha256=table.sha256,
            )
    except (pa.ArrowException, OSError) as error:
        raise ModelError(f"{path} cannot be read as Parquet: {one_line(str(error))}") from error


def _check_numbers(schema: Any, names: Sequence[str], path: Path) -> None:
    """ModelError for the columns among `names` that hold something else."""
    numeric = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
    there = [name for name in dict.fromkeys(names) if name in schema.names]
    if other := [name for name in there if not any(is_kind(schema.field(name).type) for is_kind in numeric)]:
        raise ModelError(f"{path} has columns that hold no numbers: {', '.join(other)}")


def _found(labels: Int8) -> str:
    counts = zip(*np.unique(labels, return_counts=True), strict=True)
    return ", ".join(f"{count:,} rows with {label}" for label, count in counts) or "it has no label"


def _whole(file: pq.ParquetFile, name: str, known: NDArray[np.bool_], path: Path) -> Float64:
    """A column of numbers of the known rows; ModelError where it has nulls."""
    values: Float64 = read_column(file, name)[known].astype(np.float64)
    if np.isnan(values).any():
        raise ModelError(f"{path} has labelled rows without {name}")
    return values


def _cards(file: pq.ParquetFile, name: str, known: NDArray[np.bool_]) -> Int64:
    """Values of any type as their places among the sorted values of the known rows, NO_CARD for null."""
    column = file.read(columns=[name])[name].filter(pa.array(known)).combine_chunks().dictionary_encode()
    values = column.dictionary
    # One place more than there are values, which -1 finds from the end.
    places = np.full(len(values) + 1, NO_CARD)
    places[pc.sort_indices(values).to_numpy()] = np.arange(len(values))
    at: NDArray[np.int32] = pc.fill_null(column.indices, NO_CARD).to_numpy()
    return places[at]
