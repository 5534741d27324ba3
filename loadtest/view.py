"""The demo as a person sees it: a frame drawn over a few times a second, or a line now and then without a terminal."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich import box
from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from loadtest.figures import AlertLine, AttackCount, Figures
from loadtest.report import Report

LINE_INTERVAL_S = 5.0
# Lines of the frame that are no alerts.
FRAME_LINES = 17
ALERTS_MIN = 3
WIDE_COLUMNS = 100
SPARKS = " ▁▂▃▄▅▆▇█"
SPARK_SECONDS = 28
BAR_WIDTH = 24
KEY_WIDTH = 8
COMPARED_TO = " of the reference"
COLOURS = {"approve": "green", "challenge": "yellow", "review": "orange3", "decline": "red"}


@contextmanager
def screen(console: Console) -> Iterator[Callable[[Figures], None]]:
    """What shows figures as they come, for as long as the block lasts."""
    if not console.is_terminal:
        yield _Lines(console).show
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        console.show_cursor(True)  # nobody would bring it back if we were killed
        yield lambda figures: live.update(frame(figures, console.width, console.height), refresh=True)


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._due_s = LINE_INTERVAL_S

    def show(self, figures: Figures) -> None:
        """Prints a line when the last one is old enough."""
        if figures.elapsed_s >= self._due_s:
            self._due_s += LINE_INTERVAL_S
            self._console.print(line(figures), highlight=False, soft_wrap=True)


def line(figures: Figures) -> str:
    """The figures in one line, latencies over the whole run so far."""
    found = sum(count.detected for count in figures.attacks)
    begun = sum(count.started for count in figures.attacks)
    latency = figures.latency
    return (
        f"{figures.elapsed_s:4.0f} s  {figures.sent:,} sent  {figures.decided:,} decided  lag {figures.lag:,}  "
        f"p50 {latency.p50_ms:.1f} ms  p99 {latency.p99_ms:.1f} ms  p99.9 {latency.p999_ms:.1f} ms  "
        f"{figures.alerts:,} alerts  {found} of {begun} attacks found"
    )


def frame(figures: Figures, width: int, height: int) -> RenderableType:
    """Everything on one screen of that many columns and lines."""
    panels = Table.grid(expand=True)
    for _ in range(3):
        panels.add_column(ratio=1)
    panels.add_row(_stream(figures), _latency(figures), _decisions(figures))
    lines = max(ALERTS_MIN, height - FRAME_LINES)
    alerts = _alerts(figures.last_alerts, lines, wide=width >= WIDE_COLUMNS)
    return Group(_header(figures), panels, _attacks(figures.attacks), alerts)


def summary(report: Report) -> RenderableType:
    """The run in one table, and below it whether every event is accounted for."""
    sent, received, latency = report.sent, report.received, report.latency
    table = _pairs()
    pace = f"{report.events_per_second:,.0f}/s of {report.rate:,.0f}/s intended"
    table.add_row("events", f"{sent.events:,}", pace + (", interrupted" if report.interrupted else ""))
    if sent.behind:
        table.add_row("generator", "behind", f"by up to {sent.delay_ms_max:,.0f} ms")
    kinds = "  ".join(f"{kind} {report.kinds.get(kind, 0):,}" for kind in COLOURS)
    table.add_row("decisions", f"{received.decisions:,}", kinds)
    table.add_row("dead letters", f"{received.dead_letters:,}", f"of {sent.poison:,} records sent broken")
    table.add_row("duplicates", f"{received.duplicates:,}", f"of {sent.duplicates:,} events sent twice")
    table.add_row("latency p50", f"{latency.p50_ms:,.1f} ms", "intended send to arrival of the decision")
    table.add_row("p99", f"{latency.p99_ms:,.1f} ms", f"p99.9 {latency.p999_ms:,.1f} ms  max {latency.max_ms:,.1f} ms")
    precision = "" if report.alert_precision is None else f"{report.alert_precision:.1%} of them about an attack"
    table.add_row("alerts", f"{received.alerts:,}", precision)
    for count in report.attacks:
        after = "" if count.seconds_to_alert is None else f", after {_duration(count.seconds_to_alert)} (median)"
        table.add_row(_words(count.kind), f"{count.detected:,}", f"of {count.started:,} attacks found{after}")
    return Group(_panel(table, f"{report.seconds:.0f} s on {report.target}"), _verdict(report.failures()))


def _verdict(failures: Sequence[str]) -> RenderableType:
    if failures:
        return Group(*(Text(f"  ✗ {failure}", style="bold red") for failure in failures))
    return Text("  ✓ decisions + dead letters + duplicates = events, none decided twice", style="green")


def _header(figures: Figures) -> RenderableType:
    bar = ProgressBar(total=figures.seconds, completed=figures.elapsed_s, complete_style="cyan")
    grid = Table.grid(expand=True, padding=(0, 1))
    grid.add_column()
    grid.add_column(ratio=1)
    grid.add_column(justify="right")
    grid.add_row(
        Text("Tidegate", style="bold cyan"),
        bar,
        f"{figures.elapsed_s:.0f} of {figures.seconds:.0f} s on {figures.target}",
    )
    return grid


def _stream(figures: Figures) -> RenderableType:
    pairs = _pairs()
    pairs.add_row("sent", f"{figures.sent:,}", "")
    pairs.add_row("decided", f"{figures.decided:,}", "")
    pairs.add_row("lag", f"{figures.lag:,}", "")
    pairs.add_row("events/s", f"{figures.per_second[-1] if figures.per_second else 0:,.0f}", "")
    return _panel(Group(pairs, _sparkline(figures.per_second, "cyan")), "events")


def _latency(figures: Figures) -> RenderableType:
    pairs = _pairs()
    latency = figures.latency
    named = (("p50", latency.p50_ms), ("p99", latency.p99_ms), ("p99.9", latency.p999_ms))
    for name, value_ms in named:
        pairs.add_row(name, f"{value_ms:,.1f}", "ms")
    pairs.add_row("p99 now", f"{figures.p99_ms[-1] if figures.p99_ms else 0:,.1f}", "ms")
    return _panel(Group(pairs, _sparkline(figures.p99_ms, "magenta")), "latency")


def _decisions(figures: Figures) -> RenderableType:
    pairs = _pairs()
    for kind, colour in COLOURS.items():
        pairs.add_row(Text(kind, style=colour), f"{figures.kinds.get(kind, 0):,}", "")
    pairs.add_row(Text("dead letters", style="dim"), Text(f"{figures.dead_letters:,}", style="dim"), "")
    return _panel(pairs, "decisions")


def _attacks(counts: Sequence[AttackCount]) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_column(width=18)
    table.add_column(width=BAR_WIDTH)
    table.add_column(justify="right", min_width=9)
    table.add_column(justify="right", min_width=7, style="dim")
    for count in counts:
        total = max(1, count.started)
        bar = ProgressBar(total=total, completed=count.detected, width=BAR_WIDTH, complete_style="green")
        after = "" if count.seconds_to_alert is None else _duration(count.seconds_to_alert)
        table.add_row(_words(count.kind), bar, f"{count.detected} of {count.started}", after)
    return _panel(table, "attacks found, and the median time from first event to first alert")


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1e3:.0f} ms"


def _words(name: str) -> str:
    return name.replace("_", " ")


@dataclass(frozen=True, slots=True)
class _Column:
    """One column of the alerts; `wide_only` where a narrow screen has no room for it."""

    title: str
    cell: Callable[[AlertLine], RenderableType]
    justify: JustifyMethod = "left"
    ratio: int | None = None
    wide_only: bool = False


_ALERT_COLUMNS = (
    _Column("time", lambda alert: time.strftime("%H:%M:%S", time.localtime(alert.arrived_s)), wide_only=True),
    _Column("decision", lambda alert: Text(alert.decision, style=COLOURS.get(alert.decision, ""))),
    _Column("risk", lambda alert: str(alert.risk_score), "right"),
    _Column("card", lambda alert: alert.key[-KEY_WIDTH:]),
    _Column("amount", lambda alert: alert.amount, "right", wide_only=True),
    _Column("strongest reason, and how rare it is", lambda alert: alert.reason.removesuffix(COMPARED_TO), ratio=1),
    _Column("in truth", lambda alert: _truth(alert.attack)),
)


def _alerts(alerts: Sequence[AlertLine], lines: int, *, wide: bool) -> RenderableType:
    columns = [column for column in _ALERT_COLUMNS if wide or not column.wide_only]
    table = Table(box=None, expand=True, padding=(0, 1), header_style="dim", pad_edge=False)
    for column in columns:
        table.add_column(column.title, justify=column.justify, ratio=column.ratio, no_wrap=True, overflow="ellipsis")
    for alert in alerts[:lines]:
        table.add_row(*(column.cell(alert) for column in columns))
    for _ in range(lines - len(alerts)):
        table.add_row()
    return _panel(table, "last alerts")


def _truth(attack: str | None) -> Text:
    return Text("no attack", style="dim") if attack is None else Text(_words(attack), style="green")


def _sparkline(values: Sequence[float], colour: str) -> Text:
    """The last seconds as bars, the highest one full."""
    shown = values[-SPARK_SECONDS:]
    top = max(shown, default=0.0) or 1.0
    return Text("".join(SPARKS[round(value / top * (len(SPARKS) - 1))] for value in shown), style=colour)


def _pairs() -> Table:
    """Names, numbers flush right, and a word about them."""
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", min_width=8)
    table.add_column(style="dim")
    return table


def _panel(content: RenderableType, title: str) -> Panel:
    return Panel(content, title=title, title_align="left", box=box.ROUNDED, border_style="dim", padding=(0, 1))
