"""A Parquet file that is written in bounded memory, and appears whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import ConfigError
from engine.replay import create

# A row group, which is what the writer holds in memory, has so many bytes of numbers at most.
ROW_GROUP_BYTES_MAX = 64 * 1024 * 1024
ROW_GROUP_ROWS_MAX = 131_072


class TableFile:
    """Gathers columns into row groups of bounded size."""

    def __init__(self, writer: Any, schema: pa.Schema) -> None:
        self._writer = writer
        self._schema = schema
        self._rows_max = max(1, min(ROW_GROUP_ROWS_MAX, ROW_GROUP_BYTES_MAX // (8 * len(schema))))
        self._waiting: list[Any] = []
        self._rows = 0

    def write(self, columns: dict[str, Any]) -> None:
        """Adds rows: a column each for every one of the schema."""
        batch = pa.RecordBatch.from_pydict(columns, self._schema)
        self._waiting.append(batch)
        self._rows += len(batch)
        if self._rows >= self._rows_max:
            self.flush()

    def flush(self) -> None:
        """Writes what waits as a row group."""
        table = pa.Table.from_batches(self._waiting, self._schema)
        self._writer.write_table(table, row_group_size=max(1, len(table)))
        self._waiting, self._rows = [], 0


@contextmanager
def table_file(path: Path, schema: pa.Schema) -> Iterator[TableFile]:
    """A file beside `path` that takes its place when the block ends well, and is removed when it does not."""
    if path.is_dir():
        raise ConfigError(f"{path} cannot be written: it is a directory")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with create(temporary, shown=path) as file:
            with pq.ParquetWriter(file, schema, compression="zstd") as writer:
                table = TableFile(writer, schema)
                yield table
                table.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
