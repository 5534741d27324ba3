"""The outcome of a run: figures, what must not be among them, and how both are shown."""

import importlib.metadata
import math
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import confluent_kafka
from rich.table import Table

from loadtest.chaos.checker import Findings

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Struck:
    """What was done to the workers. `kills_idle`: kills that hit no uncommitted work, which prove nothing."""

    kills: int
    kills_mid_transaction: int
    kills_idle: int
    zombie_rounds: int
    zombie_exits: int
    zombie_step_backs: int
    zombies_mid_transaction: int
    broker_kills: int
    fenced: int
    recovery_s: Sequence[float]
    zombie_recovery_s: Sequence[float]
    broker_recovery_s: Sequence[float]


@dataclass(frozen=True, slots=True)
class Report:
    """A whole run; `events` were sent."""

    events: int
    rate: float
    delivery: str
    seed: int
    seconds: float
    check_seconds: float
    struck: Struck
    findings: Findings
    versions: dict[str, str]

    def failures(self) -> list[str]:
        """What must not happen and did, a line each."""
        verdict, struck, once = self.findings.verdict, self.struck, self.delivery == "exactly_once"
        counts: list[tuple[str, int | None]] = [("lost", verdict.lost), ("unknown", verdict.unknown)]
        if once:
            counts += [("duplicated", verdict.duplicated), ("reordered", verdict.reordered)]
            counts += [("mismatched", verdict.mismatched), ("misalerted", verdict.misalerted)]
        failures = [
            f"{name}: {'not compared' if count is None else f'{count:,}'}"
            + "".join(f"; {example}" for example in verdict.examples.get(name, []))
            for name, count in counts
            if count != 0
        ]
        failures += [f"progress: {fault}" for fault in self.findings.journal_faults]
        failures += [f"mismatched: {line}" for line in self.findings.differences]
        if verdict.events != self.events:
            failures.append(f"{self.events:,} events were sent, but {verdict.events:,} are in the input")
        if struck.kills_idle:
            failures.append(f"{struck.kills_idle} of {struck.kills} kills hit no uncommitted work")
        if once and struck.kills_mid_transaction * 2 < struck.kills:
            failures.append(f"only {struck.kills_mid_transaction} of {struck.kills} kills were inside a transaction")
        return failures

    def as_json(self) -> dict[str, Any]:
        """The figures as `--json` writes them."""
        verdict, struck = self.findings.verdict, self.struck
        return {
            "events": self.events,
            "lost": verdict.lost,
            "duplicated": verdict.duplicated,
            "reordered": verdict.reordered,
            "mismatched": verdict.mismatched,
            "misalerted": verdict.misalerted,
            "unknown": verdict.unknown,
            "decisions": verdict.decisions,
            "dead_letters": verdict.dead_letters,
            "duplicates": verdict.duplicates,
            "kills": struck.kills,
            "kills_mid_transaction": struck.kills_mid_transaction,
            "zombie_rounds": struck.zombie_rounds,
            "zombie_exits": struck.zombie_exits,
            "zombie_step_backs": struck.zombie_step_backs,
            "zombies_mid_transaction": struck.zombies_mid_transaction,
            "broker_kills": struck.broker_kills,
            "fenced": struck.fenced,
            "recovery_p50_s": percentile(struck.recovery_s, 50),
            "recovery_p99_s": percentile(struck.recovery_s, 99),
            "recovery_max_s": percentile(struck.recovery_s, 100),
            "zombie_recovery_max_s": percentile(struck.zombie_recovery_s, 100),
            "broker_recovery_max_s": percentile(struck.broker_recovery_s, 100),
            "rate": self.rate,
            "delivery": self.delivery,
            "seconds": self.seconds,
            "check_seconds": self.check_seconds,
            "seed": self.seed,
            "versions": self.versions,
            "failures": self.failures(),
        }


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The smallest value that so many percent of all are not above; None of none.

    >>> percentile([3.0, 1.0, 2.0], 50), percentile([3.0, 1.0, 2.0], 99)
    (2.0, 3.0)
    """
    if not values:
        return None
    return round(sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)], 3)


def summary(figures: dict[str, Any]) -> Table:
    """The figures as a table for a person."""
    table = Table(title="chaos", show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    for name, value in figures.items():
        if name not in ("versions", "failures"):
            table.add_row(name.replace("_", " "), _shown(value))
    return table


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,.2f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def versions(kafka_lib: Path | None) -> dict[str, str]:
    """Of everything that takes part; `kafka_lib` is where the jars of a broker of our own are."""
    found = {
        "tidegate": importlib.metadata.version("tidegate"),
        "commit": _commit(),
        "python": platform.python_version(),
        "confluent-kafka": importlib.metadata.version("confluent-kafka"),
        "librdkafka": confluent_kafka.libversion()[0],
    }
    for jar in kafka_lib.glob("kafka-server-[0-9]*.jar") if kafka_lib is not None else ():
        found["kafka"] = jar.stem.removeprefix("kafka-server-")
    return found


def _commit() -> str:
    """Of the checkout, marked where it is not what was committed; unknown outside of one."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
