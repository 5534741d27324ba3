"""Pictures of a backtest, as PNG. Needs the `train` extra."""

from datetime import datetime, timedelta
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from engine.backtest.columns import Decided
from engine.backtest.curves import THRESHOLDS, Curve, curve_of
from engine.backtest.result import Backtest

# Told apart by people who do not see colours, too: one is much darker, and drawn broken.
_STYLES: tuple[dict[str, Any], ...] = (
    {"color": "#3b4754", "linestyle": (0, (4, 2)), "linewidth": 1.6},
    {"color": "#d9650b", "linestyle": "-", "linewidth": 1.6},
)
_MARKERS = ("s", "o")
_WIDE, _DPI = 9.6, 110


def plot_days(result: Backtest) -> bytes:
    """Alerts of both sides and frauds, day by day."""
    figure, axes = _axes(3.6)
    days = [datetime.fromisoformat(day.day) for day in result.days]
    axes.bar(days, [day.frauds for day in result.days], width=0.8, color="#e5e8eb", label="frauds")
    # A point for each day while points can be told apart.
    marker = "o" if len(days) <= 62 else ""
    for number, alerts in enumerate(
        ([day.running_alerts for day in result.days], [day.candidate_alerts for day in result.days])
    ):
        axes.plot(days, alerts, **_STYLES[number], label=_titles(result)[number], marker=marker, markersize=3)
    locator = AutoDateLocator(minticks=3)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.set(ylabel="events a day")
    axes.set_ylim(bottom=0)
    if days:
        axes.set_xlim(days[0] - timedelta(hours=18), days[-1] + timedelta(hours=18))
    return _png(figure, axes)


def plot_thresholds(result: Backtest, decided: Decided) -> bytes:
    """Precision and recall of both risk scores over the challenge threshold, and what was decided as points."""
    figure = Figure(figsize=(_WIDE, 4.0), layout="constrained")
    both = figure.subplots(1, 2, sharey=True)
    for axes, name in zip(both, ("precision", "recall"), strict=True):
        for number, side in enumerate((result.running, result.candidate)):
            axes.plot(THRESHOLDS, getattr(curve_of(decided, number), name), **_STYLES[number])
            _point(axes, result, number, side.thresholds[0], getattr(side, name))
        axes.set(xlabel="challenge threshold (risk score)", ylabel=name, xlim=(0, 1_010), ylim=(0, 1.03))
        axes.yaxis.set_tick_params(labelleft=True)
        _calm(axes)
    figure.legend(*both[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return _rendered(figure)


def plot_money(result: Backtest, decided: Decided) -> bytes:
    """Money caught over false positives: what either risk score could trade, and what was decided as points."""
    figure, axes = _axes(4.4)
    sides = (result.running, result.candidate)
    for number, side in enumerate(sides):
        curve = curve_of(decided, number)
        axes.plot(*_money_line(curve, result), **_STYLES[number], drawstyle="steps-post")
        _point(axes, result, number, side.false_positives, side.money_caught)
    most = max(side.false_positives for side in sides)
    axes.axhline(result.fraud_money, color="#9aa4ae", linewidth=1, linestyle=":", label="all fraud")
    # Thresholds far below either policy alert nearly everything, and would press the rest against the axis.
    axes.set(xlabel="false positives", ylabel=f"fraud caught, {result.terms.currency}", xlim=(0, max(10, 3 * most)))
    axes.set_ylim(*_money_range(result))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:,.0f}")
    return _png(figure, axes)


def _money_line(curve: Curve, result: Backtest) -> tuple[np.ndarray, np.ndarray]:
    """From no alert at all to the lowest threshold."""
    money = curve.money_caught[::-1] / result.terms.minor_per_major
    return np.append(0.0, curve.false_alerts[::-1]), np.append(0.0, money)


def _money_range(result: Backtest) -> tuple[float, float]:
    """All of the fraud's money, and as far below it as shows the worse side in the middle; from 0 where that is low."""
    most, worse = result.fraud_money, min(result.running.money_caught, result.candidate.money_caught)
    least = max(0.0, 2 * worse - most) if worse < most else 0.0
    return least, most + 0.08 * (most - least) or 1.0


def _titles(result: Backtest) -> tuple[str, str]:
    return tuple(  # type: ignore[return-value]
        f"{name}: {_literal(f'{side.policy}, {side.model}')}"
        for name, side in (("running", result.running), ("candidate", result.candidate))
    )


def _point(axes: Any, result: Backtest, number: int, x: float, y: float | None) -> None:
    """What one side did; its legend is that of its line, too."""
    style = {"color": _STYLES[number]["color"], "linestyle": _STYLES[number]["linestyle"]}
    at = ([], []) if y is None else ([x], [y])
    axes.plot(
        *at, **style, marker=_MARKERS[number], markersize=8, markeredgecolor="white", zorder=3,
        label=_titles(result)[number],
    )  # fmt: skip


def _literal(text: str) -> str:
    """Matplotlib takes what stands between two dollars for mathematics."""
    return text.replace("$", r"\$")


def _axes(height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(_WIDE, height), layout="constrained")
    return figure, figure.add_subplot()


def _calm(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e5e8eb", linewidth=0.8)
    axes.set_axisbelow(True)


def _png(figure: Figure, axes: Any) -> bytes:
    _calm(axes)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return _rendered(figure)


def _rendered(figure: Figure) -> bytes:
    out = BytesIO()
    figure.savefig(out, format="png", dpi=_DPI)
    return out.getvalue()


def plots(result: Backtest, decided: Decided) -> dict[str, bytes]:
    """All pictures by the name of their file."""
    return {
        "alerts-per-day.png": plot_days(result),
        "thresholds.png": plot_thresholds(result, decided),
        "money.png": plot_money(result, decided),
    }
