"""`tidegate replay`: files in, decisions out, no broker."""

from pathlib import Path

import click
import msgspec

from engine.commands.options import (
    config_option,
    config_or_default,
    dead_letters_option,
    files_argument,
    json_option,
    print_json,
)
from engine.commands.sources import require_whole_place, source_options, source_settings


@click.command()
@files_argument
@config_option
@source_options
@click.option("--topic", help="The topic that records came from, for `source`; by default the file's name.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Decisions, one JSON object a line.")
@click.option("--alerts", type=click.Path(path_type=Path), help="Alerts likewise.")
@dead_letters_option
@click.option("--features", "with_features", is_flag=True, help="Put every feature into its decision.")
@json_option
def replay(
    files: tuple[Path, ...],
    config_file: str | None,
    mapping: str | None,
    rates: Path | None,
    base_currency: str | None,
    topic: str | None,
    partition_field: str | None,
    offset_field: str | None,
    timestamp_field: str | None,
    out: Path,
    alerts: Path | None,
    dead_letters: Path | None,
    with_features: bool,
    as_json: bool,
) -> None:
    """Score events from CSV, JSON Lines or Parquet files, without a broker.

    Rows that say where in Kafka they were, in the order in which a worker took them in, get its very decisions.
    """
    from engine.console import replay_with_progress
    from engine.replay import ReplayFiles
    from engine.sources import Coordinates

    require_whole_place(partition_field, offset_field)
    summary, seconds = replay_with_progress(
        list(files),
        config_or_default(config_file, source_settings(mapping, rates, base_currency)),
        ReplayFiles(out, alerts, dead_letters),
        coordinates=Coordinates(partition_field, offset_field, timestamp_field),
        topic=topic,
        with_features=with_features,
    )
    result = {**msgspec.to_builtins(summary), "seconds": seconds, "events_per_second": summary.events / seconds}
    if as_json:
        print_json(result)
    else:
        click.echo(
            f"{summary.events:,} events: {summary.decisions:,} decisions, {summary.alerts:,} alerts, "
            f"{summary.dead_letters:,} dead letters, {summary.duplicates:,} duplicates "
            f"in {seconds:.1f} s ({summary.events / seconds:,.0f} events/s)"
        )
