"""`tidegate models promote` and `rollback`: which version an alias stands for, also while workers run."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
import msgspec

from engine.commands.options import (
    bootstrap_of,
    bootstrap_option,
    config_option,
    json_option,
    print_json,
    required_config,
    user_of_system,
)
from engine.config import Config
from models.assignment import ALIASES, CHAMPION

if TYPE_CHECKING:
    from engine.moves import Move

_alias_option = click.option(
    "--alias", type=click.Choice(ALIASES), default=CHAMPION, show_default=True, help="Which alias moves."
)
_reason_option = click.option("--reason", required=True, help="Why; workers log it, and the store keeps it.")
_author_option = click.option("--author", help="Who decides so; by default the user of this system.")


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(
        (config_option, bootstrap_option, _alias_option, _reason_option, _author_option, json_option)
    ):
        command = option(command)
    return command


@click.command()
@click.argument("version", metavar="NAME/VERSION")
@_options
@click.option(
    "--share",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Of the entities, for which a canary decides.",
)
def promote(
    version: str,
    config_file: str | None,
    bootstrap: str | None,
    alias: str,
    reason: str,
    author: str | None,
    as_json: bool,
    share: float | None,
) -> None:
    """Let an alias stand for a version, once that has passed the gate.

    Workers that run load it beside the model that decides, and change over between two commits. The canary decides for
    a share of the entities; the champion's next promotion or rollback ends it.
    """
    from engine.moves import promote as promote_

    config = _reachable(config_file, bootstrap)
    _show(promote_(config, version, alias, author or user_of_system(), reason, share=share), as_json=as_json)


@click.command()
@click.argument("name")
@_options
def rollback(
    name: str,
    config_file: str | None,
    bootstrap: str | None,
    alias: str,
    reason: str,
    author: str | None,
    as_json: bool,
) -> None:
    """Let an alias stand again for what it stood for before, or end the canary; needs nothing but the broker."""
    from engine.moves import roll_back

    _show(
        roll_back(_reachable(config_file, bootstrap), name, alias, author or user_of_system(), reason), as_json=as_json
    )


def _reachable(config_file: str | None, flag: str | None) -> Config:
    """The configuration with the broker's address, where there is one."""
    config = required_config(config_file)
    address = bootstrap_of(config, flag)
    return msgspec.structs.replace(config, kafka=msgspec.structs.replace(config.kafka, bootstrap=address))


def _show(move: "Move", *, as_json: bool) -> None:
    if as_json:
        print_json(msgspec.to_builtins(move))
        return
    click.echo(_said(move))
    if move.not_sent is not None:
        click.echo(f"workers that run were not told: {move.not_sent}", err=True)
    if move.not_stored is not None:
        click.echo(f"the store was not changed: {move.not_stored}", err=True)


def _said(move: "Move") -> str:
    name, assignment = f"{move.model}@{move.alias}", move.assignment
    if assignment.ended:
        return f"{name} is ended, version {assignment.version} decides no longer"
    share = "" if assignment.share is None else f", for {assignment.share:.4g} of the entities"
    return f"{name} is version {assignment.version}{share}"
