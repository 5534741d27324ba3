"""`python -m loadtest`: traffic to test Tidegate with."""

from collections.abc import Iterator
from pathlib import Path

import click

from loadtest.chaos.commands import chaos, failover
from loadtest.columns import Traffic
from loadtest.files import write_jsonl, write_parquet
from loadtest.run.commands import capacity, run
from loadtest.settings import TrafficSettings, spread
from loadtest.speed import speed
from loadtest.traffic import chunks

CHUNK_EVENTS = 50_000
WRITERS = {".jsonl": write_jsonl, ".parquet": write_parquet}
Share = click.FloatRange(0, 1, max_open=True)


@click.group()
def main() -> None:
    """Synthetic payment traffic with known fraud, and what it is good for."""


main.add_command(chaos)
main.add_command(failover)
main.add_command(run)
main.add_command(capacity)
main.add_command(speed)


@main.command()
@click.option("--events", type=click.IntRange(1), default=100_000, show_default=True, help="Records to write.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Another seed, another stream.")
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    default=5_000.0,
    show_default=True,
    help="Events per second of event time.",
)
@click.option(
    "--days",
    type=click.FloatRange(0, min_open=True),
    default=None,
    help="Spread the events over so many days, at the pace of real life, instead of --rate.",
)
@click.option(
    "--start-ms",
    type=int,
    default=TrafficSettings().start_time_ms,
    show_default=True,
    help="Event time of the beginning, in ms since 1970.",
)
@click.option("--late-share", type=Share, default=0.0, show_default=True, help="Share of late events.")
@click.option("--duplicate-share", type=Share, default=0.0, show_default=True, help="Share of repeated records.")
@click.option("--poison-share", type=Share, default=0.0, show_default=True, help="Share of broken records.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help=".jsonl or .parquet")
@click.option(
    "--truth",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="Parquet file for the ground truth, one row per record.",
)
def generate(
    *,
    events: int,
    seed: int,
    rate: float,
    days: float | None,
    start_ms: int,
    late_share: float,
    duplicate_share: float,
    poison_share: float,
    out: Path,
    truth: Path | None,
) -> None:
    """Write a stream of transactions, and separately which of them are fraud."""
    if out.suffix not in WRITERS:
        raise click.BadParameter(f"{out} must end in {' or '.join(WRITERS)}", param_hint="--out")
    if out.suffix == ".parquet" and poison_share > 0:
        raise click.BadParameter("broken records fit no Parquet column: use .jsonl", param_hint="--poison-share")
    settings = TrafficSettings(
        seed=seed,
        start_time_ms=start_ms,
        events_per_second=rate,
        late_share=late_share,
        duplicate_share=duplicate_share,
        poison_share=poison_share,
    )
    if days is not None:
        settings = spread(settings, events, days)
    count = WRITERS[out.suffix](out, truth, _first(settings, events))
    click.echo(f"{count} records in {out}" + (f", ground truth in {truth}" if truth else ""))


def _first(settings: TrafficSettings, events: int) -> Iterator[Traffic]:
    left = events
    for chunk in chunks(settings, min(CHUNK_EVENTS, events)):
        yield chunk.take(slice(0, left))
        left -= len(chunk)
        if left <= 0:
            return


if __name__ == "__main__":
    main(prog_name="python -m loadtest")
