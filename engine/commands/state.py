"""`tidegate state`: the windowed state on disk, built from history and looked into."""

from pathlib import Path

import click
import msgspec

from engine.commands.options import (
    Time,
    config_option,
    dead_letters_option,
    files_argument,
    json_option,
    print_json,
    required_config,
    timestamp_option,
)


@click.group()
def state() -> None:
    """The windowed state in state.dir."""


@state.command()
@files_argument
@config_option
@click.option("--partition-field", default="partition", show_default=True, help="Field with the Kafka partition.")
@click.option("--offset-field", default="offset", show_default=True, help="Field with the Kafka offset.")
@timestamp_option
@dead_letters_option
@json_option
def load(
    files: tuple[Path, ...],
    config_file: str | None,
    partition_field: str,
    offset_field: str,
    timestamp_field: str | None,
    dead_letters: Path | None,
    as_json: bool,
) -> None:
    """Build the state from events of the past, so that long windows are right from the first event on.

    EVENTS are CSV, JSON Lines or Parquet files, read in the order they are named. Every row says at which partition and
    offset of the input topic it was; within a partition offsets ascend. The worker begins behind the newest of them.
    """
    from engine.console import load_with_progress
    from engine.sources import Coordinates
    from engine.tables import moment

    config = required_config(config_file)
    coordinates = Coordinates(partition_field, offset_field, timestamp_field)
    summary, seconds = load_with_progress(list(files), config, coordinates, dead_letters)
    if as_json:
        figures = {"seconds": seconds, "events_per_second": summary.events / seconds}
        print_json({**msgspec.to_builtins(summary), **figures})
        return
    click.echo(
        f"{summary.events:,} events: {summary.accepted:,} taken in, {summary.dead_letters:,} dead letters, "
        f"{summary.duplicates:,} duplicates, {summary.repeated:,} repeated rows in {seconds:.1f} s "
        f"({summary.events / seconds:,.0f} events/s)"
    )
    places = ", ".join(f"{partition}: {offset}" for partition, offset in summary.vector.items())
    click.echo(f"{config.kafka.input} goes on at (partition: offset) {places}")
    if summary.cold_ms is not None:
        click.echo(f"windows that reach back before {moment(summary.cold_ms)} are inexact: the history begins midway")


@state.command()
@click.argument("entity")
@click.argument("key")
@config_option
@click.option("--at", "at_ms", type=Time(), help="The moment to compute features at; the newest event's by default.")
@click.option("--rows", type=click.IntRange(0), default=20, show_default=True, help="Events and tiles to show.")
@click.option("--unmasked", is_flag=True, help="Show the whole key.")
@json_option
def inspect(
    entity: str,
    key: str,
    config_file: str | None,
    at_ms: int | None,
    rows: int,
    unmasked: bool,
    as_json: bool,
) -> None:
    """Show what the state holds of one entity, as in `inspect card 4111111111111111`; a worker may be running on it."""
    from engine.inspect import inspect as inspect_entity
    from engine.tables import print_inspection

    found = inspect_entity(required_config(config_file), entity, key, at_ms, unmasked=unmasked)
    if as_json:
        print_json(found.as_json())
    else:
        print_inspection(found, rows)
