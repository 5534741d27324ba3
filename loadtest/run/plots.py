"""Pictures of a run or of a search for capacity, as PNG. Needs the `train` extra."""

import math
from io import BytesIO
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

INK, ACCENT, SOFT, THIRD = "#3b4754", "#d9650b", "#9aa4ae", "#2a7f9e"
_WIDE, _DPI = 9.6, 110
_NINES = {0: "0", 50: "50", 90: "90", 99: "99", 99.9: "99.9", 99.99: "99.99", 99.999: "99.999"}

Outcome = dict[str, Any]


def plots(figures: Outcome) -> dict[str, bytes]:
    """All pictures of a run by the name of their file; those of the worker only where its metrics are known."""
    found = {
        "percentiles.png": plot_percentiles(figures),
        "latency.png": plot_latency(figures),
        "throughput.png": plot_throughput(figures),
    }
    if figures["series"]["sampled_at_s"]:
        found["worker.png"] = plot_worker(figures)
    if figures["stages_us_per_event"]:
        found["stages.png"] = plot_stages(figures)
    return found


def plot_percentiles(figures: Outcome) -> bytes:
    """Latency over percentiles, stretched towards 100 as HdrHistogram's plots are."""
    figure, axes = _axes(3.6)
    points = [(float(p), ms) for p, ms in figures["curve_ms"].items() if ms is not None and float(p) < 100]
    axes.plot([1 / (1 - p / 100) for p, _ in points], [ms for _, ms in points], color=ACCENT, marker="o", markersize=3)
    axes.set_xscale("log")
    axes.set_xticks([1 / (1 - p / 100) for p in _NINES], list(_NINES.values()))
    axes.minorticks_off()
    axes.set(xlabel="percentile", ylabel="latency, ms")
    axes.set_ylim(bottom=0)
    return _png(figure)


def plot_latency(figures: Outcome) -> bytes:
    """p50, p99 and the largest of each second, by when events were due."""
    figure, axes = _axes(3.8)
    series = figures["series"]
    for name, label, colour in (("max_ms", "max", SOFT), ("p99_ms", "p99", ACCENT), ("p50_ms", "p50", INK)):
        values = [float("nan") if value is None else value for value in series[name]]
        axes.plot(range(len(values)), values, color=colour, linewidth=1.4, label=label)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.8)))
    axes.set(xlabel="second of the run", ylabel="latency, ms")
    _marks(axes, figures)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return _png(figure)


def plot_throughput(figures: Outcome) -> bytes:
    """Events due and decisions per second, and below them how many wait."""
    series = figures["series"]
    figure = Figure(figsize=(_WIDE, 4.8), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    above.plot(
        series["due"][: math.ceil(figures["seconds"])], color=INK, linestyle=(0, (4, 2)), linewidth=1.4, label="due"
    )
    above.plot(series["decided"], color=ACCENT, linewidth=1.4, label="decided")
    above.set(ylabel="events/s")
    below.plot(series["open"], color=INK, linewidth=1.4, label="due and not decided at the second's end")
    below.plot(series["sampled_at_s"], series["lag_events"], color=THIRD, linewidth=1.2,
               label="consumer lag, as the worker says")  # fmt: skip
    below.set(xlabel="second of the run", ylabel="events")
    for axes in (above, below):
        _calm(axes)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter("{x:,.0f}")
        _marks(axes, figures)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    return _png(figure)


def plot_worker(figures: Outcome) -> bytes:
    """CPU and resident memory of the worker."""
    series = figures["series"]
    figure = Figure(figsize=(_WIDE, 4.4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    above.plot(series["sampled_at_s"][1:], series["cpu_cores"], color=ACCENT, linewidth=1.4)
    above.set(ylabel="CPU, cores")
    below.plot(series["sampled_at_s"], [value / 2**20 for value in series["rss_bytes"]], color=INK, linewidth=1.4)
    below.set(xlabel="second of the run", ylabel="RSS, MiB")
    for axes in (above, below):
        _calm(axes)
        axes.set_ylim(bottom=0)
        _marks(axes, figures)
    return _png(figure)


def plot_stages(figures: Outcome) -> bytes:
    """Wall time per event in each stage of the worker."""
    stages = figures["stages_us_per_event"]
    figure, axes = _axes(0.8 + 0.32 * len(stages))
    names = list(stages)[::-1]
    bars = axes.barh(names, [stages[name] for name in names], color=INK, height=0.6)
    axes.bar_label(bars, fmt="%.1f", padding=4, fontsize=9)
    axes.grid(visible=False)
    axes.set(xlabel="us per event")
    return _png(figure)


def plot_capacity(figures: Outcome) -> bytes:
    """p50 and p99 over the rate, the bound, the highest rate held and the knee."""
    figure, axes = _axes(4.2)
    steps = sorted((step for step in figures["steps"] if step["p99_ms"] is not None), key=lambda step: step["rate"])
    rates = [step["rate"] for step in steps]
    axes.plot(rates, [step["p50_ms"] for step in steps], color=INK, marker="s", markersize=4, label="p50")
    axes.plot(rates, [step["p99_ms"] for step in steps], color=ACCENT, marker="o", markersize=4, label="p99")
    axes.axhline(figures["p99_bound_ms"], color=SOFT, linewidth=1, linestyle=":", label="bound of p99")
    for key, label, colour in (("capacity_per_second", "highest rate held", THIRD), ("knee_per_second", "knee", SOFT)):
        if figures[key]:
            axes.axvline(figures[key], color=colour, linewidth=1.2, linestyle=(0, (4, 2)), label=label)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.8)))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set(xlabel="events/s", ylabel="latency, ms")
    figure.legend(loc="outside lower center", ncols=5, frameon=False)
    return _png(figure)


def _marks(axes: Any, figures: Outcome) -> None:
    """What happened when, and the part that is not counted; what came before the first event is not shown."""
    axes.set_xlim(left=0)
    if figures["warm_up_s"]:
        axes.axvspan(0, figures["warm_up_s"], color="#eef0f2", zorder=0)
    for mark in figures["marks"]:
        axes.axvline(mark["at_s"], color="#a3211a", linewidth=1, linestyle=":")
        axes.annotate(mark["text"].replace("$", r"\$"), (mark["at_s"], 1), xycoords=("data", "axes fraction"),
                      xytext=(3, -10), textcoords="offset points", fontsize=8, color="#a3211a")  # fmt: skip


def _axes(height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(_WIDE, height), layout="constrained")
    axes = figure.add_subplot()
    _calm(axes)
    return figure, axes


def _calm(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e5e8eb", linewidth=0.8)
    axes.set_axisbelow(True)


def _png(figure: Figure) -> bytes:
    out = BytesIO()
    figure.savefig(out, format="png", dpi=_DPI)
    return out.getvalue()
