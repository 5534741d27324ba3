"""`tidegate audit`: what was decided, for those who have to know it later."""

from pathlib import Path

import click
import msgspec

from engine.commands.options import (
    Time,
    bootstrap_option,
    config_option,
    json_option,
    print_json,
    required_config,
    with_bootstrap,
)
from engine.errors import ConfigError


@click.group()
def audit() -> None:
    """Decisions that were made, with what they were made of."""


@audit.command()
@config_option
@bootstrap_option
@click.option("--from", "from_ms", type=Time(), help="Decided at this time or later; by default from the first on.")
@click.option("--to", "to_ms", type=Time(), help="Decided before this time; by default up to the last one.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The table, a Parquet file.")
@json_option
def export(
    config_file: str | None, bootstrap: str | None, from_ms: int | None, to_ms: int | None, out: Path, as_json: bool
) -> None:
    """Write the decisions of the topic to a table: inputs and outputs of the model, versions, rules and reasons.

    One row for each decision that is committed when the command begins, by the time at which it was made
    (`decided_at`). Features have a column each, null where decisions do not carry them (kafka.decision_features).
    Records that cannot be read as decisions are counted: then the file has all others, and the exit code is 1.
    """
    from engine.audit import Span
    from engine.console import export_with_progress

    if from_ms is not None and to_ms is not None and from_ms >= to_ms:
        raise ConfigError("--from must be before --to")
    config = with_bootstrap(required_config(config_file), bootstrap)
    summary, seconds = export_with_progress(config, out, Span(from_ms, to_ms))
    if as_json:
        print_json({**msgspec.to_builtins(summary), "seconds": seconds})
    else:
        click.echo(
            f"{summary.decisions:,} decisions, {summary.with_features:,} of them with features, "
            f"of {summary.records:,} records in {seconds:.1f} s"
        )
    if summary.other_features:
        click.echo(
            f"{summary.other_features:,} decisions carry features that the configuration does not name: "
            "these have no column",
            err=True,
        )
    if summary.unreadable:
        click.echo(
            f"{summary.unreadable:,} records cannot be read as decisions, the first one at {summary.first_unreadable}",
            err=True,
        )
        click.get_current_context().exit(1)
