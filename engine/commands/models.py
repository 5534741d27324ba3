"""`tidegate models`: what the store has, whether it may be loaded, and what comes into it."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from engine.commands.model_gate import gate
from engine.commands.options import config_option, config_or_default, json_option, print_json, required_config
from engine.errors import ConfigError

if TYPE_CHECKING:
    from models.parity import Parity


@click.group()
def models() -> None:
    """The models in models.store, or in the store that ships."""


models.add_command(gate)


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


@models.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@config_option
@click.option("--name", required=True, help="Name of the model in the store.")
@click.option("--features", "table", required=True, type=click.Path(path_type=Path), help="A training set.")
@click.option("--inputs", type=click.Path(path_type=Path), help="JSON array: inputs of an ONNX graph, in order.")
@click.option("--tolerance", type=click.FloatRange(0, 1), default=1e-5, show_default=True, help="Greatest |dp|.")
@json_option
def import_(
    file: Path, config_file: str | None, name: str, table: Path, inputs: Path | None, tolerance: float, as_json: bool
) -> None:
    """Add a model made elsewhere to the store, if it answers as the original does.

    FILE is a pipeline of scikit-learn (.skops), a model of LightGBM (.txt) or XGBoost (.json), or ONNX (.onnx).
    """
    try:
        from models.convert.read import read_original
        from models.importing import accept, prepare
    except ModuleNotFoundError as error:
        raise ConfigError(f"there is no {error.name}: pip install 'tidegate[train]'") from error
    from models.errors import ModelError
    from models.store import next_version

    config = required_config(config_file)
    if config.models.store is None:
        raise ConfigError("models.store is not set: the store that ships is not added to")
    store, definitions = config.path(config.models.store), config.feature_spec().features
    thresholds = config.policy.thresholds
    try:
        candidate = prepare(
            read_original(file, None if inputs is None else _names(inputs)),
            file,
            table,
            name=name,
            version=next_version(store, name),
            definitions=definitions,
            thresholds=thresholds,
        )
        if as_json:
            print_json(msgspec.to_builtins(candidate.parity))
        else:
            print_parity(candidate.parity)
        located = accept(candidate, store, definitions, tolerance)
    except ModelError as error:
        raise ConfigError(f"{file}: {error}") from error
    click.echo(f"{name}/{located.version} is in {store}", err=as_json)


def _names(path: Path) -> list[str]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[str])
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(f"--inputs {path}: {error}") from error


def print_parity(parity: "Parity") -> None:
    """The report, as a person reads it."""
    click.echo(
        f"{parity.rows:,} rows: max |dp| {parity.max:.3g}, p99 |dp| {parity.p99:.3g}, "
        f"{parity.flipped_rows:,} decided otherwise"
    )
    for pair in parity.worst:
        click.echo(f"row {pair.row}: original {pair.original:.9f}, imported {pair.imported:.9f}")
