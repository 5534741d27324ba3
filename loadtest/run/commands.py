"""`python -m loadtest run` and `capacity`."""

import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import click
import orjson

from loadtest.errors import LoadTestError
from loadtest.run.capacity import Search, find_capacity
from loadtest.run.conduct import conduct
from loadtest.run.profile import LoadProfile, read_load_profile
from loadtest.run.speed import speed as measure_speed
from loadtest.run.target import Endpoint, own_target

Outcome = dict[str, Any]
Options = Callable[[Callable[..., None]], Callable[..., None]]


def target_options(command: Callable[..., None]) -> Callable[..., None]:
    """Options of both commands: where the engine is."""
    options: list[Options] = [
        click.option("--bootstrap", help="A Kafka, HOST:PORT; else KAFKA_BOOTSTRAP_SERVERS, or the noted one, or one "
                     "that is started."),
        click.option("--external", is_flag=True, help="An engine runs already; needs --bootstrap."),
        click.option("--input", "input_topic", default="transactions", show_default=True, help="With --external."),
        click.option("--decisions", default="decisions", show_default=True, help="With --external."),
        click.option("--alerts", default="alerts", show_default=True, help="With --external."),
        click.option("--dead-letters", default="dead-letters", show_default=True, help="With --external."),
        click.option("--metrics", help="With --external: URL of its /metrics, for CPU, memory, lag and stages."),
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
        click.option("--report", type=click.Path(path_type=Path, file_okay=False), help="Folder for page, pictures."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@click.option("--profile", "name", default="smoke", show_default=True, help="A profile that ships, or a file.")
@click.option("--delivery", type=click.Choice(["at_least_once", "exactly_once"]), help="Instead of the profile's.")
@target_options
def run(*, name: str, delivery: str | None, as_json: bool, report: Path | None, **where: Any) -> None:
    """Send a load by its plan and measure from when each event was due to the arrival of its decision.

    Exits with 1 where the result is not valid, or an event is missing or was decided twice.
    """
    with _one_line_errors("run"):
        profile = with_delivery(read_load_profile(name), delivery)
        _say(f"{profile.name}: {profile.plan.events:,} events in {profile.plan.seconds:g} s, {profile.delivery}, "
             f"the first {profile.warm_up_s:g} s not counted")  # fmt: skip
        with _stop_on_signals() as stop, _target(profile, **where) as endpoint:
            figures = conduct(profile, endpoint, _say, stop)
        if report is not None:
            from loadtest.run.report import write_report  # noqa: PLC0415  needs the extra `train`

            write_report(report, figures)
    if as_json:
        sys.stdout.buffer.write(orjson.dumps(figures, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    else:
        for line in summary(figures):
            click.echo(line)
    for reason in figures["invalid_because"]:
        click.echo(f"run: not valid: {reason}", err=True)
    sys.exit(0 if figures["valid"] and not figures["missing"] and not figures["duplicated"] else 1)


@click.command()
@click.option("--profile", "name", default="smoke", show_default=True, help="Its traffic and engine; not its plan.")
@click.option("--delivery", type=click.Choice(["at_least_once", "exactly_once"]), help="Instead of the profile's.")
@click.option("--p99-ms", type=click.FloatRange(0, min_open=True), default=100.0, show_default=True, help="The bound.")
@click.option("--first", type=click.FloatRange(1), default=5_000.0, show_default=True, help="Events/s to begin with.")
@click.option("--factor", type=click.FloatRange(1.01), default=1.4, show_default=True, help="From step to step.")
@click.option("--halvings", type=click.IntRange(0), default=2, show_default=True, help="Steps to narrow it down.")
@click.option("--rate-max", type=click.FloatRange(1), default=200_000.0, show_default=True, help="Not beyond.")
@click.option("--warm-up-s", type=click.FloatRange(0), default=10.0, show_default=True, help="Of each step.")
@click.option("--seconds", type=click.FloatRange(1), default=20.0, show_default=True, help="Counted, of each step.")
@target_options
def capacity(
    *, name: str, delivery: str | None, p99_ms: float, first: float, factor: float, halvings: int, rate_max: float,
    warm_up_s: float, seconds: float, as_json: bool, report: Path | None, **where: Any,
) -> None:  # fmt: skip
    """Find the highest rate that is held with p99 under a bound, the latency on the way there, and its knee.

    Exits with 1 where a step could not be sent as meant, or no rate was held.
    """
    with _one_line_errors("capacity"):
        profile = with_delivery(read_load_profile(name), delivery)
        search = Search(first, factor, halvings, rate_max, p99_ms)
        with _stop_on_signals() as stop, _target(profile, **where) as endpoint:
            figures = find_capacity(profile, endpoint, search, (warm_up_s, seconds), _say, stop)
        if report is not None:
            from loadtest.run.report import write_capacity_report  # noqa: PLC0415  needs the extra `train`

            write_capacity_report(report, figures)
    if as_json:
        sys.stdout.buffer.write(orjson.dumps(figures, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    else:
        for step in figures["steps"]:
            click.echo(f"{step['rate']:10,.0f} events/s  {'held' if step['held'] else 'not held'}  "
                       f"p50 {_ms(step['p50_ms'])}  p99 {_ms(step['p99_ms'])}")  # fmt: skip
        click.echo(f"highest rate held: {figures['capacity_per_second'] or 0:,.0f} events/s, knee: "
                   f"{figures['knee_per_second'] or 0:,.0f}; {figures['ended_because']}")  # fmt: skip
    for reason in figures["invalid_because"]:
        click.echo(f"capacity: not valid: {reason}", err=True)
    sys.exit(0 if figures["valid"] and figures["capacity_per_second"] else 1)


@click.command()
@click.option("--events", type=click.IntRange(5_000), default=500_000, show_default=True, help="How many to make.")
def speed(events: int) -> None:
    """Print as JSON how many events a second one core makes and renders."""
    found = measure_speed(events)
    sys.stdout.buffer.write(orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def with_delivery(profile: LoadProfile, delivery: str | None) -> LoadProfile:
    """The profile under another delivery guarantee, if one is named."""
    return profile if delivery is None else replace(profile, delivery=delivery)


def summary(figures: Outcome) -> list[str]:
    """The figures that matter most, a line each."""
    cpu = figures["cpu_us_per_event"]
    return [
        f"sent {figures['sent']:,}  decided {figures['decided']:,}  dead letters {figures['dead_letters']:,}  "
        f"duplicated {figures['duplicated']:,}  missing {figures['missing']:,}",
        f"p50 {_ms(figures['p50_ms'])}  p99 {_ms(figures['p99_ms'])}  p99.9 {_ms(figures['p999_ms'])}  "
        f"max {_ms(figures['max_ms'])}  over {figures['events_counted']:,} events",
        "CPU of the worker: " + ("not known, no --metrics" if cpu is None else f"{cpu:.1f} us per event"),
    ]


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f} ms"


@contextmanager
def _target(profile: LoadProfile, *, external: bool, bootstrap: str | None, input_topic: str, decisions: str,
            alerts: str, dead_letters: str, metrics: str | None) -> Iterator[Endpoint]:  # fmt: skip
    if external:
        if bootstrap is None:
            raise click.UsageError("--external: say where with --bootstrap")
        yield Endpoint(bootstrap, input_topic, decisions, alerts, dead_letters, metrics)
        return
    with tempfile.TemporaryDirectory(prefix="tidegate-load-") as folder:
        address = bootstrap or os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
        with own_target(profile, address, Path(folder)) as endpoint:
            yield endpoint


@contextmanager
def _one_line_errors(name: str) -> Iterator[None]:
    try:
        yield
    except LoadTestError as error:
        click.echo(f"{name}: {error}", err=True)
        sys.exit(1)


@contextmanager
def _stop_on_signals() -> Iterator[threading.Event]:
    """Set by the first Ctrl-C or SIGTERM within; a second one ends at once."""
    stop = threading.Event()

    def note(number: int, _: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(line: str) -> None:
    click.echo(line, err=True)
