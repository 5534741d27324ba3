"""Features of past events as a training set: the kernels that score online, over files."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.assemble import load_rates, open_state
from engine.config import Config
from engine.decode import Decoder
from engine.events import Batch, Records
from engine.replay import flush_when_full, with_scratch_state
from engine.state.local import FeatureMatrix
from features.spec import FeatureSpec


def backfill(records: Iterator[Records], config: Config, out: Path) -> int:
    """Writes one row per accepted event and returns how many there are.

    Columns: `event_id`, `event_time` (ms), every feature by name (float64, null for null), and the boolean
    `{entity}.exact.{window}` beside them.
    """
    spec = config.feature_spec()
    rows = 0
    with ExitStack() as resources_open:
        config = with_scratch_state(config, resources_open)
        rates = load_rates(config)
        decoder = Decoder(config, spec, rates)
        state = open_state(config, spec, rates, resources_open, on_disk=True)
        writer: pq.ParquetWriter | None = None
        for batch in records:
            accepted = state.accept(decoder.decode(batch)[0])
            table = feature_table(accepted, state.features(accepted), spec)
            if writer is None:
                writer = resources_open.enter_context(pq.ParquetWriter(out, table.schema, compression="zstd"))
            writer.write_table(table)
            rows += len(accepted)
            flush_when_full(state, config)
    return rows


def feature_table(batch: Batch, matrix: FeatureMatrix, spec: FeatureSpec) -> pa.Table:
    """One batch as a table."""
    columns: dict[str, pa.Array] = {"event_id": pa.array(batch.event_ids), "event_time": pa.array(batch.times_ms)}
    for column, name in enumerate(spec.names):
        values = matrix.values[:, column].copy()
        columns[name] = pa.array(values, mask=np.isnan(values))
    for kind, entity in enumerate(spec.entities):
        for place, window in enumerate(entity.windows):
            columns[f"{entity.name}.exact.{window}"] = pa.array(matrix.exact_windows[:, kind] > place)
    return pa.table(columns)
