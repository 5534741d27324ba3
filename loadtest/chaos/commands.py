"""`python -m loadtest chaos` and `failover`."""

import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import orjson
from rich.console import Console
from rich.table import Table

from loadtest.chaos.failover import Options as FailoverOptions
from loadtest.chaos.failover import failover_table, run_failover
from loadtest.chaos.report import summary
from loadtest.chaos.run import Options, run_chaos
from loadtest.errors import LoadTestError

Outcome = dict[str, Any]


@click.command()
@click.option("--events", type=click.IntRange(1_000), default=100_000, show_default=True, help="Events to send.")
@click.option("--kills", type=click.IntRange(0), default=10, show_default=True, help="SIGKILLs of the active worker.")
@click.option("--zombies", type=click.IntRange(0), default=0, show_default=True, help="SIGSTOPs past the session.")
@click.option("--broker-kills", type=click.IntRange(0), default=0, show_default=True, help="SIGKILLs of the broker.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Another seed, other rounds.")
@click.option("--partitions", type=click.IntRange(1), default=6, show_default=True, help="Partitions of the input.")
@click.option(
    "--rate", type=click.FloatRange(1), help="Events per second; by default so that the rounds fill the time."
)
@click.option(
    "--delivery", type=click.Choice(["exactly_once", "at_least_once"]), default="exactly_once", show_default=True
)
@click.option("--bootstrap", help="A Kafka, HOST:PORT; by default one of the run's own.")
@click.option("--keep", is_flag=True, help="Keep the folder with logs, state and topics, whatever comes out.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def chaos(*, keep: bool, as_json: bool, **options: Any) -> None:
    """Kill workers and brokers while they decide, and check what came out.

    Every event must have exactly one outcome, in order, equal to an offline replay. Exits with 1 where that is not so,
    or where the run could not be brought to its end; the folder with everything is kept then.
    """
    asked = Options(**options)
    if asked.bootstrap is not None and asked.broker_kills:
        raise click.UsageError("--broker-kills: only a broker of the run's own can be killed, so without --bootstrap")

    def outcome(folder: Path) -> Outcome:
        return run_chaos(asked, folder, _say).as_json()

    _conduct("chaos", outcome, summary, keep=keep, as_json=as_json)


@click.command()
@click.option("--rate", type=click.FloatRange(1), default=5_000.0, show_default=True, help="Events per second.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Hand-overs, and as many kills.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Another seed, another stream.")
@click.option("--partitions", type=click.IntRange(1), default=6, show_default=True, help="Partitions of the input.")
@click.option("--bootstrap", help="A Kafka, HOST:PORT; by default one of the run's own.")
@click.option("--keep", is_flag=True, help="Keep the folder with logs, state and topics, whatever comes out.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def failover(*, keep: bool, as_json: bool, **options: Any) -> None:
    """Measure how long nobody decides when the active worker is killed, and when it hands over on SIGTERM.

    Exits with 1 where that is longer than 10 s or 1 s, or where an event has not exactly one outcome.
    """
    asked = FailoverOptions(**options)

    def outcome(folder: Path) -> Outcome:
        return run_failover(asked, folder, _say)

    _conduct("failover", outcome, failover_table, keep=keep, as_json=as_json)


def _conduct(
    name: str,
    run: Callable[[Path], Outcome],
    show: Callable[[Outcome], Table],
    *,
    keep: bool,
    as_json: bool,
) -> None:
    """Runs in a folder of its own, prints what came out, and ends with 1 if that is not as it must be."""
    folder = Path(tempfile.mkdtemp(prefix=f"tidegate-{name}-"))
    try:
        figures = run(folder)
    except LoadTestError as error:
        click.echo(f"{name}: {error}\n{name}: everything is in {folder}", err=True)
        sys.exit(1)
    if as_json:
        sys.stdout.buffer.write(orjson.dumps(figures, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    else:
        Console().print(show(figures))
    for failure in figures["failures"]:
        click.echo(f"{name}: {failure}", err=True)
    if keep or figures["failures"]:
        click.echo(f"{name}: everything is in {folder}", err=True)
    else:
        shutil.rmtree(folder)
    sys.exit(1 if figures["failures"] else 0)


def _say(line: str) -> None:
    click.echo(line, err=True)
