"""State from history: from events in files that left the topic long ago, with the offsets they had in it.

files   0 1 2 3 4 5 6 7 8 9            the state stands at 10, and remembers the ids of what it took in
topic             5 6 7 8 9 10 11 ...  a worker begins at 10: nothing is counted twice, nothing left out
"""

import os
import shutil
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from engine.assemble import load_rates, open_state
from engine.catalog import seen
from engine.config import Config
from engine.decode import Decoder
from engine.errors import ConfigError, FatalError
from engine.events import Batch, Bool, Int64, Records, select
from engine.replay import create, dead_letter_line, flush_when_full
from engine.state.peek import is_held
from engine.state.store import DATABASE
from features.arena import NEVER

LOADING = "loading"


@dataclass(slots=True)
class LoadSummary:
    """What became of the rows. `repeated`: rows whose coordinates were there before.

    `vector`: next offset to read, per partition. `first_ms` and `newest_ms`: of the event times accepted. `cold_ms`:
    up to this event time there may be events that the history does not have. None stands for never.
    """

    events: int = 0
    accepted: int = 0
    dead_letters: int = 0
    duplicates: int = 0
    repeated: int = 0
    vector: dict[int, int] = field(default_factory=dict)
    first_ms: int | None = None
    newest_ms: int | None = None
    cold_ms: int | None = None


def load_history(
    records: Iterator[Records],
    config: Config,
    *,
    dead_letters: Path | None = None,
    advance: Callable[[LoadSummary], None] = lambda summary: None,
) -> LoadSummary:
    """Builds the state in `state.dir` from records with Kafka coordinates; it appears whole or not at all.

    Raises ConfigError where there is state already, and where the offsets of a partition do not ascend.
    """
    folder = config.path(config.state.dir)
    if (folder / DATABASE).exists():
        raise ConfigError(f"state.dir {folder} holds state already; history is loaded into an empty one")
    loading = folder / LOADING
    if is_held(loading):
        raise FatalError(f"history is being loaded into {folder} by another process")
    shutil.rmtree(loading, ignore_errors=True)  # what a killed one left
    try:
        summary = _load(records, config.with_state_dir(loading), dead_letters, advance)
        (loading / DATABASE).rename(folder / DATABASE)
    finally:
        shutil.rmtree(loading, ignore_errors=True)
    return summary


def _load(
    records: Iterator[Records],
    config: Config,
    dead_letters: Path | None,
    advance: Callable[[LoadSummary], None],
) -> LoadSummary:
    summary, spec, rates = LoadSummary(), config.feature_spec(), load_rates(config)
    partitions: dict[int, _Offsets] = {}
    beginning = _Beginning(config)
    with ExitStack() as resources_open:
        letters = resources_open.enter_context(create(dead_letters or Path(os.devnull)))
        decoder = Decoder(config, spec, rates)
        state = open_state(config, spec, rates, resources_open)
        state.header.topic, state.header.loaded = config.kafka.input, True
        for rows in records:
            new = select(rows, _new_rows(rows, partitions))
            new.topic = config.kafka.input
            decoded, refused = decoder.decode(new)
            if beginning.is_later(decoded, partitions):
                state.begin_cold(beginning.cold_ms)
            accepted = state.accept(decoded)
            state.features(accepted, compute=False)
            flush_when_full(state, config)
            letters.writelines(map(dead_letter_line, refused))
            summary.events += len(rows)
            summary.repeated += len(rows) - len(new)
            summary.dead_letters += len(refused)
            summary.accepted += len(accepted)
            summary.duplicates += len(decoded) - len(accepted)
            advance(summary)
        summary.vector = {partition: offsets.next for partition, offsets in sorted(partitions.items())}
        state.begin_flush(summary.vector)
        state.finish_flush()
        header = state.header
    summary.first_ms, summary.newest_ms, summary.cold_ms = seen(header).values()
    return summary


class _Offsets:
    """The offsets of one partition that were read: runs of them, ascending, few unless there are many gaps."""

    def __init__(self) -> None:
        self.starts, self.ends = array("q"), array("q")

    @property
    def next(self) -> int:
        """The one after the greatest."""
        return self.ends[-1] if self.ends else 0

    def add(self, offsets: Int64) -> Bool:
        """Which of these are new; the others were there before. ValueError names one that comes too late for that."""
        if offsets[0] >= self.next and (np.diff(offsets) > 0).all():
            gaps = np.flatnonzero(np.diff(offsets) != 1)
            starts, ends = offsets[np.append(0, gaps + 1)], offsets[np.append(gaps, -1)] + 1
            for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
                self._append(start, end)
            return np.ones(len(offsets), np.bool_)
        return np.array([self._add_one(offset) for offset in offsets.tolist()], np.bool_)

    def _add_one(self, offset: int) -> bool:
        if offset >= self.next:
            self._append(offset, offset + 1)
            return True
        run = bisect_right(self.starts, offset) - 1
        if run < 0 or offset >= self.ends[run]:
            raise ValueError(f"offset {offset} comes after offset {self.next - 1}")
        return False

    def _append(self, start: int, end: int) -> None:
        if self.ends and start == self.ends[-1]:
            self.ends[-1] = end
        else:
            self.starts.append(start)
            self.ends.append(end)


def _new_rows(rows: Records, partitions: dict[int, _Offsets]) -> Bool:
    """Which rows have coordinates that were not there before; ConfigError where offsets do not ascend."""
    new = np.zeros(len(rows), np.bool_)
    for partition in np.unique(rows.partitions).tolist():
        of_partition = rows.partitions == partition
        try:
            new[of_partition] = partitions.setdefault(partition, _Offsets()).add(rows.offsets[of_partition])
        except ValueError as error:
            raise ConfigError(
                f"{rows.topic}: partition {partition}: {error}; a partition's rows must stand in the order of offsets"
            ) from error
    return new


class _Beginning:
    """Up to which event time there may be events before the first row of a partition.

    A record before it was written before it, and holds a time at most `horizon_future` later than that. Where rows do
    not say when they were written, it was at most `horizon_past` after the time of their event.
    """

    def __init__(self, config: Config) -> None:
        self._future_ms = config.mapping.horizon_future_ms
        self._past_ms = config.mapping.horizon_past_ms
        self._seen: set[int] = set()
        self.cold_ms = NEVER

    def is_later(self, batch: Batch, partitions: dict[int, _Offsets]) -> bool:
        """Looks at partitions that begin in this batch; whether the time has moved on."""
        before_ms = self.cold_ms
        for partition in sorted(set(batch.partitions.tolist()) - self._seen):
            self._seen.add(partition)
            if partitions[partition].starts[0] > 0:
                row = int(np.argmax(batch.partitions == partition))
                written_ms = int(batch.record_times_ms[row])
                if written_ms < 0:
                    written_ms = int(batch.times_ms[row]) + self._past_ms
                self.cold_ms = max(self.cold_ms, written_ms + self._future_ms)
        return self.cold_ms > before_ms
