"""`tidegate backtest`: what a policy or a model would have done to past events, beside what is running."""

from pathlib import Path

import click
import msgspec

from engine.commands.options import (
    Time,
    config_option,
    config_or_default,
    files_argument,
    json_option,
    print_json,
    timestamp_option,
)
from engine.errors import ConfigError


@click.command()
@files_argument
@config_option
@click.option(
    "--labels", "labels_file", required=True, type=click.Path(path_type=Path),
    help="File of event_id, label and labelled_at.",
)  # fmt: skip
@click.option("--policy", "policy_file", type=click.Path(path_type=Path), help="The candidate's policy, a TOML file.")
@click.option("--model", "reference", help="The candidate's model, name/version or name@alias.")
@click.option("--from", "from_ms", type=Time(), default=0, help="Judge from then on; what is earlier builds the state.")
@click.option("--partition-field", help="Field with the Kafka partition; without it all files are one partition.")
@timestamp_option
@click.option("--out", type=click.Path(path_type=Path), help="Folder for report.html, report.json and the pictures.")
@click.option(
    "--cost-alert", type=click.FloatRange(0), default=5.0, show_default=True, help="Of an event not approved."
)
@click.option(
    "--top", type=click.IntRange(1), default=100, show_default=True, help="Cards that are looked at each day."
)
@json_option
def backtest(
    files: tuple[Path, ...],
    config_file: str | None,
    labels_file: Path,
    policy_file: Path | None,
    reference: str | None,
    from_ms: int,
    partition_field: str | None,
    timestamp_field: str | None,
    out: Path | None,
    cost_alert: float,
    top: int,
    as_json: bool,
) -> None:
    """Decide past events twice, as configured and by a candidate, and judge both by labels.

    EVENTS are CSV, JSON Lines or Parquet files, read in the order they are named. What is not given of the candidate,
    policy or model, is the configured one.
    """
    if policy_file is None and reference is None:
        raise ConfigError("--policy, --model: give at least one of them, or there is nothing to compare")
    try:
        from engine.backtest.figures import figures
        from engine.backtest.report import make_folder, write_report
    except ModuleNotFoundError as error:
        raise ConfigError(f"there is no {error.name}: pip install 'tidegate[train]'") from error
    from engine.backtest.result import Terms
    from engine.backtest.run import contenders
    from engine.console import backtest_with_progress
    from engine.rates import minor_per_major
    from engine.sources import Coordinates
    from engine.tables import print_backtest

    config = config_or_default(config_file)
    terms = Terms(
        currency=config.rates.base_currency,
        minor_per_major=minor_per_major(config.rates.base_currency),
        card=config.mapping.partition_key,
        cost_alert=cost_alert,
        top=top,
    )
    if out is not None:
        make_folder(out)
    sides = contenders(config, policy_file, reference)
    decided, summary, labels = backtest_with_progress(
        list(files), config, sides, labels_file, Coordinates(partition_field, timestamp=timestamp_field), from_ms
    )
    result = figures(decided, summary, sides, terms, len(labels))
    if out is not None:
        write_report(out, result, decided)
    if as_json:
        print_json(msgspec.to_builtins(result))
    else:
        print_backtest(result)
