"""What several commands share: their options, where the configuration and the broker come from, JSON output."""

import getpass
import os
import sys
from pathlib import Path
from typing import Any

import click
import msgspec
import orjson

from engine.config import Config, default_profile, find_config, load_config, parse_config
from engine.errors import ConfigError

BOOTSTRAP_NOTE = Path(".kafka") / "bootstrap"


class Time(click.ParamType):
    """A moment in ISO 8601, as milliseconds since 1970."""

    name = "time"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Reads it."""
        from engine.rates import epoch_ms

        try:
            return value if isinstance(value, int) else epoch_ms(value)
        except ValueError:
            self.fail(f"{value!r} is not a time in ISO 8601, such as 2025-03-01 or 2025-03-01T12:00:00Z", param, ctx)


config_option = click.option("--config", "config_file", help="Configuration file (TOML).")
bootstrap_option = click.option("--bootstrap", help="Kafka broker, HOST:PORT.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
files_argument = click.argument("files", metavar="EVENTS...", nargs=-1, required=True, type=click.Path(path_type=Path))
dead_letters_option = click.option(
    "--dead-letters", type=click.Path(path_type=Path), help="Records that were no events, with reasons."
)
timestamp_option = click.option("--timestamp-field", help="Field with the time of the Kafka record, ms or ISO 8601.")


def config_or_default(config_file: str | None, overrides: dict[str, str] | None = None) -> Config:
    """The configuration, or the profile that ships where there is none."""
    environment = {**os.environ, **(overrides or {})}
    path = find_config(config_file, environment)
    if path is None:
        return parse_config(default_profile(), Path(), environment, "default profile")
    return load_config(path, environment)


def required_config(config_file: str | None) -> Config:
    """The configuration; ConfigError where there is none."""
    path = find_config(config_file, os.environ)
    if path is None:
        raise ConfigError("no configuration: give --config FILE, set TIDEGATE_CONFIG, or write ./tidegate.toml")
    return load_config(path)


def with_bootstrap(config: Config, flag: str | None) -> Config:
    """The broker's address: flag, KAFKA_BOOTSTRAP_SERVERS, configuration, then what `scripts/kafka start` noted."""
    bootstrap = bootstrap_of(config, flag)
    if not bootstrap:
        raise ConfigError(
            "no broker: give --bootstrap HOST:PORT, set KAFKA_BOOTSTRAP_SERVERS or kafka.bootstrap, "
            "or run `scripts/kafka start`"
        )
    return msgspec.structs.replace(config, kafka=msgspec.structs.replace(config.kafka, bootstrap=bootstrap))


def bootstrap_of(config: Config, flag: str | None) -> str:
    """As `with_bootstrap`; empty where there is none."""
    noted = BOOTSTRAP_NOTE.read_text("utf-8").strip() if BOOTSTRAP_NOTE.is_file() else ""
    return flag or os.environ.get("KAFKA_BOOTSTRAP_SERVERS") or config.kafka.bootstrap or noted


def user_of_system() -> str:
    """Who decides where nobody is named; ConfigError where the system does not say."""
    try:
        return getpass.getuser()
    except (KeyError, OSError) as error:
        raise ConfigError(f"user {os.getuid()} of this system has no name: give --author") from error


def print_json(value: object) -> None:
    """One JSON object on standard output."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS
    sys.stdout.buffer.write(orjson.dumps(value, option=options))


def print_figures(figures: dict[str, object], *, as_json: bool) -> None:
    """Figures as JSON, or as lines with tables within them indented."""
    if as_json:
        print_json(figures)
        return
    for name, value in figures.items():
        if isinstance(value, dict):
            click.echo(f"{name}:")
            for part, number in value.items():
                click.echo(f"  {part:<34}{_shown(number)}")
        else:
            click.echo(f"{name:<36}{_shown(value)}")


def _shown(number: Any) -> str:
    return f"{number:>12,.2f}" if abs(number) >= 1 else f"{number:>12.4f}"
