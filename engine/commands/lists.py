"""`tidegate lists`: who is blocked and who is allowed, also while workers run."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from engine.commands.options import (
    Time,
    bootstrap_option,
    config_option,
    json_option,
    print_json,
    required_config,
    user_of_system,
    with_bootstrap,
)
from engine.errors import ConfigError
from engine.policy.lists import FOREVER_MS, LISTS, ListName

_name_argument = click.argument("name", metavar="block|allow", type=click.Choice(LISTS))
_entity_argument = click.argument("entity")
_reason_option = click.option("--reason", required=True, help="Why; decisions of blocked entities say so.")
_author_option = click.option("--author", help="Who decides so; by default the user of this system.")
_until_option = click.option("--until", "until_ms", type=Time(), help="For events before this time, in ISO 8601.")
_for_option = click.option("--for", "duration", help="For events of so long from now on, as in 24h.")


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (_author_option, _reason_option, bootstrap_option, config_option):
        command = option(command)
    return command


@click.group()
def lists() -> None:
    """Entities that are blocked or allowed, whatever model and rules say."""


@lists.command()
@_name_argument
@_entity_argument
@click.argument("keys", nargs=-1, required=True)
@_until_option
@_for_option
@_options
def add(
    name: ListName,
    entity: str,
    keys: tuple[str, ...],
    until_ms: int | None,
    duration: str | None,
    config_file: str | None,
    bootstrap: str | None,
    reason: str,
    author: str | None,
) -> None:
    """Put entities on a list, as in: add block card 4111111111111111 --for 24h --reason stolen."""
    _say(name, entity, keys, _until(until_ms, duration), config_file, bootstrap, reason, author)


@lists.command("import")
@_name_argument
@_entity_argument
@click.argument("file", type=click.Path(path_type=Path))
@_until_option
@_for_option
@_options
def import_(
    name: ListName,
    entity: str,
    file: Path,
    until_ms: int | None,
    duration: str | None,
    config_file: str | None,
    bootstrap: str | None,
    reason: str,
    author: str | None,
) -> None:
    """Put the keys of a file, one a line, on a list."""
    try:
        keys = tuple(line.strip() for line in file.read_text("utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from error
    _say(name, entity, keys, _until(until_ms, duration), config_file, bootstrap, reason, author)


@lists.command()
@_name_argument
@_entity_argument
@click.argument("keys", nargs=-1, required=True)
@_options
def remove(
    name: ListName,
    entity: str,
    keys: tuple[str, ...],
    config_file: str | None,
    bootstrap: str | None,
    reason: str,
    author: str | None,
) -> None:
    """Take entities off a list."""
    _say(name, entity, keys, 0, config_file, bootstrap, reason, author)


@lists.command()
@config_option
@bootstrap_option
@json_option
def show(config_file: str | None, bootstrap: str | None, as_json: bool) -> None:
    """Who is on which list, with keys masked; entries that are over are shown until they are taken off."""
    from engine.lists import listed
    from engine.observe.logs import masked

    rows = [
        {
            "list": said.list,
            "entity": said.entity,
            "key": masked(said.entity_key),
            "until": None if said.until_ms >= FOREVER_MS else said.until_ms,
            "author": said.author,
            "reason": said.reason,
        }
        for said in listed(with_bootstrap(required_config(config_file), bootstrap))
    ]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        until = "for good" if row["until"] is None else f"until {_written(int(str(row['until'])))}"
        click.echo(f"{row['list']} {row['entity']} {row['key']} {until}: {row['reason']} ({row['author']})")
    click.echo(f"{len(rows)} entries")


def _say(
    name: ListName,
    entity: str,
    keys: tuple[str, ...],
    until_ms: int,
    config_file: str | None,
    bootstrap: str | None,
    reason: str,
    author: str | None,
) -> None:
    from engine.lists import say

    config = with_bootstrap(required_config(config_file), bootstrap)
    said = say(config, name, entity, keys, author=author or user_of_system(), reason=reason, until_ms=until_ms)
    click.echo(f"{said} of {entity} {'taken off' if until_ms == 0 else 'put on'} the {name} list")


def _until(until_ms: int | None, duration: str | None) -> int:
    from features.durations import duration_ms

    if until_ms is not None and duration is not None:
        raise ConfigError("--until and --for cannot be given together")
    if duration is None:
        return FOREVER_MS if until_ms is None else until_ms
    try:
        return time.time_ns() // 1_000_000 + duration_ms(duration)
    except ValueError as error:
        raise ConfigError(f"--for: {error}") from error


def _written(time_ms: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time_ms / 1000))
