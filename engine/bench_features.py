"""What windows cost, how far they are off once a ring has overflowed, and how many bytes an entity takes.

Everything goes through `LocalState`, as in a worker, and all of it is seeded.

*Cost.* One entity type, 10 windows x count, sum, mean, std, max and distinct of one field; one hour between an entity's
events on average, exponentially; windows 1h 2h 4h 8h 16h 32h 64h 128h 192h 240h, which begin at 1, 2, 4 ... 240 of the
256 events that a ring holds; every event drops one into a tile (`half_full`: rings of 256 places hold about 130 events
and nothing was ever dropped). Each event belongs to an entity drawn at random, in order of time, in batches of 2,048.
The figure is CPU time of the one thread in `LocalState.features`, lookup included, per event, the median of several
repetitions; the collector is off.

*Error.* Streams of engine.bench_streams: cards with sessions of 5 and of 20 payments 30 s apart, merchants with rushes;
10,000 events within 30 and within 7 days, lognormal amounts. Measured are windows, 10 minutes to 30 days, that are
flagged inexact, hold 1,000 events or more and begin after the entity's first one, at events of the later half, as
|value / brute force - 1|; `p99` is that of the worst kind of stream. Values for distinct are drawn from 700 and from
2,000 by Zipf's law (`distinct_error_p99` is the worst of them), or never come twice.

*Bytes.* Slot, share of the lookup table and block of an entity with the aggregates of *Cost*, and key and blob in the
database, for so many events: hourly ones, and for 10,000 the streams of *Error*, the mean of the worst kind.
"""

import gc
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.bench_streams import (
    EPOCH_MS,
    HOUR_MS,
    Stream,
    batch_of,
    card_times,
    lognormal_amounts,
    merchant_times,
    mixed,
    zipf_values,
)
from engine.config import Config, config_from_tree
from engine.errors import FatalError
from engine.events import Batch
from engine.state.keys import ENTITY_KIND_FIRST
from engine.state.local import LocalState, warm_up
from engine.state.store import Store
from features.durations import duration_ms

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]

BATCH_EVENTS = 2_048
RING_EVENTS = 256
# Of the blocks' share of the budget no more than half is kept when room is made; nothing is to be given up here.
HEAP_BYTES_PER_ENTITY = 40_000

COST_WINDOWS = ("1h", "2h", "4h", "8h", "16h", "32h", "64h", "128h", "192h", "240h")
COST_AGGREGATES = ("count", "sum.amount", "mean.amount", "std.amount", "max.amount", "distinct.merchant")
GAP_MS = HOUR_MS
MERCHANTS = 1_000
TIMED_BATCHES = 100

ERROR_WINDOWS = ("10m", "1h", "6h", "12h", "1d", "2d", "3d", "5d", "7d", "10d", "14d", "21d", "30d")
STATISTICS = ("count", "sum", "mean", "std", "min", "max")
POPULATIONS = (700, 2_000)
ALL_DIFFERENT = "all_different"
VALUES = (*(f"zipf_{population}" for population in POPULATIONS), ALL_DIFFERENT)
STREAM_EVENTS = 10_000
COUNT_MIN = 1_000
# Events of a batch of which one in so many is compared with brute force.
COMPARED_EVENTS, COMPARED_EVERY = 128, 20
BYTES_EVENTS = (1, 10, 100)


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured: entities and repetitions for cost, streams of each kind for error, entities for bytes."""

    entities: int = 100_000
    repetitions: int = 7
    streams: int = 20
    bytes_entities: int = 1_000


STREAM_KINDS: dict[str, tuple[Callable[[np.random.Generator, int, int], Int64], int]] = {
    "card_sessions_of_5_30d": (lambda rng, events, days: card_times(rng, events, days, 5), 30),
    "card_sessions_of_20_30d": (lambda rng, events, days: card_times(rng, events, days, 20), 30),
    "merchant_30d": (merchant_times, 30),
    "card_sessions_of_5_7d": (lambda rng, events, days: card_times(rng, events, days, 5), 7),
    "card_sessions_of_20_7d": (lambda rng, events, days: card_times(rng, events, days, 20), 7),
    "merchant_7d": (merchant_times, 7),
}


def bench_features(size: Size, say: Callable[[str], None]) -> dict[str, object]:
    """Measures everything; returns the figures under the keys that `--json` prints."""
    figures: dict[str, object] = {}
    for name, events in (("", 2 * RING_EVENTS), ("_half_full", RING_EVENTS // 2 + 1)):
        say(f"filling {size.entities:,} entities with {events} events each")
        costs = cost(size, events)
        figures[f"us_per_entity_event{name}"] = float(np.median(costs))
        figures[f"us_per_entity_event{name}_min"] = float(costs.min())
        figures[f"us_per_entity_event{name}_max"] = float(costs.max())
    say(f"comparing {size.streams} streams of each kind with brute force")
    figures |= errors(size)
    say("weighing entities")
    return figures | weights(size)


def configured(
    windows: tuple[str, ...], aggregates: tuple[str, ...], entities: int, folder: Path | None = None
) -> Config:
    """One entity type, `card`, in a cache in which so many of them stay."""
    tree = {
        "mapping": {"currency": {"default": "EUR"}},
        "entities": {"card": {"windows": list(windows), "aggregates": list(aggregates)}},
        "state": {
            "dir": str(folder or "state"),
            "cache_bytes_max": 1024 * 1024 * 1024 + entities * HEAP_BYTES_PER_ENTITY,
            "ring_events_max": RING_EVENTS,
        },
    }
    return config_from_tree(tree, Path(), {}, "benchmark")


def open_state(config: Config, store: Store | None = None) -> LocalState:
    """A state with compiled kernels."""
    spec = config.feature_spec()
    warm_up(config, spec)
    return LocalState(config, spec, "", store)


def cost(size: Size, events_each: int) -> Float64:
    """CPU us per event of each repetition, once every entity has had so many events."""
    state = open_state(configured(COST_WINDOWS, COST_AGGREGATES, size.entities))
    rng = np.random.default_rng(1)
    clock_ms = EPOCH_MS
    for _ in range(events_each):
        # Every entity once an hour, in an order and at a minute of its own.
        times_ms = clock_ms + np.sort(rng.integers(0, GAP_MS, size.entities))
        state.features(_drawn(rng, rng.permutation(size.entities), times_ms), compute=False)
        clock_ms += GAP_MS
    costs = []
    for _ in range(size.repetitions + 1):
        batches = []
        for _ in range(TIMED_BATCHES):
            gaps_ms = rng.exponential(GAP_MS / size.entities, BATCH_EVENTS)
            times_ms = clock_ms + np.cumsum(gaps_ms).astype(np.int64)
            clock_ms = int(times_ms[-1])
            batches.append(_drawn(rng, rng.integers(0, size.entities, BATCH_EVENTS), times_ms))
        # Blocks move together, and those that grow from now on grow into memory that was in use before.
        state.make_room(0)
        costs.append(_timed(state, batches))
    return np.array(costs[1:])  # the first one warms up


def _drawn(rng: np.random.Generator, entities: Int64, times_ms: Int64) -> Batch:
    events = len(entities)
    words = np.column_stack((mixed(entities), zipf_values(rng, events, MERCHANTS)))
    return batch_of(words, times_ms, lognormal_amounts(rng, events))


def _timed(state: LocalState, batches: list[Batch]) -> float:
    """CPU us per event."""
    gc.collect()
    gc.disable()
    started = time.thread_time()
    for batch in batches:
        state.features(batch)
    spent = time.thread_time() - started
    gc.enable()
    return spent / (len(batches) * BATCH_EVENTS) * 1e6


def drawn_stream(rng: np.random.Generator, kind: str) -> Stream:
    """One stream of a kind, with a field for each of `VALUES`."""
    times, days = STREAM_KINDS[kind]
    times_ms = times(rng, STREAM_EVENTS, days)
    events = len(times_ms)
    # Values of its own, so that which of them share a cell differs from stream to stream.
    first = int(rng.integers(1 << 30))
    values = [zipf_values(rng, events, population, first) for population in POPULATIONS]
    values.append(mixed(first + np.arange(events)))
    return Stream(times_ms, lognormal_amounts(rng, events), np.column_stack(values))


def errors(size: Size) -> dict[str, object]:
    """The error of every value, by kind of stream and of the worst kind."""
    statistics = (*STATISTICS, *VALUES)
    found: dict[str, Float64] = {}
    for number, kind in enumerate(STREAM_KINDS):
        rng = np.random.default_rng((number, 2))
        found[kind] = stream_errors([drawn_stream(rng, kind) for _ in range(size.streams)])
    p99 = {kind: np.percentile(rows, 99, axis=0) for kind, rows in found.items()}
    worst = dict(zip(statistics, np.max(list(p99.values()), axis=0).tolist(), strict=True))
    return {
        "tile_error_p99": {name: worst[name] for name in STATISTICS},
        "distinct_error_p99": max(worst[name] for name in VALUES if name != ALL_DIFFERENT),
        f"distinct_error_p99_{ALL_DIFFERENT}": worst[ALL_DIFFERENT],
        "windows_compared": {kind: len(rows) for kind, rows in found.items()},
        **{f"error_p99_{kind}": dict(zip(statistics, row.tolist(), strict=True)) for kind, row in p99.items()},
        **{
            f"error_p50_{kind}": dict(zip(statistics, np.median(rows, axis=0).tolist(), strict=True))
            for kind, rows in found.items()
        },
        **{
            f"error_max_{kind}": dict(zip(statistics, rows.max(axis=0).tolist(), strict=True))
            for kind, rows in found.items()
        },
    }


def stream_errors(streams: list[Stream]) -> Float64:
    """|value / brute force - 1|: a row for each inexact window of enough events, a column for each statistic.

    FatalError where the count of an exact window is not that of brute force.
    """
    names = ("count", *(f"{name}.amount" for name in STATISTICS[1:]), *(f"distinct.{name}" for name in VALUES))
    state = open_state(configured(ERROR_WINDOWS, names, len(streams)))
    # Fields stand in name order, after the key.
    batch, of_stream, places = merged(streams, np.argsort(VALUES))
    truths = [Truth(stream) for stream in streams]
    rows: list[Float64] = []
    for number, start in enumerate(range(0, len(batch), COMPARED_EVENTS)):
        part = np.arange(start, min(start + COMPARED_EVENTS, len(batch)))
        compared = number % COMPARED_EVERY == COMPARED_EVERY - 1
        matrix = state.features(batch.take(part), compute=compared)
        if not compared:
            continue
        read = matrix.values.reshape(len(part), len(names), len(ERROR_WINDOWS))
        for k in np.flatnonzero(places[part] * 2 >= STREAM_EVENTS).tolist():
            truth, place = truths[of_stream[part[k]]], int(places[part[k]])
            exact = int(matrix.exact_windows[k, 0])
            rows += _compared(read[k], truth, place, exact)
    return np.array(rows).reshape(-1, len(names))


def merged(streams: list[Stream], fields: Int64) -> tuple[Batch, Int64, Int64]:
    """All streams by time, an entity each, with these fields; of which stream each event is, and its place there."""
    order = np.argsort(np.concatenate([stream.times_ms for stream in streams]), kind="stable")
    of_stream = np.repeat(np.arange(len(streams)), [len(stream) for stream in streams])[order]
    places = np.concatenate([np.arange(len(stream)) for stream in streams])[order]
    values = np.concatenate([stream.values for stream in streams])[order]
    batch = batch_of(
        np.column_stack((mixed(of_stream), values[:, fields])),
        np.concatenate([stream.times_ms for stream in streams])[order],
        np.concatenate([stream.amounts_minor for stream in streams])[order],
    )
    return batch, of_stream, places


def _compared(read: Float64, truth: "Truth", place: int, exact: int) -> Iterator[Float64]:
    for window, text in enumerate(ERROR_WINDOWS):
        first = truth.first(place, duration_ms(text))
        if window < exact:
            if read[0, window] != place + 1 - first:
                raise FatalError(f"an exact window of {text} has {read[0, window]} events, not {place + 1 - first}")
        elif first > 0 and place + 1 - first >= COUNT_MIN:
            yield np.abs(read[:, window] / truth.statistics(first, place + 1) - 1)


class Truth:
    """One stream, ready for brute force."""

    def __init__(self, stream: Stream) -> None:
        self._times_ms = stream.times_ms
        self._amounts = stream.amounts_minor / 100
        self._totals = np.concatenate(([0], np.cumsum(stream.amounts_minor)))
        # Where each value stood before: among so many events it is new where that is before the first of them.
        self._before = [_places_before(column) for column in stream.values.T]

    def first(self, place: int, window_ms: int) -> int:
        """The first event in the window of the event at `place`."""
        return int(np.searchsorted(self._times_ms, self._times_ms[place] - window_ms, side="right"))

    def statistics(self, first: int, end: int) -> Float64:
        """count, sum, mean, std, min, max and how many values are distinct, of the events first .. end - 1."""
        amounts = self._amounts[first:end]
        total = (self._totals[end] - self._totals[first]) / 100
        distinct = [np.count_nonzero(before[first:end] < first) for before in self._before]
        count = end - first
        return np.array([count, total, total / count, amounts.std(ddof=1), amounts.min(), amounts.max(), *distinct])


def _places_before(values: NDArray[np.uint64]) -> Int64:
    order = np.argsort(values, kind="stable")
    before = np.full(len(values), -1, np.int64)
    same = values[order[1:]] == values[order[:-1]]
    before[order[1:][same]] = order[:-1][same]
    return before


def weights(size: Size) -> dict[str, object]:
    """Bytes of an entity in memory and in the database, by how many events it had."""
    memory: dict[str, float] = {}
    disk: dict[str, float] = {}
    for events in BYTES_EVENTS:
        rng = np.random.default_rng((events, 3))
        regular = [_hourly(rng, events) for _ in range(size.bytes_entities)]
        memory[str(events)], disk[str(events)] = weight(regular)
    many = {}
    for number, kind in enumerate(STREAM_KINDS):
        rng = np.random.default_rng((number, 2))
        many[kind] = weight([drawn_stream(rng, kind) for _ in range(size.streams)])
    worst = max(many, key=lambda kind: many[kind][0])
    memory[str(STREAM_EVENTS)], disk[str(STREAM_EVENTS)] = many[worst]
    return {
        "bytes_per_entity": memory,
        "bytes_per_entity_on_disk": disk,
        f"bytes_per_entity_of_{STREAM_EVENTS}": {kind: of_one[0] for kind, of_one in many.items()},
    }


def _hourly(rng: np.random.Generator, events: int) -> Stream:
    times_ms = EPOCH_MS + np.cumsum(rng.exponential(GAP_MS, events)).astype(np.int64)
    return Stream(times_ms, lognormal_amounts(rng, events), zipf_values(rng, events, MERCHANTS)[:, np.newaxis])


def weight(streams: list[Stream]) -> tuple[float, float]:
    """Mean bytes of an entity in memory and in the database: one entity for each stream, its last field counted."""
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        config = configured(COST_WINDOWS, COST_AGGREGATES, len(streams), Path(folder))
        with Store(Path(folder), config.state.block_cache_bytes_max) as store:
            state = open_state(config, store)
            state.features(merged(streams, np.array([-1]))[0], compute=False)
            memory = state.dirty_bytes()
            state.begin_flush({})
            state.finish_flush()
            disk = sum(len(key) + len(blob) for key, blob in store.scan(bytes([ENTITY_KIND_FIRST])))
    return memory / len(streams), disk / len(streams)
