"""The demo as a person sees it: a frame drawn over a few times a second, or a line now and then without a terminal."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from loadtest.figures import AlertLine, AttackCount, Figures
from loadtest.report import Report

LINE_INTERVAL_S = 5.0
# Lines of the frame that are no alerts.
FRAME_LINES = 21
ALERTS_MIN = 3
SPARKS = " ▁▂▃▄▅▆▇█"
SPARK_SECONDS = 28
BAR_WIDTH = 24
KEY_WIDTH = 8
COLOURS = {"approve": "green", "challenge": "yellow", "review": "orange3", "decline": "red"}


@contextmanager
def screen(console: Console) -> Iterator[Callable[[Figures], None]]:
    """What shows figures as they come, for as long as the block lasts."""
    if not console.is_terminal:
        yield _Lines(console).show
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield lambda figures: live.update(frame(figures, console.height), refresh=True)


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
    """One line of figures.

    The latencies are of the whole run so far.
    """
    found = sum(count.detected for count in figures.attacks)
    begun = sum(count.started for count in figures.attacks)
    latency = figures.latency
    return (
        f"{figures.elapsed_s:4.0f} s  {figures.sent:,} sent  {figures.decided:,} decided  lag {figures.lag:,}  "
        f"p50 {latency.p50_ms:.1f} ms  p99 {latency.p99_ms:.1f} ms  p99.9 {latency.p999_ms:.1f} ms  "
        f"{figures.alerts:,} alerts  {found} of {begun} attacks found"
    )


def frame(figures: Figures, height: int) -> RenderableType:
    """Everything on one screen of that many lines."""
    panels = Table.grid(expand=True)
    for _ in range(3):
        panels.add_column(ratio=1)
    panels.add_row(_stream(figures), _latency(figures), _decisions(figures))
    alerts = max(ALERTS_MIN, height - FRAME_LINES)
    return Group(_header(figures), panels, _attacks(figures.attacks), _alerts(figures.last_alerts[:alerts], alerts))


def summary(report: Report) -> RenderableType:
    """The run in one table, with what must not have happened below it."""
    sent, received, latency = report.sent, report.received, report.latency
    table = _pairs()
    table.add_row(
        "events",
        f"{sent.events:,}",
        f"{report.events_per_second:,.0f}/s settled of {report.rate:,.0f}/s intended"
        + (f"; the generator fell behind, by up to {sent.delay_ms_max:,.0f} ms" if sent.behind else ""),
    )
    kinds = "  ".join(f"{kind} {report.kinds.get(kind, 0):,}" for kind in COLOURS)
    table.add_row("decisions", f"{received.decisions:,}", kinds)
    table.add_row("dead letters", f"{received.dead_letters:,}", f"of {sent.poison:,} records sent broken")
    table.add_row("duplicates", f"{received.duplicates:,}", f"of {sent.duplicates:,} events sent twice")
    table.add_row("latency p50", f"{latency.p50_ms:,.1f} ms", "from intended send to arrival of the decision")
    table.add_row("p99", f"{latency.p99_ms:,.1f} ms", f"p99.9 {latency.p999_ms:,.1f} ms  max {latency.max_ms:,.1f} ms")
    precision = "" if report.alert_precision is None else f"{report.alert_precision:.1%} of them about an attack"
    table.add_row("alerts", f"{received.alerts:,}", precision)
    for count in report.attacks:
        table.add_row(
            count.kind.replace("_", " "), f"{count.detected:,}", f"of {count.started:,} attacks{_after(count)}"
        )
    return Group(_panel(table, f"{report.target}, {report.seconds:.0f} s"), _verdict(report))


def _verdict(report: Report) -> RenderableType:
    violations = report.violations()
    if violations:
        return Group(*(Text(f"  ✗ {violation}", style="bold red") for violation in violations))
    return Text("  ✓ decisions + dead letters + duplicates = events, and no event was decided twice", style="green")


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
    return _panel(Group(pairs, _sparkline(figures.p99_ms, "magenta")), "latency, send to decision")


def _decisions(figures: Figures) -> RenderableType:
    pairs = _pairs()
    for kind, colour in COLOURS.items():
        pairs.add_row(Text(kind, style=colour), f"{figures.kinds.get(kind, 0):,}", "")
    rest = f"{figures.dead_letters:,} dead letters, {figures.duplicates:,} sent twice"
    return _panel(Group(pairs, Text(rest, style="dim", no_wrap=True)), "decisions")


def _attacks(counts: Sequence[AttackCount]) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_column(width=20)
    table.add_column(width=BAR_WIDTH)
    table.add_column(justify="right")
    table.add_column(style="dim")
    for count in counts:
        bar = ProgressBar(
            total=max(1, count.started), completed=count.detected, width=BAR_WIDTH, complete_style="green"
        )
        found = f"{count.detected} of {count.started}"
        table.add_row(count.kind.replace("_", " "), bar, found, _after(count).removeprefix(", "))
    return _panel(table, "attacks found")


def _after(count: AttackCount) -> str:
    """How soon the attacks of a kind were noticed."""
    if count.seconds_to_alert is None:
        return ""
    seconds = count.seconds_to_alert
    return ", first alert after " + (f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1e3:.0f} ms") + " (median)"


def _alerts(alerts: Sequence[AlertLine], lines: int) -> RenderableType:
    table = Table(box=None, expand=True, padding=(0, 1), header_style="dim", pad_edge=False)
    table.add_column("time", no_wrap=True)
    table.add_column("decision", no_wrap=True)
    table.add_column("risk", justify="right", no_wrap=True)
    table.add_column("card", no_wrap=True)
    table.add_column("amount", justify="right", no_wrap=True)
    table.add_column("strongest reason, and how rare that is", ratio=1, no_wrap=True, overflow="ellipsis")
    table.add_column("in truth", no_wrap=True)
    for alert in alerts:
        truth = Text(alert.attack.replace("_", " "), style="green") if alert.attack else Text("no attack", style="dim")
        table.add_row(
            time.strftime("%H:%M:%S", time.localtime(alert.arrived_s)),
            Text(alert.decision, style=COLOURS.get(alert.decision, "")),
            str(alert.risk_score),
            alert.key[-KEY_WIDTH:],
            alert.amount,
            alert.reason.removesuffix(" of the reference"),
            truth,
        )
    for _ in range(lines - len(alerts)):
        table.add_row()
    return _panel(table, "last alerts")


def _sparkline(values: Sequence[float], colour: str) -> Text:
    """The last seconds as bars, the highest one full."""
    shown = values[-SPARK_SECONDS:]
    top = max(shown, default=0.0) or 1.0
    return Text("".join(SPARKS[round(value / top * (len(SPARKS) - 1))] for value in shown), style=colour)


def _pairs() -> Table:
    """Names, numbers flush right, and a word about them."""
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(justify="right", min_width=9)
    table.add_column(style="dim")
    return table


def _panel(content: RenderableType, title: str) -> Panel:
    return Panel(content, title=title, title_align="left", box=box.ROUNDED, border_style="dim", padding=(0, 1))
