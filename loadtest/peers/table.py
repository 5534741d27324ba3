"""What was measured, as medians over runs: rows for programs, a table for people."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from rich.table import Table

from loadtest.peers.measure import Figures
from loadtest.peers.peer import Peer

OURS = "tidegate"
_MEDIANS = ("events_per_second", "cpu_us_per_event", "differing_share", "unsaid_share", "wrongly_scored_share")


def row(peer: Peer, runs: Sequence[Figures], paced: Mapping[str, Any]) -> dict[str, Any]:
    """One peer's medians, the runs they are of, and what it was like at a pace."""
    values = [asdict(run) for run in runs]
    medians = {key: median(value[key] for value in values) for key in _MEDIANS}
    return {"peer": peer.name, "window": peer.window, "exact": peer.exact, **medians, **paced, "runs": values}


def with_ratios(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same rows with what Tidegate does for each: medians of ratios within one run, None where it did not run."""
    ours = next((row for row in rows if row["peer"] == OURS and "runs" in row), None)
    for each in (row for row in rows if "runs" in row):
        pairs = [] if ours is None else list(zip(ours["runs"], each["runs"], strict=False))
        rates = [mine["events_per_second"] / theirs["events_per_second"] for mine, theirs in pairs]
        costs = [theirs["cpu_us_per_event"] / mine["cpu_us_per_event"] for mine, theirs in pairs]
        each["tidegate_events_ratio"] = median(rates) if rates else None
        each["tidegate_cpu_ratio"] = median(costs) if costs else None
    return rows


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def table(rows: Sequence[Mapping[str, Any]], title: str) -> Table:
    """Fast and slow side by side; ratios are how many times as much Tidegate does in a second, or for a CPU second."""
    shown = Table(title=title, title_justify="left")
    shown.add_column("peer")
    shown.add_column("window")
    headings = ("events/s", "CPU us/event", "tidegate: events/s", "per CPU s", "other values", "unsaid")
    for heading in (*headings, "p99 ms at half its rate", "p99 ms at the common rate"):
        shown.add_column(heading, justify="right")
    for each in rows:
        if "runs" not in each:
            shown.add_row(each["peer"], each["window"], f"failed: {each['failed']}")
            continue
        shown.add_row(
            each["peer"],
            each["window"],
            _number(each["events_per_second"], ",.0f"),
            _number(each["cpu_us_per_event"], ",.1f"),
            _number(each["tidegate_events_ratio"], ",.1f"),
            _number(each["tidegate_cpu_ratio"], ",.1f"),
            _number(each["differing_share"], ".2%"),
            _number(each["unsaid_share"], ".2%"),
            _paced(each, "own"),
            _paced(each, "common"),
        )
        if "failed" in each:
            shown.add_row("", "", f"then failed: {each['failed']}")
    return shown


def _paced(each: Mapping[str, Any], which: str) -> str:
    rate = each.get(f"{which}_rate")
    if rate is None:
        return "-"
    p99 = each.get(f"{which}_p99_ms")
    return f"{'not held' if p99 is None else format(p99, ',.0f')} at {rate:,.0f}/s"
