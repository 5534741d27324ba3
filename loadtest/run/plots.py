"""Pictures of a run, as PNG. Needs the `train` extra."""

from io import BytesIO
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from loadtest.run.outcome import Outcome
from loadtest.run.scrape import Sample

_DARK, _BRIGHT, _PALE = "#3b4754", "#d9650b", "#c3cad1"
_WIDE, _DPI = 9.6, 110
MIB = 1 << 20


def plots(outcome: Outcome) -> dict[str, bytes]:
    """All pictures by the name of their file; those of the worker's own numbers only where there are any."""
    pictures = {"percentiles.png": _percentiles(outcome), "latency.png": _latency(outcome)}
    pictures["throughput.png"] = _throughput(outcome)
    if len(outcome.samples) > 1:
        pictures["worker.png"] = _worker(outcome)
    if outcome.stages_us_per_event:
        pictures["stages.png"] = _stages(outcome)
    return pictures


def _percentiles(outcome: Outcome) -> bytes:
    """Latency by percentile, on an axis on which every nine takes the same room."""
    figure, axes = _axes(3.6)
    points = [(float(at), value) for at, value in outcome.curve_ms.items() if float(at) < 100]
    axes.plot([_nines(at) for at, _ in points], [value for _, value in points], color=_BRIGHT, marker="o", markersize=4)
    shown = (50, 90, 99, 99.9, 99.99)
    axes.xaxis.set_major_locator(FixedLocator([_nines(at) for at in shown]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda _, at: f"{shown[at]:g} %"))
    axes.set(xlabel="of the events were faster", ylabel="ms", ylim=(0, None))
    return _png(figure, axes)


def _nines(percentile: float) -> float:
    return float(-np.log10(1 - percentile / 100))


def _latency(outcome: Outcome) -> bytes:
    figure, axes = _axes(3.6)
    at = [one.at_s for one in outcome.seconds if one.p50_ms is not None]
    for name, style in (
        ("max_ms", {"color": _PALE, "label": "slowest"}),
        ("p99_ms", {"color": _BRIGHT, "label": "p99"}),
        ("p50_ms", {"color": _DARK, "label": "p50"}),
    ):
        axes.plot(at, [getattr(one, name) for one in outcome.seconds if one.p50_ms is not None], linewidth=1.4, **style)
    for number, at_s in enumerate(_aborted_at(outcome)):
        axes.axvline(at_s, color="#a3211a", linewidth=1, linestyle=":", label="" if number else "aborted transaction")
    for mark in outcome.marks:
        axes.axvline(mark.at_s, color=_DARK, linewidth=1, linestyle=":")
        axes.annotate(
            mark.text, (mark.at_s, 1), xycoords=("data", "axes fraction"), xytext=(3, -10), textcoords="offset points"
        )
    axes.set(yscale="log", ylabel="ms")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:,g}")
    _time_axis(axes, outcome)
    return _png(figure, axes)


def _aborted_at(outcome: Outcome) -> list[float]:
    """When samples tell of another aborted transaction."""
    pairs = pairwise(outcome.samples)
    return [(b.time_ms - _counting_ms(outcome)) / 1_000 for a, b in pairs if b.aborts > a.aborts]


def _throughput(outcome: Outcome) -> bytes:
    figure, axes = _axes(3.2)
    at = [one.at_s for one in outcome.seconds]
    axes.plot(at, [one.due for one in outcome.seconds], color=_PALE, linewidth=3, label="due")
    axes.plot(at, [one.decided for one in outcome.seconds], color=_BRIGHT, linewidth=1.2, label="decided")
    waiting = np.cumsum([one.due - one.decided for one in outcome.seconds])
    axes.plot(at, np.maximum(waiting, 0), color=_DARK, linewidth=1.2, linestyle=(0, (4, 2)), label="waiting (events)")
    axes.set(ylabel="events a second", ylim=(0, None))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    _time_axis(axes, outcome)
    return _png(figure, axes)


def _worker(outcome: Outcome) -> bytes:
    figure = Figure(figsize=(_WIDE, 3.2), layout="constrained")
    cpu, memory = figure.subplots(1, 2)
    first_ms = _counting_ms(outcome)
    at = [(one.time_ms - first_ms) / 1_000 for one in outcome.samples]
    cpu.plot(at[1:], _cpu_shares(outcome.samples), color=_BRIGHT)
    cpu.set(ylabel="CPU, % of a core", ylim=(0, None))
    memory.plot(at, [one.rss_bytes / MIB for one in outcome.samples], color=_DARK)
    memory.set(ylabel="resident memory, MiB", ylim=(0, None))
    for axes in (cpu, memory):
        _time_axis(axes, outcome)
        _calm(axes)
    return _rendered(figure)


def _cpu_shares(samples: list[Sample]) -> list[float]:
    pairs = pairwise(samples)
    return [(b.cpu_s - a.cpu_s) / max(b.time_ms - a.time_ms, 1) * 100_000 for a, b in pairs]


def _counting_ms(outcome: Outcome) -> int:
    """When counting began, by the samples' clock: the first sample is taken as the first event is about to be due."""
    return outcome.samples[0].time_ms + round(outcome.warm_up_s * 1_000)


def _stages(outcome: Outcome) -> bytes:
    figure, axes = _axes(3.4)
    stages = list(outcome.stages_us_per_event.items())[::-1]
    bars = axes.barh([name for name, _ in stages], [us for _, us in stages], color=_BRIGHT)
    axes.bar_label(bars, fmt="%.1f", padding=3)
    axes.set(xlabel="wall time, us an event")
    axes.spines[["top", "right"]].set_visible(False)
    return _rendered(figure)


def _time_axis(axes: Any, outcome: Outcome) -> None:
    """Seconds since counting began; the warm-up is shaded."""
    if outcome.seconds:
        first, last = outcome.seconds[0].at_s, outcome.seconds[-1].at_s + 1
        axes.set_xlim(first, last)
        if first < 0:
            axes.axvspan(first, 0, color="#f2f4f6", zorder=0)
    axes.set_xlabel("s (warm-up shaded)")


def _axes(height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(_WIDE, height), layout="constrained")
    return figure, figure.add_subplot()


def _calm(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e5e8eb", linewidth=0.8)
    axes.set_axisbelow(True)


def _png(figure: Figure, axes: Any) -> bytes:
    _calm(axes)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return _rendered(figure)


def _rendered(figure: Figure) -> bytes:
    out = BytesIO()
    figure.savefig(out, format="png", dpi=_DPI)
    return out.getvalue()
