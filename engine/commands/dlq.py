"""`tidegate dlq`: what could not become an event, looked at and sent again."""

from collections.abc import Callable

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
from engine.events import REASONS
from engine.letters import Filter, count

Command = Callable[..., None]


@click.group()
def dlq() -> None:
    """Dead letters: records that could not become events."""


def filter_options(command: Command) -> Command:
    """What says which letters are meant."""
    options = (
        click.option("--reason", "reasons", multiple=True, type=click.Choice(REASONS), help="Only these; repeatable."),
        click.option("--partition", "partitions", multiple=True, type=click.IntRange(0), help="Of the input topic."),
        click.option("--since", "since_ms", type=Time(), help="Written at this time or later."),
        click.option("--until", "until_ms", type=Time(), help="Written before this time."),
        click.option("--bytes-max", type=click.IntRange(0), help="With a value of at most so many bytes."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _filter(
    reasons: tuple[str, ...],
    partitions: tuple[int, ...],
    since_ms: int | None,
    until_ms: int | None,
    bytes_max: int | None,
) -> Filter:
    return Filter(frozenset(reasons), frozenset(partitions), since_ms, until_ms, bytes_max)


@dlq.command("list")
@config_option
@bootstrap_option
@filter_options
@click.option("--letters", "with_letters", is_flag=True, help="Show single letters, the newest ones last.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="Show so many single letters.")
@click.option("--values", "with_values", is_flag=True, help="Show their values, which may hold whole card numbers.")
@json_option
def list_letters(
    config_file: str | None,
    bootstrap: str | None,
    reasons: tuple[str, ...],
    partitions: tuple[int, ...],
    since_ms: int | None,
    until_ms: int | None,
    bytes_max: int | None,
    with_letters: bool,
    limit: int,
    with_values: bool,
    as_json: bool,
) -> None:
    """Count the dead letters by reason, or show single ones."""
    from engine.dlq import letter_as_json, survey, survey_with_values
    from engine.tables import print_letter_counts, print_letters

    if with_values and not with_letters:
        raise ConfigError("--values shows the values of single letters: it needs --letters")
    config = with_bootstrap(required_config(config_file), bootstrap)
    wanted = _filter(reasons, partitions, since_ms, until_ms, bytes_max)
    values = None
    if with_values:
        found, values = survey_with_values(config, wanted, limit)
    else:
        found = survey(config, wanted)
    shown = found.letters[max(0, len(found.letters) - limit) :]
    if as_json:
        figures = {
            "topic": config.kafka.topics.dead_letters,
            "letters": len(found.letters),
            "foreign": found.foreign,
            "reasons": [msgspec.to_builtins(of_reason) for of_reason in count(found)],
        }
        if with_letters:
            figures["newest"] = [letter_as_json(letter, found, values) for letter in shown]
        print_json(figures)
    elif with_letters:
        print_letters(config.kafka.topics.dead_letters, found, shown, values)
    else:
        print_letter_counts(config.kafka.topics.dead_letters, count(found), found.foreign)


@dlq.command()
@config_option
@bootstrap_option
@filter_options
@click.option("--limit", type=click.IntRange(1), help="Send the oldest so many at most.")
@click.option("--to", help="Send all to this topic; by default each goes to the one that it came from.")
@click.option(
    "--attempts-max", type=click.IntRange(1), default=1, show_default=True,
    help="Leave records that were refused more often than this.",
)  # fmt: skip
@click.option("--new-timestamps", is_flag=True, help="Give records the time of sending, not the one they had.")
@click.option("--dry-run", is_flag=True, help="Say what would be sent, and send nothing.")
@click.option("--yes", is_flag=True, help="Do not ask before sending.")
@json_option
def replay(
    config_file: str | None,
    bootstrap: str | None,
    reasons: tuple[str, ...],
    partitions: tuple[int, ...],
    since_ms: int | None,
    until_ms: int | None,
    bytes_max: int | None,
    limit: int | None,
    to: str | None,
    attempts_max: int,
    new_timestamps: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Send dead letters to their input topic again, once what refused them is mended.

    A letter is sent to a topic once, however often this is called, interrupted, or called by several at once.
    """
    from engine.dlq import Outcome
    from engine.dlq import dry_run as plan_only
    from engine.dlq import replay as send
    from engine.dlq_plan import Request

    if as_json and not (yes or dry_run):
        raise ConfigError("--json prints no question: it needs --yes or --dry-run")
    config = with_bootstrap(required_config(config_file), bootstrap)
    wanted = _filter(reasons, partitions, since_ms, until_ms, bytes_max)
    request = Request(wanted, to, attempts_max, limit, new_timestamps)

    def confirm(outcome: Outcome) -> bool:
        return yes or click.confirm(f"{outcome.in_words('to be sent')}. Send them?")

    outcome = plan_only(config, request) if dry_run else send(config, request, confirm)
    if outcome is None:
        click.echo("nothing was sent")
    elif as_json:
        print_json({"dry_run": dry_run, **outcome.as_json()})
    else:
        click.echo(outcome.in_words("would be sent" if dry_run else "sent"))
