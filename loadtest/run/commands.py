"""`python -m loadtest run` and `capacity`."""

import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec
from rich.console import Console
from rich.table import Table

from loadtest.errors import LoadTestError
from loadtest.run.capacity import Bound, Capacity, find_capacity
from loadtest.run.outcome import Outcome, json_of
from loadtest.run.profile import Profile, read_profile, shipped
from loadtest.run.run import Asked
from loadtest.run.run import run as run_profile
from loadtest.run.stage import Target, own
from loadtest.run.text import conclusion, figures, ms, plan_text

T = TypeVar("T")

_BOOTSTRAP = "KAFKA_BOOTSTRAP_SERVERS"
profile_option = click.option(
    "--profile", "name", default="smoke", show_default=True, help=f"One of {', '.join(shipped())}, or a .toml file."
)
delivery_option = click.option(
    "--delivery", type=click.Choice(["exactly_once", "at_least_once"]), help="Instead of the profile's."
)
bootstrap_option = click.option(
    "--bootstrap", envvar=_BOOTSTRAP, help=f"A Kafka, HOST:PORT; by default {_BOOTSTRAP}, or one of the run's own."
)
seed_option = click.option("--seed", type=click.IntRange(0), help="Instead of the profile's: other traffic.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
folder_type = click.Path(path_type=Path, file_okay=False)


@click.command()
@profile_option
@delivery_option
@bootstrap_option
@seed_option
@click.option("--external", is_flag=True, help="The worker runs already: start none.")
@click.option("--metrics", help="With --external, the URL of its metrics, for CPU, memory and lag.")
@click.option("--input", "input_topic", default="transactions", show_default=True, help="With --external: where to.")
@click.option("--decisions", default="decisions", show_default=True, help="With --external: where from.")
@click.option("--alerts", default="alerts", show_default=True, help="With --external: where from.")
@click.option("--dead-letters", default="dead-letters", show_default=True, help="With --external: where from.")
@json_option
@click.option("--report", type=folder_type, help="Write a page, its pictures and the figures into this folder.")
def run(
    *,
    name: str,
    delivery: str | None,
    bootstrap: str | None,
    seed: int | None,
    external: bool,
    metrics: str | None,
    input_topic: str,
    decisions: str,
    alerts: str,
    dead_letters: str,
    as_json: bool,
    report: Path | None,
) -> None:
    """Send a planned load, and measure from when each event was due to when its decision arrived.

    Exits with 1 where an event has not exactly one outcome, or the generator fell behind its plan.
    """
    if external and bootstrap is None:
        raise click.UsageError(f"--external: say where, by --bootstrap or {_BOOTSTRAP}")
    if metrics is not None and not external:
        raise click.UsageError("--metrics: only with --external; a worker of the run's own is asked anyway")
    with _told("run"):
        if report is not None:
            _check_plots()
        profile = _profile(name, delivery)
        asked = Asked(name, profile, seed)
        if external:
            said = delivery or "as the worker has it"
            assert bootstrap is not None
            target = Target(bootstrap, input_topic, decisions, alerts, dead_letters, said, metrics, None)
            outcome = run_profile(asked, target, _say)
        else:
            outcome = _with_own(profile, bootstrap, lambda target: run_profile(asked, target, _say))
        if report is not None:
            from loadtest.run.report import write_report

            write_report(outcome, report)
    _show(outcome, as_json)
    sys.exit(1 if outcome.failures else 0)


@click.command()
@profile_option
@delivery_option
@bootstrap_option
@seed_option
@click.option("--p99-ms", type=click.FloatRange(0, min_open=True), default=200.0, show_default=True, help="The bound.")
@click.option("--from", "first", type=click.FloatRange(1), default=2_000.0, show_default=True, help="First events/s.")
@click.option("--seconds", type=click.FloatRange(1), default=20.0, show_default=True, help="What counts of each rate.")
@json_option
@click.option("--report", type=folder_type, help="Write the curve and its figures into this folder.")
def capacity(
    *,
    name: str,
    delivery: str | None,
    bootstrap: str | None,
    seed: int | None,
    p99_ms: float,
    first: float,
    seconds: float,
    as_json: bool,
    report: Path | None,
) -> None:
    """Find the highest rate that is held with p99 within a bound.

    Of the profile, traffic and engine are used, and of its plan nothing. Exits with 1 where not even the first rate
    is held.
    """
    with _told("capacity"):
        if report is not None:
            _check_plots()
        profile = _profile(name, delivery)
        bound = Bound(p99_ms, first, seconds)

        def find(target: Target) -> Capacity:
            return find_capacity(Asked(name, profile, seed), target, bound, _say)

        found = _with_own(profile, bootstrap, find)
        if report is not None:
            from loadtest.run.curve import write_curve

            write_curve(found, report)
    if as_json:
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
    else:
        Console().print(_steps(found))
    sys.exit(0 if found.events_per_second else 1)


def _profile(name: str, delivery: str | None) -> Profile:
    profile = read_profile(name)
    return profile if delivery is None else msgspec.structs.replace(profile, delivery=delivery)


def _with_own(profile: Profile, bootstrap: str | None, work: Callable[[Target], T]) -> T:
    """With a worker that is started for it, and ended well before anything is said to be right."""
    with (
        _ended_as_by_ctrl_c(),
        tempfile.TemporaryDirectory(prefix="tidegate-loadtest-") as folder,
        own(profile, profile.delivery, bootstrap, Path(folder)) as target,
    ):
        return work(target)


@contextmanager
def _ended_as_by_ctrl_c() -> Iterator[None]:
    """Within, SIGTERM leaves as Ctrl-C does, so that worker, topics and folder are taken away on the way out."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _check_plots() -> None:
    """LoadTestError where pictures cannot be drawn: better before a long run than after it."""
    if find_spec("matplotlib") is None:
        raise LoadTestError("a report needs matplotlib, which the extra `train` installs")


@contextmanager
def _told(command: str) -> Iterator[None]:
    try:
        yield
    except LoadTestError as error:
        click.echo(f"{command}: {error}", err=True)
        sys.exit(1)


def _show(outcome: Outcome, as_json: bool) -> None:
    if as_json:
        sys.stdout.buffer.write(json_of(outcome))
    else:
        table = Table("", "", title=plan_text(outcome), show_header=False, title_justify="left")
        for row in figures(outcome):
            table.add_row(*row)
        for attack in outcome.attacks:
            found = "" if attack.seconds_to_alert is None else f", {attack.seconds_to_alert:.2f} s to the first alert"
            table.add_row(f"{attack.kind.replace('_', ' ')} found", f"{attack.detected:,} of {attack.started:,}{found}")
        Console().print(table)
        click.echo(conclusion(outcome))
    for failure in outcome.failures:
        click.echo(f"run: {failure}", err=True)


def _steps(found: Capacity) -> Table:
    table = Table("events/s asked", "decided", "p50", "p99", "CPU us", "held", title=found.sentence)
    for step in found.steps:
        cpu = "" if step.cpu_us_per_event is None else f"{step.cpu_us_per_event:.1f}"
        row: list[Any] = [f"{step.rate:,.0f}", f"{step.events_per_second:,.0f}", ms(step.p50_ms), ms(step.p99_ms), cpu]
        table.add_row(*row, "yes" if step.held else step.why)
    return table


def _say(line: str) -> None:
    click.echo(line, err=True)
