"""`tidegate policy`: what a policy says, and whether it can be used."""

from pathlib import Path

import click
import msgspec

from engine.commands.options import config_option, config_or_default, files_argument, json_option, print_json
from engine.commands.sources import require_whole_place, source_options, source_settings


@click.group()
def policy() -> None:
    """Thresholds and rules that turn scores into decisions."""


@policy.command()
@click.argument("file", type=click.Path(path_type=Path))
@config_option
@json_option
def check(file: Path, config_file: str | None, as_json: bool) -> None:
    """Try a policy file against the features of the configuration; exit 2, and say where, if it cannot be used."""
    from engine.assemble import load_rates, policy_program
    from engine.config import read_policy
    from engine.decode import Decoder

    config = config_or_default(config_file)
    config = msgspec.structs.replace(config, policy=read_policy(file))
    spec = config.feature_spec()
    program = policy_program(config, spec)
    Decoder(config, spec, load_rates(config), program.fields)
    found = config.policy
    if as_json:
        read = [list(expression.names) for expression in program.expressions]
        rules = [{**msgspec.to_builtins(rule), "reads": names} for rule, names in zip(found.rules, read, strict=True)]
        print_json({**found.facts, "thresholds": found.thresholds, "rules": rules})
        return
    challenge, review, decline = found.thresholds
    click.echo(f"{found.label}: challenge from {challenge}, review from {review}, decline from {decline}")
    for rule, expression in zip(found.rules, program.expressions, strict=True):
        weight = f" {rule.weight:+d}" if rule.weight else ""
        override = " override" if rule.override else ""
        click.echo(f"  {rule.id}: {rule.action or 'score'}{weight}{override} where {expression.text}")
    click.echo(f"{len(found.rules)} rules, all of them can be used")


@policy.command()
@click.argument("file", type=click.Path(path_type=Path))
@files_argument
@config_option
@source_options
@click.option(
    "--examples", "examples_max", type=click.IntRange(0), default=3, show_default=True,
    help="Show so many events of each change, the first ones.",
)  # fmt: skip
@json_option
def test(
    file: Path,
    files: tuple[Path, ...],
    config_file: str | None,
    mapping: str | None,
    rates: Path | None,
    base_currency: str | None,
    partition_field: str | None,
    offset_field: str | None,
    timestamp_field: str | None,
    examples_max: int,
    as_json: bool,
) -> None:
    """Decide past events by the policy of the configuration and by that in FILE, and show what would change.

    EVENTS are CSV, JSON Lines or Parquet files, in the order in which they were taken. Lists are empty. Prints how
    often which decision becomes which, how often each rule holds, and examples with keys masked. Exit 2, and say where,
    if the policy in FILE cannot be used.
    """
    from engine.config import read_policy
    from engine.console import compare_with_progress
    from engine.sources import Coordinates
    from engine.tables import print_policy_diff

    require_whole_place(partition_field, offset_field)
    config = config_or_default(config_file, source_settings(mapping, rates, base_currency))
    coordinates = Coordinates(partition_field, offset_field, timestamp_field)
    diff, seconds = compare_with_progress(list(files), config, read_policy(file), coordinates, examples_max)
    if as_json:
        print_json({**diff.as_json(), "seconds": seconds, "events_per_second": diff.events / seconds})
        return
    click.echo(
        f"{diff.events:,} events: {diff.decided:,} decided, {diff.dead_letters:,} dead letters, "
        f"{diff.duplicates:,} duplicates in {seconds:.1f} s ({diff.events / seconds:,.0f} events/s)"
    )
    click.echo(f"{diff.changed:,} of {diff.decided:,} would be decided otherwise")
    print_policy_diff(diff)
