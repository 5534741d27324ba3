"""What events cost whose every entity has to be read from disk, and whether memory keeps within its budget.

The configuration is the one that ships: card, merchant, device and ip. A database is filled with as many entities, a
quarter of each type, three events each; then a worker's state, opened on it with a small cache, takes events of four
entities of which none was read before, each type in a random order of its own. Dirty entities go to disk as they do in
the worker's loop, a slice after each batch, and what that costs is counted. So is the cost of deduplication.

`events_per_second` is per second of wall time within the calls to `LocalState`; `cpu_us_per_event` is what their
thread spent, `process_cpu_us_per_event` has RocksDB's own threads and the making of batches in it as well.
`rss_over_empty_bytes` is the largest resident set that was seen after a batch, less that of a worker with an empty
state, both with model and kernels loaded. The budget is that of entities in memory and of RocksDB's block cache
together; what the system keeps of the files is not the process's. Each part runs in a process of its own.
"""

import multiprocessing
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np

from engine.assemble import assemble
from engine.bench_streams import EPOCH_MS, HOUR_MS, UInt64, batch_of, lognormal_amounts, mixed
from engine.config import Config, State, default_profile, parse_config
from engine.flusher import FLUSH_SLICE_ENTITIES
from engine.replay import flush_when_full

BLOCK_CACHE_SHARE = 1 / 8
BATCH_EVENTS = 2_048
FILL_EVENTS = 16_384
EVENTS_EACH = 3
FILL_BUDGET_BYTES = 2 * 1024**3
# How often the worker looks at what is dirty.
STATUS_INTERVAL_S = 1.0
PAGES_FIELD, PAGE_BYTES = 1, 4_096

Result = TypeVar("Result")


def bench_cold(entities: int, events: int | None, budget_bytes: int, say: Callable[[str], None]) -> dict[str, object]:
    """Measures with so many entities on disk; returns the figures under the keys that `--json` prints.

    By default, and at most, as many events as there are entities of a type.
    """
    unread = entities // len(_config(Path(), budget_bytes).entities)
    events = unread if events is None else min(events, unread)
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        say("measuring an empty worker")
        empty_bytes = _apart(_empty, _config(Path(folder) / "empty", budget_bytes))
        say(f"putting {entities:,} entities on disk")
        _apart(fill, _config(Path(folder) / "full", FILL_BUDGET_BYTES), entities)
        on_disk_bytes = sum(file.stat().st_size for file in Path(folder).rglob("*.sst"))
        say(f"feeding {events:,} events")
        figures = _apart(_feed, _config(Path(folder) / "full", budget_bytes), entities, events)
    rss_bytes = int(figures.pop("rss_bytes"))
    return {
        "entities": entities,
        "events": events,
        **figures,
        "budget_bytes": budget_bytes,
        "rss_empty_bytes": empty_bytes,
        "rss_bytes": rss_bytes,
        "rss_over_empty_bytes": rss_bytes - empty_bytes,
        "state_bytes_on_disk": on_disk_bytes,
    }


def _apart(work: Callable[..., Result], *args: object) -> Result:
    """Runs it in a new process, whose memory nothing else has touched."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(work, *args).result()


def _config(folder: Path, budget_bytes: int) -> Config:
    block_cache_bytes = int(budget_bytes * BLOCK_CACHE_SHARE)
    cache_bytes = budget_bytes - block_cache_bytes
    state = State(
        dir=str(folder),
        cache_bytes_max=cache_bytes,
        block_cache_bytes_max=block_cache_bytes,
        dirty_bytes_max=cache_bytes // 4,
    )
    return msgspec.structs.replace(parse_config(default_profile(), Path(), {}), state=state)


def _rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text("ascii").split()[PAGES_FIELD]) * PAGE_BYTES


def _empty(config: Config) -> int:
    with ExitStack() as resources_open:
        assemble(config, resources_open)
        return _rss_bytes()


def _keys(config: Config, entities: int) -> list[UInt64]:
    """Key words of each entity type, which are all that the shipped configuration stores of fields."""
    assert len(config.feature_spec().columns) == len(config.entities)
    types = len(config.entities)
    return [mixed(np.arange(entities // types) * types + kind) for kind in range(types)]


def fill(config: Config, entities: int) -> None:
    """Makes a state of so many entities, which stands at the beginning of a topic of one partition."""
    rng = np.random.default_rng(1)
    keys = np.column_stack(_keys(config, entities))
    with ExitStack() as resources_open:
        state = assemble(config, resources_open).state
        for start in range(0, len(keys), FILL_EVENTS):
            words = keys[start : start + FILL_EVENTS]
            for hour in range(EVENTS_EACH):
                times_ms = EPOCH_MS + hour * HOUR_MS + np.sort(rng.integers(0, HOUR_MS, len(words)))
                state.features(batch_of(words, times_ms, lognormal_amounts(rng, len(words))), compute=False)
            flush_when_full(state, config)
        state.begin_flush({0: 0})
        state.finish_flush()


def _feed(config: Config, entities: int, events: int) -> dict[str, float]:
    rng = np.random.default_rng(2)
    keys = np.column_stack([rng.permutation(column) for column in _keys(config, entities)])
    spent_s, rss_bytes = dict.fromkeys(("accept", "features", "flush"), 0.0), 0
    thread_cpu_s, process_cpu_s = 0.0, time.process_time()
    with ExitStack() as resources_open:
        state = assemble(config, resources_open).state
        started = status_at = time.perf_counter()
        flush_at = started + config.state.flush_interval_s
        for start in range(0, events, BATCH_EVENTS):
            end = min(start + BATCH_EVENTS, events)
            times_ms = EPOCH_MS + EVENTS_EACH * HOUR_MS + np.arange(start, end)
            batch = batch_of(keys[start:end], times_ms, lognormal_amounts(rng, end - start), start)
            clock, cpu_s = [time.perf_counter()], time.thread_time()
            if state.crowded(len(batch)):
                state.begin_flush({0: start})
                state.finish_flush()
            batch = state.accept(batch)
            clock.append(time.perf_counter())
            state.features(batch)
            clock.append(time.perf_counter())
            if clock[-1] > status_at + STATUS_INTERVAL_S and not state.flushing:
                status_at = clock[-1]
                if clock[-1] > flush_at or state.dirty_bytes() > config.state.dirty_bytes_max:
                    state.begin_flush({0: end})
                    flush_at = clock[-1] + config.state.flush_interval_s
            state.continue_flush(FLUSH_SLICE_ENTITIES + len(batch))
            clock.append(time.perf_counter())
            thread_cpu_s += time.thread_time() - cpu_s
            for stage, seconds in zip(spent_s, np.diff(clock).tolist(), strict=True):
                spent_s[stage] += seconds
            rss_bytes = max(rss_bytes, _rss_bytes())
        process_cpu_s = time.process_time() - process_cpu_s
        misses, hits = state.cache_misses, state.cache_hits
        state.begin_flush({0: events})
        state.finish_flush()
    return {
        "events_per_second": events / sum(spent_s.values()),
        **{f"{stage}_us_per_event": seconds / events * 1e6 for stage, seconds in spent_s.items()},
        "cpu_us_per_event": thread_cpu_s / events * 1e6,
        "process_cpu_us_per_event": process_cpu_s / events * 1e6,
        "misses_per_event": misses / events,
        "hits_per_event": hits / events,
        "rss_bytes": rss_bytes,
    }
