"""How long nobody decides: after kill -9 of the active worker, and while it hands over on SIGTERM.

decisions  | | | | |                      | | | |
                 ^ kill                   ^ the first of the successor: failover_s, the session included
                   |<-- longest gap -->|            at a hand-over: handover_gap_s
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from loadtest.chaos.checker import check
from loadtest.chaos.report import percentile, versions
from loadtest.chaos.rounds import Round
from loadtest.chaos.stage import Setting, Stage, stage

FAILOVER_S_MAX = 10.0
HANDOVER_GAP_S_MAX = 1.0
# Decisions come steadily for so long before each measurement, and until it ends.
STEADY_S = 3.0
# What a round of each kind takes, about, and what is sent besides.
FAILOVER_ROUND_S, HANDOVER_ROUND_S, SPARE_S = 20.0, 16.0, 10.0


@dataclass(frozen=True, slots=True)
class Options:
    """`rounds` of each kind."""

    rate: float
    rounds: int
    seed: int
    partitions: int
    bootstrap: str | None


def run_failover(options: Options, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Measures, and checks that nothing was lost; LoadTestError where it could not be brought to its end."""
    seconds = SPARE_S + options.rounds * (FAILOVER_ROUND_S + HANDOVER_ROUND_S)
    setting = Setting(
        events=round(options.rate * seconds),
        rate=options.rate,
        seed=options.seed,
        partitions=options.partitions,
        delivery="exactly_once",
        bootstrap=options.bootstrap,
        nodes=1,
        engine={},
    )
    say(f"{setting.events:,} events at {options.rate:,.0f}/s, {options.rounds} rounds of each kind, in {folder}")
    with stage(setting, folder) as on_stage:
        on_stage.feed.start()
        gaps_s = []
        for number in range(options.rounds):
            gaps_s.append(_hand_over(on_stage))
            say(f"{number + 1}/{options.rounds} hand-over: {gaps_s[-1]:.3f} s without a decision")
        director = on_stage.director()
        director.run([Round("kill", True, STEADY_S, False, 0)] * options.rounds, say)
        lag = on_stage.probe.uncommitted(on_stage.probe.ends(on_stage.application.input))
        on_stage.finish()
        verdict = check(on_stage.application, on_stage.offline).verdict
        recovery_s = [blow.recovery_s for blow in director.blows]
    figures = {
        "rate": options.rate,
        "events": setting.events,
        "rounds": options.rounds,
        "handover_gap_s": max(gaps_s),
        "handover_gap_p50_s": percentile(gaps_s, 50),
        "handover_gap_s_max": HANDOVER_GAP_S_MAX,
        "failover_s": max(recovery_s),
        "failover_p50_s": percentile(recovery_s, 50),
        "failover_s_max": FAILOVER_S_MAX,
        "uncommitted_at_the_end": lag,
        "lost": verdict.lost,
        "duplicated": verdict.duplicated,
        "reordered": verdict.reordered,
        "mismatched": verdict.mismatched,
        "versions": versions(folder / "kafka" / "lib"),
    }
    return {**figures, "failures": _failures(figures)}


def _hand_over(on_stage: Stage) -> float:
    """SIGTERM to the active worker; the longest time without a decision until all is steady again."""
    crew, arrivals = on_stage.crew, on_stage.arrivals
    crew.until(crew.complete, "an active worker and its standby")
    _steady(on_stage)
    active = crew.until(crew.active, "an active worker")
    began_at = time.monotonic()
    active.stop()
    crew.until(crew.active, "the standby to become active")
    _steady(on_stage)
    gap_s = arrivals.longest_gap_s(began_at, time.monotonic())
    active.start()
    return gap_s


def _steady(on_stage: Stage) -> None:
    not_before = time.monotonic() + STEADY_S
    on_stage.crew.until(lambda: True if time.monotonic() >= not_before else None, "steady decisions")
    on_stage.feed.check()
    on_stage.arrivals.check()


def _failures(figures: dict[str, Any]) -> list[str]:
    faults = [f"{name}: {figures[name]}" for name in ("lost", "duplicated", "reordered", "mismatched") if figures[name]]
    return faults + [
        f"{name}: {figures[name]:.2f} s, more than {figures[f'{name}_max']:g}"
        for name in ("handover_gap_s", "failover_s")
        if figures[name] > figures[f"{name}_max"]
    ]


def failover_table(figures: dict[str, Any]) -> Table:
    """The figures for a person."""
    table = Table(title="failover", show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    for name, value in figures.items():
        if name not in ("versions", "failures"):
            table.add_row(name.replace("_", " "), f"{value:,.3f}" if isinstance(value, float) else f"{value:,}")
    return table
