"""`tidegate replay`: files in, decisions out, no broker."""

from pathlib import Path

import click
import msgspec
import orjson

from engine.commands.options import (
    config_option,
    config_or_default,
    dead_letters_option,
    files_argument,
    json_option,
    print_json,
    timestamp_option,
)
from engine.errors import ConfigError


@click.command()
@files_argument
@config_option
@click.option("--mapping", help="A shipped mapping or a TOML file with one.")
@click.option("--rates", type=click.Path(path_type=Path), help="Rate table: CSV of currency,effective_from,rate.")
@click.option("--base-currency", help="What amounts are converted to.")
@click.option("--topic", help="The topic that records came from, for `source`; by default the file's name.")
@click.option("--partition-field", help="Field with the Kafka partition; without it each file is one partition.")
@click.option("--offset-field", help="Field with the Kafka offset; without it rows are counted.")
@timestamp_option
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

    if (partition_field is None) != (offset_field is None):
        raise ConfigError("--partition-field and --offset-field go together: a decision's id is made of both")
    overrides: dict[str, str] = {}
    if mapping is not None:
        overrides["TIDEGATE__MAPPING"] = f"{{ base = {orjson.dumps(_existing_path(mapping)).decode()} }}"
    if rates is not None:
        overrides["TIDEGATE__RATES__FILE"] = str(rates.absolute())
    if base_currency is not None:
        overrides["TIDEGATE__RATES__BASE_CURRENCY"] = base_currency
    summary, seconds = replay_with_progress(
        list(files),
        config_or_default(config_file, overrides),
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


def _existing_path(name: str) -> str:
    """A file given on the command line stands for itself, wherever the configuration lies."""
    return str(Path(name).absolute()) if Path(name).is_file() else name
