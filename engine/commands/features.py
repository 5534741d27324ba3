"""`tidegate features`: what the set has, and the values of past events as a training set."""

from pathlib import Path

import click
import msgspec

from engine.commands.options import (
    Time,
    config_option,
    config_or_default,
    dead_letters_option,
    files_argument,
    json_option,
    print_json,
    timestamp_option,
)
from engine.errors import ConfigError


@click.group()
def features() -> None:
    """The features: what there are, and their values for past events."""


@features.command("list")
@config_option
@json_option
def features_list(config_file: str | None, as_json: bool) -> None:
    """Show every feature: window, unit, definition, and from when on the state in state.dir answers for all of it."""
    from engine.catalog import catalog, matching_state, seen
    from engine.tables import print_catalog

    config = config_or_default(config_file)
    header, note = matching_state(config)
    entries = catalog(config, header)
    if as_json:
        print_json(
            {
                "feature_set": config.feature_spec().fingerprint(),
                "state": None if header is None else seen(header),
                "features": [msgspec.to_builtins(entry) for entry in entries],
            }
        )
    else:
        print_catalog(config, entries, header, note)


@features.command()
@files_argument
@config_option
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The training set, a Parquet file.")
@click.option("--labels", type=click.Path(path_type=Path), help="File of event_id, label and labelled_at.")
@click.option("--as-of", "as_of_ms", type=Time(), help="When labels must be known; by default at the newest event.")
@click.option("--keys", is_flag=True, help="Add a column for each entity with the hash of its key, as in card.key.")
@click.option("--partition-field", help="Field with the Kafka partition; without it all files are one partition.")
@timestamp_option
@dead_letters_option
@json_option
def backfill(
    files: tuple[Path, ...],
    config_file: str | None,
    out: Path,
    labels: Path | None,
    as_of_ms: int | None,
    keys: bool,
    partition_field: str | None,
    timestamp_field: str | None,
    dead_letters: Path | None,
    as_json: bool,
) -> None:
    """Write the features of past events, one row each, as the stream would have had them.

    EVENTS are CSV, JSON Lines or Parquet files, read in the order they are named.
    """
    from engine.console import backfill_with_progress
    from engine.sources import Coordinates
    from engine.tables import moment

    if as_of_ms is not None and labels is None:
        raise ConfigError("--as-of says which labels count: it needs --labels")
    summary, joined, seconds = backfill_with_progress(
        list(files),
        config_or_default(config_file),
        out,
        labels_file=labels,
        as_of_ms=as_of_ms,
        keys=keys,
        coordinates=Coordinates(partition_field, timestamp=timestamp_field),
        dead_letters=dead_letters,
    )
    if as_json:
        figures = {**msgspec.to_builtins(summary), "seconds": seconds, "events_per_second": summary.events / seconds}
        if joined is not None:
            figures |= {"labels": joined.read, "labels_later": joined.later, "as_of_ms": joined.as_of_ms}
        print_json(figures)
        return
    click.echo(
        f"{summary.events:,} events: {summary.rows:,} rows, {summary.dead_letters:,} dead letters, "
        f"{summary.duplicates:,} duplicates in {seconds:.1f} s ({summary.events / seconds:,.0f} events/s)"
    )
    if joined is not None:
        click.echo(
            f"{summary.labelled:,} rows have a label, as of {moment(joined.as_of_ms)}: of {joined.read:,} labels "
            f"{joined.later:,} were given later"
        )
