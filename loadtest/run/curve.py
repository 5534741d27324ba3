"""The latency-throughput curve as files. Needs the `train` extra."""

from io import BytesIO
from pathlib import Path
from textwrap import fill

import msgspec
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from loadtest.run.capacity import Capacity

TITLE_COLUMNS = 90


def write_curve(found: Capacity, folder: Path) -> None:
    """capacity.json and capacity.png."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "capacity.json").write_bytes(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
    (folder / "capacity.png").write_bytes(_drawn(found))


def _drawn(found: Capacity) -> bytes:
    figure = Figure(figsize=(9.6, 4.0), layout="constrained")
    axes = figure.add_subplot()
    rates = np.array([step.rate for step in found.steps])
    for name, color in (("p99", "#d9650b"), ("p50", "#3b4754")):
        values_ms = np.array([getattr(step, f"{name}_ms") for step in found.steps], np.float64)
        axes.plot(rates, values_ms, color=color, marker="o", markersize=4, label=name)
    axes.axhline(found.bound.p99_ms, color="#9aa4ae", linewidth=1, linestyle=":", label="bound")
    if found.knee_events_per_second is not None:
        axes.axvline(found.knee_events_per_second, color="#c3cad1", linewidth=1, label="knee")
    axes.set(xlabel="events a second", ylabel="ms", yscale="log", title=fill(found.sentence, TITLE_COLUMNS))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.yaxis.set_minor_formatter(FuncFormatter(_short))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e5e8eb", linewidth=0.8)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    out = BytesIO()
    figure.savefig(out, format="png", dpi=110)
    return out.getvalue()


def _short(value: float, _: int) -> str:
    """Twos and fives of each decade: the other lines between two powers of ten would lie too close for words."""
    return f"{value:,g}" if f"{value:e}"[0] in "25" else ""
