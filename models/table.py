"""Feature tables: the Parquet files that `tidegate features backfill` writes."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from models.errors import ModelError

Float64 = NDArray[np.float64]
Float32 = NDArray[np.float32]
Int8 = NDArray[np.int8]

UNLABELLED = -1


@dataclass(frozen=True, slots=True)
class FeatureTable:
    """Rows of one file: `features` [n, F] with NaN for null, `labels` [n] of 0, 1 or UNLABELLED, and its sha256."""

    features: NDArray[Any]
    labels: Int8
    sha256: str


def read_table(path: Path, names: Sequence[str], dtype: type[np.floating[Any]] = np.float64) -> FeatureTable:
    """The named columns, in the order of `names`, and `label` where there is one; ModelError names what is missing.

    Columns are read one at a time: the whole table in float64 would be three times as large as float32 keeps it.
    """
    try:
        file = pq.ParquetFile(path)
    except (FileNotFoundError, pa.ArrowInvalid) as error:
        raise ModelError(f"{path} is no Parquet file: {error}") from error
    with file:
        columns = file.schema_arrow.names
        if missing := [name for name in names if name not in columns]:
            raise ModelError(f"{path} lacks columns: {', '.join(missing)}")
        rows = file.metadata.num_rows
        if not rows:
            raise ModelError(f"{path} has no rows")
        features = np.empty((rows, len(names)), dtype)
        for at, name in enumerate(names):
            features[:, at] = read_column(file, name)
        labels = np.full(rows, UNLABELLED, np.int8)
        if "label" in columns:
            labels[:] = np.nan_to_num(read_column(file, "label").astype(np.float64), nan=UNLABELLED)
    return FeatureTable(features, labels, file_sha256(path))


def read_column(file: pq.ParquetFile, name: str) -> NDArray[Any]:
    """One column [n]; nulls of numbers are NaN."""
    values: NDArray[Any] = file.read(columns=[name])[name].to_numpy()
    return values


def file_sha256(path: Path) -> str:
    """Of a file's bytes."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
