"""The figures of a run, as `--json` prints them and the page shows them."""

import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import orjson
from hdrh.histogram import HdrHistogram

from loadtest.columns import Int64
from loadtest.figures import AttackCount
from loadtest.measure import LATENCY_US_MAX, SIGNIFICANT_DIGITS, record
from loadtest.run.profile import Mark
from loadtest.run.scrape import Sample

PACKAGES = ("tidegate", "confluent-kafka", "onnxruntime", "numpy", "numba", "rocksdict")
# Where the curve of percentiles is drawn: dense towards the end, as latencies are told by their nines.
CURVE = (0, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 99.95, 99.99, 100)
MS_PER_S = 1_000
AUTOGROUP = Path("/proc/sys/kernel/sched_autogroup_enabled")


class Attack(msgspec.Struct, frozen=True):
    """What became of the attacks of one kind; `seconds_to_alert` is the median, None where none was found."""

    kind: str
    started: int
    detected: int
    recall: float | None
    seconds_to_alert: float | None


class Second(msgspec.Struct, frozen=True):
    """Events that were due within one second; `at_s` is from the beginning of what counts, negative in the warm-up.

    `decided` were due or not: they arrived within it. Latencies are None where none of the second's was decided.
    """

    at_s: int
    due: int
    decided: int
    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None


class Outcome(msgspec.Struct, frozen=True):
    """A whole run. Counts are of all events, warm-up included; latencies and rates of those that count.

    `duplicated`: decisions beyond the first of an event. `missing`: events without one. `cpu_us_per_event` and the
    stages' wall time are the worker's own, between its first and last sample of what counts; None without samples.
    """

    profile: str
    delivery: str
    isolation: str
    seed: int
    warm_up_s: float
    plan: list[dict[str, float]]
    sent: int
    sent_again: int
    sent_broken: int
    decided: int
    dead_letters: int
    duplicated: int
    missing: int
    unknown: int
    valid: bool
    send_delay_ms_max: float
    counted: int
    events_per_second: float
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    p999_ms: float | None
    max_ms: float | None
    cpu_us_per_event: float | None
    rss_bytes_first: int | None
    rss_bytes_last: int | None
    lag_events_max: int | None
    aborts: int | None
    stages_us_per_event: dict[str, float]
    alerts: int
    alert_precision: float | None
    attacks: list[Attack]
    failures: list[str]
    machine: dict[str, str]
    versions: dict[str, str]
    curve_ms: dict[str, float]
    marks: list[Mark]
    seconds: list[Second]
    samples: list[Sample]


def json_of(outcome: Outcome) -> bytes:
    """The figures, indented."""
    return orjson.dumps(msgspec.to_builtins(outcome), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def histogram(latencies_us: Int64) -> HdrHistogram:
    """All of them, with three significant digits."""
    found = HdrHistogram(1, LATENCY_US_MAX, SIGNIFICANT_DIGITS)
    record(found, latencies_us)
    return found


def percentiles_ms(latencies_us: Int64, percentiles: Sequence[float]) -> list[float | None]:
    """By the histogram; None where there are no latencies."""
    if not len(latencies_us):
        return [None] * len(percentiles)
    values_us = histogram(latencies_us).get_percentile_to_value_dict(list(percentiles))
    return [values_us[percentile] / 1e3 for percentile in percentiles]


def by_second(due_ms: Int64, latencies_us: Int64, all_due_ms: Int64, first_ms: int) -> list[Second]:
    """Every second of a run, by `due_ms[n]` and `latencies_us[n]` of decided events; counting begins at `first_ms`."""
    if not len(all_due_ms):
        return []
    places = np.floor_divide(due_ms - first_ms, MS_PER_S)
    arrivals = np.floor_divide(due_ms + latencies_us // 1_000 - first_ms, MS_PER_S)
    all_places = np.floor_divide(all_due_ms - first_ms, MS_PER_S)
    first, last = int(all_places.min()), int(max(all_places.max(), arrivals.max(initial=0)))
    due, came = (np.bincount(of - first, minlength=last - first + 1) for of in (all_places, arrivals))
    order = np.argsort(places, kind="stable")
    bounds = np.searchsorted(places[order], np.arange(first, last + 2))
    found = []
    for at, (begin, end) in enumerate(pairwise(bounds.tolist())):
        within = latencies_us[order[begin:end]] / 1e3
        figures = [None] * 3 if begin == end else np.percentile(within, (50, 99, 100)).round(3).tolist()
        found.append(Second(first + at, int(due[at]), int(came[at]), *figures))
    return found


def attacks_of(counts: Sequence[AttackCount]) -> list[Attack]:
    """With the share that was found."""
    return [
        Attack(one.kind, one.started, one.detected, one.detected / one.started if one.started else None,
               one.seconds_to_alert)
        for one in counts
    ]  # fmt: skip


def own_figures(samples: Sequence[Sample]) -> tuple[float | None, dict[str, float]]:
    """CPU and each stage's wall time in us per event between the first sample and the last."""
    if len(samples) < 2 or samples[-1].events <= samples[0].events:
        return None, {}
    first, last = samples[0], samples[-1]
    events = last.events - first.events
    stages = {
        stage: round((total - first.stages_s.get(stage, 0.0)) / events * 1e6, 3)
        for stage, total in last.stages_s.items()
    }
    return round((last.cpu_s - first.cpu_s) / events * 1e6, 3), stages


def machine() -> dict[str, str]:
    """What the run ran on, without a name of it."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
        "load_average": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "autogroup": autogroup(),
    }


def autogroup() -> str:
    """Whether Linux shares processors among sessions instead of among threads: sched(7). It makes tails longer."""
    try:
        return "on" if AUTOGROUP.read_text("utf-8").strip() == "1" else "off"
    except FileNotFoundError:
        return "none"


def versions() -> dict[str, str]:
    """Of what does the work."""
    return {name: version(name) for name in PACKAGES}
