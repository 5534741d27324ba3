"""`tidegate cases`: what an analyst says of a case."""

import time
from typing import get_args

import click
import msgspec

from engine.commands.options import bootstrap_option, config_option, required_config, user_of_system, with_bootstrap
from engine.control.records import CaseSaid, CaseStatus, Outcome
from engine.errors import ConfigError


@click.group()
def cases() -> None:
    """The cases that `tidegate control` makes of alerts; /cases on control.listen shows them."""


@cases.command("set")
@click.argument("case_id", metavar="CASE_ID")
@click.argument("status", type=click.Choice(get_args(CaseStatus)))
@click.option("--outcome", type=click.Choice(get_args(Outcome)), help="Of a closed case: a label for its events.")
@click.option("--author", help="Who says so; by default the user of this system.")
@config_option
@bootstrap_option
def set_(
    case_id: str,
    status: CaseStatus,
    outcome: Outcome | None,
    author: str | None,
    config_file: str | None,
    bootstrap: str | None,
) -> None:
    """Say how a case stands: open, in_review, or closed with an outcome."""
    from engine.kafka.control import send_records

    config = with_bootstrap(required_config(config_file), bootstrap)
    try:
        said = CaseSaid(
            case_id=case_id,
            status=status,
            outcome=outcome,
            author=author or user_of_system(),
            said_at_ms=time.time_ns() // 1_000_000,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error
    send_records(config, config.kafka.topics.cases, [(said.key, msgspec.json.encode(said))])
