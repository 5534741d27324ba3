"""`tidegate policy`: what a policy says, and whether it can be used."""

from pathlib import Path

import click
import msgspec

from engine.commands.options import config_option, config_or_default, json_option, print_json


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
