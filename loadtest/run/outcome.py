"""What a run came to: the figures that `--json` prints and the page shows, from the same place."""

import os
import platform
import time
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from typing import Any

import numpy as np
from hdrh.histogram import HdrHistogram

from loadtest.columns import Int32, Int64
from loadtest.driver import Progress
from loadtest.measure import LATENCY_US_MAX, SIGNIFICANT_DIGITS, Tally
from loadtest.run.profile import LoadProfile
from loadtest.run.sampler import Sample, cpu_between

PACKAGES = ("tidegate", "confluent-kafka", "numpy", "onnxruntime", "rocksdict")
CURVE = (0, 10, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 99.95, 99.99, 99.999, 100)


@dataclass(frozen=True, slots=True)
class Counts:
    """What was sent and what came of it. `repeats` and `poison` are among `sent`; an event counts as decided once."""

    sent: int
    repeats: int
    poison: int
    decided: int
    decided_again: int
    dead_letters: int
    unknown: int

    @property
    def missing(self) -> int:
        """Events without a decision, and broken records without a dead letter."""
        return max(0, self.sent - self.repeats - self.poison - self.decided) + max(0, self.poison - self.dead_letters)


def counts_of(progress: Progress, tally: Tally) -> Counts:
    """By the counts of both ends."""
    return Counts(
        progress.events, progress.duplicates, progress.poison,
        tally.decided, tally.decided_again, tally.dead_letters, tally.unknown,
    )  # fmt: skip


def percentiles(latencies_us: Int32 | Int64) -> dict[str, float | None]:
    """p50, p99, p99.9 and the largest, in ms, from a histogram of three digits; None without events."""
    names = {"p50_ms": 50.0, "p99_ms": 99.0, "p999_ms": 99.9, "max_ms": 100.0}
    return dict(zip(names, _at(latencies_us, tuple(names.values())), strict=True))


def _at(latencies_us: Int32 | Int64, wanted: tuple[float, ...]) -> list[float | None]:
    histogram = HdrHistogram(1, LATENCY_US_MAX, SIGNIFICANT_DIGITS)
    for value, count in zip(*(column.tolist() for column in np.unique(latencies_us, return_counts=True)), strict=True):
        histogram.record_value(value, count)
    found = histogram.get_percentile_to_value_dict(wanted)
    return [found[percentile] / 1e3 if len(latencies_us) else None for percentile in wanted]


def reasons_invalid(progress: Progress, counts: Counts, intended: int) -> list[str]:
    """Why the figures are not those of the load that was meant, a line each."""
    reasons = []
    if counts.sent != intended:
        reasons.append(f"{counts.sent:,} of the {intended:,} events of the plan were sent")
    if progress.behind:
        reasons.append(
            f"the generator fell behind: {progress.late:,} of {progress.events:,} events were sent more than "
            f"10 ms after they were due, by up to {progress.delay_ms_max:,.0f} ms"
        )
    if counts.unknown:
        reasons.append(f"{counts.unknown:,} decisions or alerts are about events that this run did not send")
    return reasons


@dataclass(frozen=True, slots=True)
class Series:
    """One entry per second of the plan; latencies are by when an event was due, None where none was.

    `decided` is by when decisions arrived, `open` how many events were due and not decided at the second's end.
    """

    p50_ms: list[float | None]
    p99_ms: list[float | None]
    max_ms: list[float | None]
    due: list[int]
    decided: list[int]
    open: list[int]


def series_of(due_ms: Int64, took_us: Int32, start_ms: int) -> Series:
    """From all events of a run, of which those with latency 0 were not decided."""
    seconds = (due_ms - start_ms) // 1_000
    was_decided = took_us > 0
    arrived = (due_ms - start_ms + took_us // 1_000) // 1_000
    length = int(max(seconds.max(initial=-1), arrived[was_decided].max(initial=-1))) + 1
    due = np.bincount(seconds[was_decided], minlength=length)
    decided = np.bincount(arrived[was_decided], minlength=length)
    bounds = np.searchsorted(due_ms, start_ms + 1_000 * np.arange(length + 1))
    p50_ms: list[float | None] = []
    p99_ms: list[float | None] = []
    max_ms: list[float | None] = []
    for first, last in pairwise(bounds.tolist()):
        took = took_us[first:last]
        took = took[took > 0]
        found = np.percentile(took, (50, 99, 100)) / 1e3 if len(took) else (None, None, None)
        for column, value in zip((p50_ms, p99_ms, max_ms), found, strict=True):
            column.append(None if value is None else round(float(value), 3))
    waiting = np.cumsum(due) - np.cumsum(decided)
    return Series(p50_ms, p99_ms, max_ms, due.tolist(), decided.tolist(), waiting.tolist())


def figures_of(
    profile: LoadProfile, progress: Progress, tally: Tally, samples: list[Sample], bootstrap: str
) -> dict[str, Any]:
    """All of it, as JSON takes it; times in the series are seconds after the first event was due."""
    due_ms, took_us = tally.times()
    start_ms = tally.first_due_ms - int(profile.plan.due_ms(np.zeros(1, np.int64))[0])
    from_ms, to_ms = start_ms + 1_000 * profile.warm_up_s, start_ms + 1_000 * profile.plan.seconds
    counted = took_us[(due_ms > from_ms) & (took_us > 0)]
    came_ms = due_ms[took_us > 0] + took_us[took_us > 0] / 1e3
    # What the worker's time in the counted part went into, which is not what was due in it where it is behind.
    worked = int(((came_ms > from_ms) & (came_ms <= to_ms)).sum())
    counts = counts_of(progress, tally)
    reasons = reasons_invalid(progress, counts, profile.plan.events)
    cpu_s = cpu_between(samples, from_ms / 1e3, to_ms / 1e3)
    return {
        "profile": profile.name,
        "delivery": profile.delivery,
        "isolation": profile.isolation,
        "valid": not reasons,
        "invalid_because": reasons,
        "sent": counts.sent,
        "decided": counts.decided,
        "dead_letters": counts.dead_letters,
        "duplicated": counts.decided_again,
        "missing": counts.missing,
        "repeats_sent": counts.repeats,
        "poison_sent": counts.poison,
        "events_counted": len(counted),
        **percentiles(counted),
        "events_per_second": worked / (profile.plan.seconds - profile.warm_up_s),
        "send_delay_ms_max": progress.delay_ms_max,
        "cpu_us_per_event": cpu_s * 1e6 / worked if cpu_s is not None and worked else None,
        "stages_us_per_event": _stages(samples, from_ms / 1e3, to_ms / 1e3, worked),
        **_memory(samples, from_ms / 1e3),
        "attacks": [
            {"kind": a.kind, "started": a.started, "found": a.detected,
             "recall": a.detected / a.started if a.started else None, "seconds_to_alert_median": a.seconds_to_alert}
            for a in tally.attacks(progress.until_ms)
        ],
        "alerts": tally.alerts,
        "alerts_on_attacks": tally.alerts_on_attacks,
        "curve_ms": dict(zip(map(str, CURVE), _at(counted, CURVE), strict=True)),
        "series": _series(series_of(due_ms, took_us, start_ms), samples, start_ms),
        "marks": [{"at_s": at_s, "text": text} for at_s, text in profile.marks],
        "warm_up_s": profile.warm_up_s,
        "seconds": profile.plan.seconds,
        "intended_events": profile.plan.events,
        "seed": profile.traffic.seed,
        "machine": machine(),
        "bootstrap": bootstrap,
    }  # fmt: skip


def _series(series: Series, samples: list[Sample], start_ms: int) -> dict[str, Any]:
    at_s = [round(s.at_s - start_ms / 1e3, 2) for s in samples]
    cpu = [round((b.cpu_s - a.cpu_s) / (b.at_s - a.at_s), 3) for a, b in pairwise(samples)]
    return {
        **{name: getattr(series, name) for name in Series.__dataclass_fields__},
        "sampled_at_s": at_s,
        "rss_bytes": [s.rss_bytes for s in samples],
        "lag_events": [s.lag_events for s in samples],
        "cpu_cores": cpu,
    }


def _stages(samples: list[Sample], from_s: float, to_s: float, events: int) -> dict[str, float]:
    inside = [s for s in samples if from_s <= s.at_s <= to_s + 1]
    if len(inside) < 2 or not events:
        return {}
    first, last = inside[0].stages_s, inside[-1].stages_s
    share = (to_s - from_s) / (inside[-1].at_s - inside[0].at_s)
    return {name: (total - first.get(name, 0.0)) * share * 1e6 / events for name, total in last.items()}


def _memory(samples: list[Sample], from_s: float) -> dict[str, float | None]:
    rss = [s.rss_bytes for s in samples if s.at_s >= from_s]
    if not rss:
        return {"rss_bytes_first": None, "rss_bytes_last": None, "rss_bytes_max": None}
    return {"rss_bytes_first": rss[0], "rss_bytes_last": rss[-1], "rss_bytes_max": max(rss)}


def machine() -> dict[str, Any]:
    """What it was measured on, and when."""
    versions = {name: version(name) for name in PACKAGES}
    return {
        "system": platform.platform(),
        "cpus": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "versions": versions,
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
