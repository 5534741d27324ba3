"""What commands share that read events from files: the options that say what is in them."""

from collections.abc import Callable
from pathlib import Path

import click
import orjson

from engine.commands.options import timestamp_option
from engine.errors import ConfigError

Command = Callable[..., None]


def source_options(command: Command) -> Command:
    """How events are written, and which fields say where in Kafka they were."""
    options = (
        click.option("--mapping", help="A shipped mapping or a TOML file with one."),
        click.option(
            "--rates", type=click.Path(path_type=Path), help="Rate table: CSV of currency,effective_from,rate."
        ),
        click.option("--base-currency", help="What amounts are converted to."),
        click.option(
            "--partition-field", help="Field with the Kafka partition; without it each file is one partition."
        ),
        click.option("--offset-field", help="Field with the Kafka offset; without it rows are counted."),
        timestamp_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


def source_settings(mapping: str | None, rates: Path | None, base_currency: str | None) -> dict[str, str]:
    """The options as variables, which take the place of what the configuration says."""
    settings: dict[str, str] = {}
    if mapping is not None:
        settings["TIDEGATE__MAPPING"] = f"{{ base = {orjson.dumps(_existing_path(mapping)).decode()} }}"
    if rates is not None:
        settings["TIDEGATE__RATES__FILE"] = str(rates.absolute())
    if base_currency is not None:
        settings["TIDEGATE__RATES__BASE_CURRENCY"] = base_currency
    return settings


def require_whole_place(partition_field: str | None, offset_field: str | None) -> None:
    """Raises ConfigError where only half of a record's place in Kafka is named."""
    if (partition_field is None) != (offset_field is None):
        raise ConfigError("--partition-field and --offset-field go together: a decision's id is made of both")


def _existing_path(name: str) -> str:
    """A file given on the command line stands for itself, wherever the configuration lies."""
    return str(Path(name).absolute()) if Path(name).is_file() else name
