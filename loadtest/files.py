"""Traffic and its ground truth as files."""

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from loadtest.columns import ATTACK_KINDS, CHANNELS, COUNTRIES, ENTRY_MODES, Int8, Int64, Traffic, event_ids
from loadtest.poison import KINDS as POISON_KINDS
from loadtest.population import CATEGORIES
from loadtest.render import dotted, render


class TableWriter:
    """Appends tables of one schema to a Parquet file; the first one decides the schema."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: pq.ParquetWriter | None = None

    def write(self, table: pa.Table) -> None:
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, table.schema, compression="zstd")
        self._writer.write_table(table)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()


def write_jsonl(path: Path, truth_path: Path | None, traffic: Iterable[Traffic]) -> int:
    """One record a line, as it would be sent; returns how many records.

    A record without a value, one kind of poison, is an empty line, and most readers skip those.
    """
    count = 0
    with path.open("wb") as out, _truth_writer(truth_path) as truth:
        for chunk in traffic:
            out.write(b"\n".join(render(chunk)) + b"\n")
            truth.write(truth_table(chunk))
            count += len(chunk)
    return count


def write_parquet(path: Path, truth_path: Path | None, traffic: Iterable[Traffic]) -> int:
    """One column per field of the event; the stream must be free of poison, which no column can hold."""
    count = 0
    with TableWriter(path) as out, _truth_writer(truth_path) as truth:
        for chunk in traffic:
            out.write(event_table(chunk))
            truth.write(truth_table(chunk))
            count += len(chunk)
    return count


def event_table(traffic: Traffic) -> pa.Table:
    """The events' fields under their names in JSON; `amount` is decimal(18, 2), `event_time` int64 ms."""
    if (traffic.poison_kinds >= 0).any():
        raise ValueError("poison cannot be written as Parquet: write .jsonl, or set the poison share to 0")
    return pa.table(
        {
            "event_id": event_ids(traffic),
            "event_time": traffic.times_ms,
            "amount": _decimal(traffic.amounts_minor),
            "currency": pa.repeat("EUR", len(traffic)),
            "card": [str(number) for number in traffic.card_numbers.tolist()],
            "merchant": [f"m-{number:06d}" for number in traffic.merchants.tolist()],
            "device": [f"d-{number:010x}" for number in traffic.devices.tolist()],
            "ip": dotted(traffic.ips),
            "category": _names(traffic.categories, CATEGORIES),
            "country": _names(traffic.countries, COUNTRIES),
            "channel": _names(traffic.channels, CHANNELS),
            "entry_mode": _names(traffic.entry_modes, ENTRY_MODES),
        }
    )


def truth_table(traffic: Traffic) -> pa.Table:
    """What is known about each record and must not be in it: attack, duplicate, why it is poison."""
    reasons = [reason for _, reason, _ in POISON_KINDS]
    poison = pa.array(traffic.poison_kinds, mask=traffic.poison_kinds < 0)
    return pa.table(
        {
            "event_id": event_ids(traffic),
            "attack_kind": _names(traffic.attack_kinds, ATTACK_KINDS),
            "attack_id": traffic.attack_ids,
            "duplicate": traffic.duplicates,
            "poison_reason": pa.array(reasons).take(poison),
        }
    )


def _truth_writer(path: Path | None) -> TableWriter:
    return TableWriter(path) if path else _Discard(Path())


class _Discard(TableWriter):
    def write(self, table: pa.Table) -> None:
        pass


def _names(indices: Int8, names: tuple[str, ...]) -> pa.Array:
    return pa.array(names).take(pa.array(indices))


def _decimal(amounts_minor: Int64) -> pa.Array:
    """Minor units as decimals with two places: the same integers, read at another scale."""
    widened = pa.array(np.asarray(amounts_minor)).cast(pa.decimal128(19, 0))
    return pa.Array.from_buffers(pa.decimal128(18, 2), len(widened), widened.buffers())
