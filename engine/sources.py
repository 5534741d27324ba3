"""Files as a source of records: each row of CSV, JSON Lines or Parquet becomes one JSON value.

So a file goes through the very decoder that Kafka's records go through. A record's source coordinates are the
file's name as topic, the file's place in the list as partition, and the number of the row, from 0, as offset; unless
the rows have fields that say where in Kafka they came from.
"""

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Self

import msgspec
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import ConfigError
from engine.events import Int64, Records
from engine.rates import epoch_ms

ENDINGS = (".csv", ".jsonl", ".ndjson", ".parquet")

# Values, and how many bytes of the file are read by then.
_Batches = Iterator[tuple[list[bytes | None], int]]


_Partition = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
_Offset = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 2)]


@dataclass(frozen=True, slots=True)
class Coordinates:
    """The fields of a row that hold its Kafka coordinates, numbers or their text; None where rows have none.

    `timestamp`: of the Kafka record, in ms since 1970 or ISO 8601.
    """

    partition: str | None = None
    offset: str | None = None
    timestamp: str | None = None


@dataclass(slots=True)
class Progress:
    """How far reading has come, in bytes of the files; a Parquet file's bytes count by its rows."""

    bytes_total: int
    bytes_read: int = 0

    @classmethod
    def of(cls, paths: Sequence[Path]) -> Self:
        """Nothing read yet. Raises ConfigError where a file is missing or of an unknown kind."""
        return cls(sum(_checked(path).stat().st_size for path in paths))


def read_records(
    paths: Sequence[Path],
    batch_events: int,
    progress: Progress | None = None,
    coordinates: Coordinates = Coordinates(),
    topic: str | None = None,
) -> Iterator[Records]:
    """The rows of the files in order, at most `batch_events` at a time; no batch spans two files.

    Their topic is `topic`, or the name of the file.

    Memory is bounded by the batch, and for Parquet by what a row group takes to decode. A row that is no event is
    yielded all the same: the decoder makes it a dead letter. Raises ConfigError where a file is missing, of an
    unknown kind, or not what its ending says, and where a row lacks coordinates that it should have.
    """
    progress = progress or Progress.of(paths)
    read_coordinates = _coordinates_reader(coordinates)
    for place, path in enumerate(paths):
        bytes_before, row = progress.bytes_read, 0
        for values, bytes_read in _batches(path, batch_events):
            progress.bytes_read = bytes_before + bytes_read
            partitions, offsets, times_ms = read_coordinates(values, path, place, row)
            yield Records(topic or path.name, values, partitions, offsets, times_ms)
            row += len(values)
        progress.bytes_read = bytes_before + path.stat().st_size


def as_one_partition(records: Iterator[Records]) -> Iterator[Records]:
    """The same rows as one stream: what is remembered of a partition does not end with a file."""
    for batch in records:
        batch.partitions[:] = 0
        yield batch


def row_time_ms(written: int | float | str) -> int:
    """A time in a row: ms since 1970, as a number or its text, or ISO 8601. Raises ValueError for any other text."""
    if isinstance(written, str) and not written.isdecimal():
        return epoch_ms(written)
    return int(written)


def _coordinates_reader(coordinates: Coordinates) -> Callable[[list[bytes | None], Path, int, int], tuple[Int64, ...]]:
    """Reads partitions, offsets and timestamps of a file's values, of which the first stands in this row."""
    types = {"partition": _Partition, "offset": _Offset, "timestamp": int | float | str}
    sources = {name: getattr(coordinates, name) for name in types if getattr(coordinates, name) is not None}
    if len(set(sources.values())) < len(sources):
        raise ConfigError(f"one field cannot be two coordinates: {', '.join(sources.values())}")
    row_type = msgspec.defstruct("Row", [(name, types[name]) for name in sources], rename=sources, gc=False)
    decode = msgspec.json.Decoder(row_type, strict=False).decode

    def read(values: list[bytes | None], path: Path, place: int, first_row: int) -> tuple[Int64, ...]:
        rows = []
        for at, value in enumerate(values if sources else []):
            try:
                row: Any = decode(value or b"")
                if coordinates.timestamp is not None:
                    row.timestamp = row_time_ms(row.timestamp)
            except (ValueError, msgspec.DecodeError) as error:
                raise ConfigError(
                    f"{path}: row {first_row + at + 1}: no {', '.join(sources.values())} can be read there: {error}"
                ) from error
            rows.append(row)
        columns = {
            "partition": np.full(len(values), place, np.int64),
            "offset": np.arange(first_row, first_row + len(values), dtype=np.int64),
            "timestamp": np.full(len(values), -1, np.int64),
        }
        columns |= {name: np.array([getattr(row, name) for row in rows], np.int64) for name in sources}
        return tuple(columns.values())

    return read


def _checked(path: Path) -> Path:
    if path.suffix.lower() not in ENDINGS:
        raise ConfigError(f"{path}: events are read from files that end in {', '.join(ENDINGS)}")
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such file")
    return path


def _batches(path: Path, batch_events: int) -> _Batches:
    match path.suffix.lower():
        case ".csv":
            return _csv_batches(path, batch_events)
        case ".parquet":
            return _parquet_batches(path, batch_events)
        case _:
            return _json_lines_batches(path, batch_events)


def _json_lines_batches(path: Path, batch_events: int) -> _Batches:
    with path.open("rb") as file:
        lines: Iterator[bytes | None] = (line.rstrip(b"\r\n") for line in file if not line.isspace())
        while batch := list(islice(lines, batch_events)):
            yield batch, file.tell()


def _csv_batches(path: Path, batch_events: int) -> _Batches:
    with path.open("rb") as file, TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
        reader = csv.reader(text)
        try:
            header = next(reader, [])
            if len(set(header)) < len(header):
                raise ConfigError(f"{path}:1: a column's name stands there twice")
            rows: Iterator[bytes | None] = (_csv_value(header, cells) for cells in reader if cells)
            while batch := list(islice(rows, batch_events)):
                yield batch, file.tell()
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path}: not UTF-8, somewhere after line {reader.line_num}") from error
        except csv.Error as error:
            raise ConfigError(f"{path}:{reader.line_num}: not CSV: {error}") from error


def _csv_value(header: list[str], cells: list[str]) -> bytes:
    """All cells as text, empty ones dropped. A row of another length is kept as a list, which is no event."""
    if len(cells) != len(header):
        return orjson.dumps(cells)
    return orjson.dumps({name: cell for name, cell in zip(header, cells, strict=True) if cell})


def _parquet_batches(path: Path, batch_events: int) -> _Batches:
    bytes_total, rows_read = path.stat().st_size, 0
    try:
        with pq.ParquetFile(path) as file:
            rows_total = file.metadata.num_rows
            for batch in file.iter_batches(batch_events):
                rows_read += batch.num_rows
                rows = _microseconds(batch).to_pylist()
                yield [_parquet_value(row) for row in rows], bytes_total * rows_read // rows_total
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(f"{path}: not readable as Parquet: {error}") from error


def _microseconds(batch: Any) -> Any:
    """The batch without nanosecond timestamps, which Python has no type for; they are cut to microseconds."""
    for at, field in enumerate(batch.schema):
        if pa.types.is_timestamp(field.type) and field.type.unit == "ns":
            cut = batch.column(at).cast(pa.timestamp("us", field.type.tz), safe=False)
            batch = batch.set_column(at, field.name, cut)
    return batch


def _parquet_value(row: dict[str, Any]) -> bytes:
    """Times as ISO 8601 and decimals as text; nulls dropped."""
    return orjson.dumps({name: cell for name, cell in row.items() if cell is not None}, default=_as_text)


def _as_text(cell: Any) -> str:
    return cell.decode("utf-8", "backslashreplace") if isinstance(cell, bytes) else str(cell)
