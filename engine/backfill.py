"""Features of past events as a training set: the kernels that score online, over files, in bounded memory."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from engine.assemble import load_rates, open_state
from engine.config import Config
from engine.decode import Decoder
from engine.events import Batch, Records
from engine.labels import Labels
from engine.replay import create, dead_letter_line, flush_when_full, with_scratch_state
from engine.state.local import FeatureMatrix
from engine.table_file import table_file
from features.spec import FeatureSpec


@dataclass(slots=True)
class BackfillSummary:
    """What became of the records; `labelled`: rows that have a label."""

    events: int = 0
    rows: int = 0
    dead_letters: int = 0
    duplicates: int = 0
    labelled: int = 0


def backfill(
    records: Iterator[Records],
    config: Config,
    out: Path,
    *,
    labels: Labels | None = None,
    keys: bool = False,
    dead_letters: Path | None = None,
    advance: Callable[[BackfillSummary], None] = lambda summary: None,
) -> BackfillSummary:
    """Writes one row per accepted event, in the order of the records; calls `advance` after each micro-batch.

    Columns: `event_id`, `event_time` (ms), every feature by name (float64, null for null), and the booleans
    `{entity}.exact.{window}`, and `{entity}.exact.all` where the entity has values without a window; with `keys` also
    `{entity}.key` (uint64, the hash of the key, null where the event lacks the entity); with labels also `label` and
    `labelled_at` (ms), null where none was known. The file appears whole or not at all.
    """
    spec, summary = config.feature_spec(), BackfillSummary()
    with ExitStack() as resources_open:
        schema = training_schema(spec, labelled=labels is not None, keyed=keys)
        table = resources_open.enter_context(table_file(out, schema))
        letters = resources_open.enter_context(create(dead_letters or Path(os.devnull)))
        config = with_scratch_state(config, resources_open)
        rates = load_rates(config)
        decoder = Decoder(config, spec, rates)
        state = open_state(config, spec, rates, resources_open)
        for batch in records:
            decoded, refused = decoder.decode(batch)
            accepted = state.accept(decoded)
            columns = feature_columns(accepted, state.features(accepted), spec)
            if keys:
                columns |= key_columns(accepted, spec)
            if labels is not None:
                label, labelled_at, known = labels.of(accepted.event_id_hashes)
                columns |= {"label": pa.array(label, mask=~known), "labelled_at": pa.array(labelled_at, mask=~known)}
                summary.labelled += int(np.count_nonzero(known))
            table.write(columns)
            letters.writelines(map(dead_letter_line, refused))
            flush_when_full(state, config)
            summary.events += len(batch)
            summary.rows += len(accepted)
            summary.dead_letters += len(refused)
            summary.duplicates += len(decoded) - len(accepted)
            advance(summary)
    return summary


def newest_event_ms(
    records: Iterator[Records], config: Config, advance: Callable[[int], None] = lambda events: None
) -> int:
    """The greatest time of all events, -1 where there is none; calls `advance` with the number of records so far."""
    decoder = Decoder(config, config.feature_spec(), load_rates(config))
    newest_ms, events = -1, 0
    for batch in records:
        newest_ms = int(decoder.decode(batch)[0].times_ms.max(initial=newest_ms))
        events += len(batch)
        advance(events)
    return newest_ms


def training_schema(spec: FeatureSpec, *, labelled: bool, keyed: bool = False) -> pa.Schema:
    """The columns of a training set."""
    columns = [("event_id", pa.string()), ("event_time", pa.int64()), *((name, pa.float64()) for name in spec.names)]
    columns += [(name, pa.bool_()) for name in exact_names(spec)]
    if keyed:
        columns += [(name, pa.uint64()) for name in key_names(spec)]
    if labelled:
        columns += [("label", pa.int8()), ("labelled_at", pa.int64())]
    return pa.schema(columns)


def exact_names(spec: FeatureSpec) -> list[str]:
    """Names of the columns that say what is exact."""
    names = []
    for entity in spec.entities:
        names += [f"{entity.name}.exact.{window}" for window in entity.windows]
        names += [f"{entity.name}.exact.all"] * entity.windowless
    return names


def key_names(spec: FeatureSpec) -> list[str]:
    """Names of the columns that say which card, merchant, ... an event is of."""
    return [f"{entity.name}.key" for entity in spec.entities]


def key_columns(batch: Batch, spec: FeatureSpec) -> dict[str, Any]:
    """The hash of each entity's key, under which state holds it; null where the event lacks the entity."""
    columns = {}
    for kind, name in enumerate(key_names(spec)):
        hashes = batch.words[:, kind].copy()
        columns[name] = pa.array(hashes, mask=hashes == 0)
    return columns


def feature_columns(batch: Batch, matrix: FeatureMatrix, spec: FeatureSpec) -> dict[str, Any]:
    """One batch as columns, which share no memory with the matrix."""
    columns = {"event_id": pa.array(batch.event_ids, pa.string()), "event_time": pa.array(batch.times_ms)}
    for column, name in enumerate(spec.names):
        values = matrix.values[:, column].copy()
        columns[name] = pa.array(values, mask=np.isnan(values))
    for kind, entity in enumerate(spec.entities):
        for place, window in enumerate(entity.windows):
            columns[f"{entity.name}.exact.{window}"] = pa.array(matrix.exact_windows[:, kind] > place)
        if entity.windowless:
            columns[f"{entity.name}.exact.all"] = pa.array(matrix.exact_all[:, kind] > 0)
    return columns
