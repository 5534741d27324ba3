"""What a person sees in a terminal while files are worked through."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from engine.audit import AuditSummary, Span, export
from engine.backfill import BackfillSummary, backfill, newest_event_ms
from engine.backtest.columns import Decided
from engine.backtest.run import BacktestSummary, Contender, decide_twice
from engine.config import Config
from engine.history import LoadSummary, load_history
from engine.kafka.decisions import DecisionTopic
from engine.labels import Labels, read_labels
from engine.policy.settings import Policy
from engine.policy_diff import PolicyDiff, compare
from engine.replay import BATCH_EVENTS, ReplayFiles, ReplaySummary, replay
from engine.sources import Coordinates, as_one_partition, read_records
from engine.sources import Progress as BytesRead
from engine.state.verify import Verdict
from engine.upkeep import verifications

# Later than any label: what is judged lies in the past, and all that is known of it counts.
ALWAYS_MS = 2**63 - 1


@contextmanager
def progress_bar(description: str, done: BytesRead, unit: str = "events") -> Iterator[Callable[[int], None]]:
    """A bar on standard error; whoever works calls the function with the number of events so far."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn(f"{{task.fields[rate]:,.0f}} {unit}/s"),
        TimeRemainingColumn(),
    )
    started = time.perf_counter()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(description, total=done.bytes_total, rate=0.0)

        def advance(events: int) -> None:
            bar.update(task, completed=done.bytes_read, rate=events / (time.perf_counter() - started))

        yield advance


def replay_with_progress(
    paths: list[Path],
    config: Config,
    outputs: ReplayFiles,
    *,
    coordinates: Coordinates,
    topic: str | None,
    with_features: bool,
) -> tuple[ReplaySummary, float]:
    """Replays with a progress bar; returns the summary and the seconds it took.

    `topic`: what the records' topic is called in decisions; None: each file's name.
    """
    done, started = BytesRead.of(paths), time.perf_counter()
    with progress_bar("scoring", done) as advance:
        records = read_records(paths, BATCH_EVENTS, done, coordinates, topic)
        summary = replay(
            records, config, outputs, with_features=with_features, advance=lambda summary: advance(summary.events)
        )
    return summary, time.perf_counter() - started


def compare_with_progress(
    paths: list[Path], config: Config, candidate: Policy, coordinates: Coordinates, examples_max: int
) -> tuple[PolicyDiff, float]:
    """Decides by two policies with a progress bar; returns what differs and the seconds it took."""
    done, started = BytesRead.of(paths), time.perf_counter()
    with progress_bar("deciding twice", done) as advance:
        records = read_records(paths, BATCH_EVENTS, done, coordinates)
        diff = compare(records, config, candidate, examples_max=examples_max, advance=lambda diff: advance(diff.events))
    return diff, time.perf_counter() - started


def backfill_with_progress(
    paths: list[Path],
    config: Config,
    out: Path,
    *,
    labels_file: Path | None,
    as_of_ms: int | None,
    keys: bool,
    coordinates: Coordinates,
    dead_letters: Path | None,
) -> tuple[BackfillSummary, Labels | None, float]:
    """Writes a training set: the summary, the labels that were joined, and the seconds it took.

    The files are one stream, unless the coordinates say which partition a row was in. Labels count as of the newest
    event where no time is given; to find that one the files are read once more.
    """
    done, labels, started = BytesRead.of(paths), None, time.perf_counter()
    if labels_file is not None:
        labels_done = BytesRead.of([labels_file])
        if as_of_ms is None:
            looked_at = BytesRead.of(paths)
            with progress_bar("finding the newest event", looked_at) as advance:
                records = read_records(paths, BATCH_EVENTS, looked_at, coordinates)
                as_of_ms = newest_event_ms(records, config, advance)
        with progress_bar("reading labels", labels_done, "labels") as advance:
            labels = read_labels(labels_file, as_of_ms, labels_done, advance)
    with progress_bar("computing", done) as advance:
        records = read_records(paths, BATCH_EVENTS, done, coordinates)
        summary = backfill(
            records if coordinates.partition else as_one_partition(records),
            config,
            out,
            labels=labels,
            keys=keys,
            dead_letters=dead_letters,
            advance=lambda summary: advance(summary.events),
        )
    return summary, labels, time.perf_counter() - started


def backtest_with_progress(
    paths: list[Path],
    config: Config,
    sides: tuple[Contender, Contender],
    labels_file: Path,
    coordinates: Coordinates,
    from_ms: int,
) -> tuple[Decided, BacktestSummary, Labels]:
    """Decides every event from `from_ms` on by both sides: how, what became of the records, and the labels.

    The files are one stream, unless the coordinates say which partition a row was in.
    """
    done, labels_done = BytesRead.of(paths), BytesRead.of([labels_file])
    with progress_bar("reading labels", labels_done, "labels") as advance:
        labels = read_labels(labels_file, ALWAYS_MS, labels_done, advance)
    with progress_bar("deciding twice", done) as advance:
        records = read_records(paths, BATCH_EVENTS, done, coordinates)
        decided, summary = decide_twice(
            records if coordinates.partition else as_one_partition(records),
            config,
            sides,
            labels,
            from_ms,
            advance=lambda summary: advance(summary.records),
        )
    return decided, summary, labels


def load_with_progress(
    paths: list[Path], config: Config, coordinates: Coordinates, dead_letters: Path | None
) -> tuple[LoadSummary, float]:
    """Builds state with a progress bar; returns the summary and the seconds it took."""
    done, started = BytesRead.of(paths), time.perf_counter()
    with progress_bar("loading", done) as advance:
        records = read_records(paths, BATCH_EVENTS, done, coordinates)
        summary = load_history(
            records, config, dead_letters=dead_letters, advance=lambda summary: advance(summary.events)
        )
    return summary, time.perf_counter() - started


def export_with_progress(config: Config, out: Path, span: Span) -> tuple[AuditSummary, float]:
    """Writes decisions with a progress bar; returns the summary and the seconds it took. Raises as `export`."""
    started = time.perf_counter()
    with DecisionTopic(config, span.from_ms) as topic:
        done = BytesRead(topic.offsets)
        with progress_bar("exporting", done, "decisions") as advance:

            def advanced(summary: AuditSummary) -> None:
                done.bytes_read = topic.offsets_read()
                advance(summary.records)

            summary = export(config, topic, out, span, advanced)
    return summary, time.perf_counter() - started


def verify_with_progress(config: Config, *, with_checkpoints: bool) -> dict[str, Verdict]:
    """Verifies the state, and every checkpoint if asked to; the verdicts by name. Raises as `verifications`."""
    verdicts = {}
    for name, database, verify in verifications(config, with_checkpoints=with_checkpoints):
        done = BytesRead(sum(file.stat().st_size for file in database.glob("*.sst")))
        with progress_bar(f"verifying {name}", done, "rows") as advance:
            verdicts[name] = verify(_advancing(done, advance))
    return verdicts


def _advancing(done: BytesRead, advance: Callable[[int], None]) -> Callable[[Verdict], None]:
    def advanced(verdict: Verdict) -> None:
        done.bytes_read = verdict.bytes
        advance(verdict.rows)

    return advanced
