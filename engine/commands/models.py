"""`tidegate models`: what the store has, and whether it may be loaded."""

import click
import msgspec

from engine.commands.options import config_option, config_or_default, json_option, print_json


@click.group()
def models() -> None:
    """The models in models.store, or in the store that ships."""


@models.command()
@click.argument("model", metavar="[NAME[/VERSION]]", required=False)
@config_option
@json_option
def verify(model: str | None, config_file: str | None, as_json: bool) -> None:
    """Put models through the gate that every load goes through; exit 1 where one is refused.

    Without an argument all models of the store, with NAME all its versions. Each is tried in a process of its own,
    against the features of this configuration.
    """
    from engine.assemble import survey_models

    entries = survey_models(config_or_default(config_file), model)
    if as_json:
        print_json([msgspec.to_builtins(entry) for entry in entries])
    else:
        for entry in entries:
            verdict = f"sound, sha256 {entry.sha256}" if entry.refusal is None else f"refused: {entry.refusal}"
            click.echo(f"{entry.name}/{entry.version}: {verdict}")
    if any(entry.refusal is not None for entry in entries):
        click.get_current_context().exit(1)


@models.command("list")
@config_option
@json_option
def list_models(config_file: str | None, as_json: bool) -> None:
    """Show every version: aliases, since when it is there, features, sha256, and why it is refused if it is."""
    from engine.assemble import survey_models
    from engine.tables import print_models

    entries = survey_models(config_or_default(config_file), None)
    if as_json:
        print_json([msgspec.to_builtins(entry) for entry in entries])
    else:
        print_models(entries)
