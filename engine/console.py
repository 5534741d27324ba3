"""What a person sees in a terminal while files are worked through."""

import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from engine.config import Config
from engine.replay import BATCH_EVENTS, ReplayFiles, ReplaySummary, replay
from engine.sources import Progress as BytesRead
from engine.sources import read_records


def replay_with_progress(
    paths: list[Path], config: Config, outputs: ReplayFiles, *, with_features: bool
) -> tuple[ReplaySummary, float]:
    """Replays with a progress bar on standard error; returns the summary and the seconds it took."""
    done = BytesRead.of(paths)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]:,.0f} events/s"),
        TimeRemainingColumn(),
    )
    started = time.perf_counter()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("scoring", total=done.bytes_total, rate=0.0)

        def advance(summary: ReplaySummary) -> None:
            rate = summary.events / (time.perf_counter() - started)
            bar.update(task, completed=done.bytes_read, rate=rate)

        records = read_records(paths, BATCH_EVENTS, done)
        summary = replay(records, config, outputs, with_features=with_features, advance=advance)
    return summary, time.perf_counter() - started
