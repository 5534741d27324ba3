"""`tidegate models`: what is in the store, and what comes into it."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from engine.commands.options import config_option, json_option, print_json, required_config
from engine.errors import ConfigError

if TYPE_CHECKING:
    from models.parity import Parity


@click.group()
def models() -> None:
    """The models in the store."""


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
    thresholds = (config.policy.challenge, config.policy.review, config.policy.decline)
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
