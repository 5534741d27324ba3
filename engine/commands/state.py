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


@state.command()
@config_option
@click.option("--checkpoints", "with_checkpoints", is_flag=True, help="Verify every checkpoint too.")
@json_option
def verify(config_file: str | None, with_checkpoints: bool, as_json: bool) -> None:
    """Read every row of the state and check all that can be checked; exit 1 where it is damaged.

    A worker may be running on it.
    """
    from engine.console import verify_with_progress
    from engine.tables import print_verdict

    verdicts = verify_with_progress(required_config(config_file), with_checkpoints=with_checkpoints)
    if as_json:
        print_json({name: verdict.as_json() for name, verdict in verdicts.items()})
    else:
        for name, verdict in verdicts.items():
            print_verdict(name, verdict)
    if not all(verdict.sound for verdict in verdicts.values()):
        click.get_current_context().exit(1)


@state.group()
def checkpoints() -> None:
    """Copies of the state in state.checkpoints.dir."""


@checkpoints.command("list")
@config_option
@json_option
def list_checkpoints(config_file: str | None, as_json: bool) -> None:
    """Show every checkpoint, oldest first; checksums are looked at by `tidegate state verify --checkpoints`."""
    from engine.state.checkpoints import wall_clock_ms
    from engine.tables import print_checkpoints
    from engine.upkeep import checkpoints_of

    entries = checkpoints_of(required_config(config_file)).entries()
    if as_json:
        print_json([entry.as_json() for entry in entries])
    else:
        print_checkpoints(entries, wall_clock_ms())


@state.command()
@click.argument("sequence", type=click.IntRange(1))
@config_option
@json_option
def restore(sequence: int, config_file: str | None, as_json: bool) -> None:
    """Make checkpoint SEQUENCE the state; the state that is there stays beside it. No worker may be running on it."""
    from engine.upkeep import restore_checkpoint

    manifest, quarantine = restore_checkpoint(required_config(config_file), sequence)
    if as_json:
        print_json({"sequence": sequence, "vector": manifest.vector, "quarantine": quarantine and str(quarantine)})
        return
    places = ", ".join(f"{partition}: {offset}" for partition, offset in manifest.vector.items())
    click.echo(f"checkpoint {sequence} is the state now; a worker replays from (partition: offset) {places}")
    if quarantine is not None:
        click.echo(f"what was there is kept in {quarantine}; nothing needs it any longer")
