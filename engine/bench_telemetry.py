"""What samples and counts cost, beside the same decisions without them.

The configuration is the one that ships, fed with the reference stream. Two workers' pipelines, each with a state of its
own, decide the same micro-batches in turn; one of them draws samples and counts, commits as often as a worker does and
publishes. All is from bytes to bytes, without Kafka, so that the ratio is more than that of all that a worker does.
"""

import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from engine.assemble import assemble, watched
from engine.clock import SYSTEM_CLOCK
from engine.config import Config, default_profile, parse_config
from engine.events import Records
from engine.pipeline import Pipeline
from engine.reporter import Reporter

WARM_UP_EVENTS = 100_000
TIMED_EVENTS = 100_000
# A worker at 10,000 events/s that commits every 50 ms.
EVENTS_PER_COMMIT = 500
INTERVAL_S = 5.0


def bench_telemetry(events: Iterable[Records], sample_rate: float, say: Callable[[str], None]) -> dict[str, object]:
    """Measures on these micro-batches; returns the figures under the keys that `--json` prints."""
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder, ExitStack() as resources_open:
        configs = [_config(Path(folder), enabled, sample_rate) for enabled in (False, True)]
        pipelines = [assemble(config, resources_open) for config in configs]
        watched(configs[1], pipelines[1])
        published: list[bytes] = []
        reporter = Reporter(configs[1], pipelines[1].drift, published.append, SYSTEM_CLOCK)
        reporter.begin(pipelines[1])
        batches = iter(events)
        say("taking a part of the stream into both states")
        _timed(pipelines, reporter, batches, WARM_UP_EVENTS)
        say("deciding the rest with and without telemetry")
        samples = pipelines[1].metrics.samples
        ratios, seconds, counted = _timed(pipelines, reporter, batches, TIMED_EVENTS)
    without, with_both = (spent / counted * 1e6 for spent in seconds)
    return {
        "events": counted,
        "batch_events": counted / len(ratios),
        "sample_rate": sample_rate,
        "sample_share": (pipelines[1].metrics.samples - samples) / counted,
        "without_us_per_event": without,
        "with_us_per_event": with_both,
        "telemetry_us_per_event": with_both - without,
        "ratio": with_both / without,
        "ratio_of_a_batch_median": float(np.median(ratios)),
        "records": len(published),
        "record_bytes_max": max(map(len, published), default=0),
    }


def _config(folder: Path, enabled: bool, sample_rate: float) -> Config:
    state = folder / str(enabled)
    tables = f"""
[state]
dir = {str(state)!r}
cache_bytes_max = {256 << 20}
dirty_bytes_max = {64 << 20}
[telemetry]
enabled = {str(enabled).lower()}
sample_rate = {sample_rate}
interval_s = {INTERVAL_S}
"""
    return parse_config(default_profile() + tables, folder, {})


def _timed(
    pipelines: list[Pipeline], reporter: Reporter, batches: Iterable[Records], events: int
) -> tuple[list[float], list[float], int]:
    """Ratios batch by batch, seconds of each pipeline, and the events that it took."""
    ratios, seconds, counted, uncommitted = [], [0.0, 0.0], 0, 0
    for number, records in enumerate(batches):
        spent = [0.0, 0.0]
        # Who comes second finds the processor's caches as the other one left them.
        for which in (0, 1) if number % 2 else (1, 0):
            before = time.thread_time()
            pipelines[which].process(records)
            if which == 1:
                if uncommitted >= EVENTS_PER_COMMIT:
                    reporter.add(reporter.take())
                    uncommitted = 0
                reporter.tick(pipelines[which])
            spent[which] = time.thread_time() - before
            seconds[which] += spent[which]
        ratios.append(spent[1] / spent[0])
        counted += len(records)
        uncommitted += len(records)
        if counted >= events:
            break
    return ratios, seconds, counted
