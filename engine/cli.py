"""The commands: with engine/commands the only readers of arguments, and alone in making of an error an exit code."""

import functools
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click
import msgspec
import orjson

from engine.commands.audit import audit
from engine.commands.backtest import backtest
from engine.commands.bench import bench_cold_state, bench_features
from engine.commands.cases import cases
from engine.commands.control import control
from engine.commands.dlq import dlq
from engine.commands.features import features
from engine.commands.lists import lists
from engine.commands.models import models
from engine.commands.moves import promote, rollback
from engine.commands.options import (
    bootstrap_option,
    config_option,
    config_or_default,
    json_option,
    print_figures,
    print_json,
    required_config,
    with_bootstrap,
)
from engine.commands.policy import policy
from engine.commands.replay import replay
from engine.commands.state import state
from engine.config import client_settings, config_from_tree
from engine.errors import ConfigError, FatalError, TidegateError

if TYPE_CHECKING:
    from engine.events import Records

SECOND_SIGNAL_EXIT_CODE = 130


class Commands(click.Group):
    """Turns our errors into one line on standard error and their exit code."""

    def invoke(self, ctx: click.Context) -> object:
        """Runs a command."""
        try:
            return super().invoke(ctx)
        except TidegateError as error:
            click.echo(f"tidegate: {error}", err=True)
            ctx.exit(error.exit_code)


@click.group(cls=Commands)
@click.version_option(package_name="tidegate")
def main() -> None:
    """Scores payment transactions on Kafka in real time, with exact sliding windows.

    Exit codes: 0 well; 1 a check failed; 2 configuration or arguments; 3 broker away; 4 fenced by somebody else;
    5 going on would lose or corrupt something.
    """


main.add_command(replay)
main.add_command(backtest)
main.add_command(features)
main.add_command(state)
main.add_command(dlq)
main.add_command(models)
main.add_command(policy)
main.add_command(lists)
main.add_command(audit)
main.add_command(control)
main.add_command(cases)
models.add_command(promote)
models.add_command(rollback)


@main.command()
@config_option
@bootstrap_option
@click.option("--accept-cold-state", is_flag=True, help="Begin with the history that the topic still has.")
def run(config_file: str | None, bootstrap: str | None, accept_cold_state: bool) -> None:
    """Score the input topic until told to stop (SIGTERM and Ctrl-C drain; a second one kills).

    Of several workers with one application_id, each with a state.dir of its own, one scores; the others follow it.
    """
    from engine.serve import serve

    config = with_bootstrap(required_config(config_file), bootstrap)
    serve(config, stop_on_signals(), accept_cold_state=accept_cold_state)


def stop_on_signals() -> threading.Event:
    """An event that the first SIGTERM or Ctrl-C sets; the second one ends the process at once."""
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(SECOND_SIGNAL_EXIT_CODE)
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    return stop


@main.group()
def topics() -> None:
    """The topics that Tidegate reads and writes."""


@topics.command("apply")
@config_option
@bootstrap_option
@json_option
def topics_apply(config_file: str | None, bootstrap: str | None, as_json: bool) -> None:
    """Create what is missing, show what differs; delete and alter nothing."""
    from engine.kafka.client import admin_settings
    from engine.kafka.topics import apply
    from engine.topology import control_topics, wanted_topics

    config = with_bootstrap(config_or_default(config_file), bootstrap)
    wanted = list({spec.name: spec for spec in [*wanted_topics(config), *control_topics(config)]}.values())
    changes = {change.topic: change for change in apply(admin_settings(config), wanted)}
    if as_json:
        print_json([msgspec.to_builtins(change) for change in changes.values()])
        return
    for spec in wanted:
        change = changes.get(spec.name)
        click.echo(f"{spec.name}: {change.kind}: {change.detail}" if change else f"{spec.name}: as wanted")


@main.command()
@config_option
@bootstrap_option
@json_option
def doctor(config_file: str | None, bootstrap: str | None, as_json: bool) -> None:
    """Check broker, versions, topics, model, state directory, disk and clock; exit 1 where one fails."""
    from engine.doctor import examine

    config = with_bootstrap(config_or_default(config_file), bootstrap)
    findings = list(examine(config))
    if as_json:
        print_json([msgspec.to_builtins(finding) for finding in findings])
    else:
        for finding in findings:
            advice = f" -> {finding.advice}" if finding.advice else ""
            click.echo(f"{finding.verdict:8} {finding.check}: {finding.detail}{advice}")
    if any(finding.verdict == "failure" for finding in findings):
        click.get_current_context().exit(1)


@main.group(invoke_without_command=True)
@click.option("--profile", "profile_name", default="reference", show_default=True, help="A workload that ships.")
@click.option("--events", type=click.IntRange(10_000), help="How many events to measure; the profile's by default.")
@bootstrap_option
@json_option
@click.pass_context
def bench(context: click.Context, profile_name: str, events: int | None, bootstrap: str | None, as_json: bool) -> None:
    """Measure events/s and CPU per event on a real broker, and the libraries' floor beside it.

    Its commands measure single parts, without a broker.
    """
    if context.invoked_subcommand is not None:
        return
    from engine.bench import Workload
    from engine.bench import bench as run_bench
    from engine.kafka.floor import Chunk
    from loadtest.reference import profiles, read_profile

    if profile_name not in profiles():
        raise ConfigError(f"--profile {profile_name!r} is not one of {', '.join(profiles())}")
    profile = read_profile(profile_name)
    if events is not None:
        profile = profile.with_events(events)
    config = with_bootstrap(config_from_tree(profile.engine, Path(), os.environ, profile_name), bootstrap)

    def chunks(chunk_events: int) -> Iterator[Chunk]:
        return (Chunk(*rendered) for rendered in profile.rendered(chunk_events))

    workload = Workload(chunks, profile.prefill_events, profile.events, profile.warm_up_events, profile.partitions)
    figures = run_bench(config, workload, lambda line: click.echo(line, err=True))
    print_figures(figures, as_json=as_json)


batch_events_option = click.option(
    "--batch-events", type=click.IntRange(1), default=512, show_default=True, help="Events in a micro-batch."
)
bench.add_command(bench_features)
bench.add_command(bench_cold_state)


@bench.command("policy")
@click.option("--rules", type=click.IntRange(1, 1_000), default=50, show_default=True, help="How many rules.")
@click.option("--listed", type=click.IntRange(1), default=1_000_000, show_default=True, help="How many blocked cards.")
@batch_events_option
@json_option
def bench_policy(rules: int, listed: int, batch_events: int, as_json: bool) -> None:
    """Measure what rules, lists and reasons cost beside thresholds alone."""
    from engine.bench_policy import bench_policy as run_bench

    say = functools.partial(click.echo, err=True)
    print_figures(run_bench(_reference_batches(batch_events), rules, listed, say), as_json=as_json)


@bench.command("telemetry")
@click.option("--sample-rate", type=click.FloatRange(0, 1), default=0.01, show_default=True, help="Of approvals.")
@batch_events_option
@json_option
def bench_telemetry(sample_rate: float, batch_events: int, as_json: bool) -> None:
    """Measure what samples and counts cost beside the same decisions without them."""
    from engine.bench_telemetry import bench_telemetry as run_bench

    say = functools.partial(click.echo, err=True)
    print_figures(run_bench(_reference_batches(batch_events), sample_rate, say), as_json=as_json)


def _reference_batches(batch_events: int) -> "Iterator[Records]":
    """The reference stream without end, from one partition."""
    import numpy as np

    from engine.events import Records
    from loadtest.reference import read_profile

    first = 0
    for values, _keys, times_ms in read_profile("reference").rendered(batch_events):
        rows = np.arange(first, first + len(values))
        yield Records("bench", list(values), np.zeros(len(values), np.int64), rows, times_ms)
        first += len(values)


@main.command()
@click.option("--seconds", type=click.FloatRange(1), default=60.0, show_default=True, help="How long.")
@click.option("--rate", type=click.FloatRange(1), default=5_000.0, show_default=True, help="Events per second.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Another seed, other traffic.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures there.")
@click.option("--bootstrap", help="A real Kafka, HOST:PORT; by default a broker inside this process.")
def demo(seconds: float, rate: float, seed: int, json_file: Path | None, bootstrap: str | None) -> None:
    """Watch synthetic traffic being scored: latency, decisions, and which of its attacks are found.

    Uses topics of its own and removes them. Exits with 1 where decisions + dead letters + duplicates are not the events
    that were sent, or the engine falls further behind than the embedded broker's memory allows.
    """
    from rich.console import Console

    from engine.observe.logs import masked
    from engine.sandbox import sandbox
    from loadtest.demo import Target, demo_traffic, run_demo
    from loadtest.errors import LoadTestError
    from loadtest.view import summary

    stop, console = stop_on_signals(), Console()
    with sandbox(bootstrap) as own:
        kafka = own.config.kafka
        target = Target(
            name=f"Kafka at {bootstrap}" if bootstrap else "the embedded broker",
            client={**client_settings(own.config), "bootstrap.servers": kafka.bootstrap},
            input=kafka.input,
            decisions=kafka.topics.decisions,
            alerts=kafka.topics.alerts,
            dead_letters=kafka.topics.dead_letters,
            linger_ms=own.linger_ms(rate),
            backlog_events_max=own.backlog_events_max,
        )
        try:
            report = run_demo(target, own.worker, demo_traffic(rate, seed), seconds, stop, mask=masked, console=console)
        except LoadTestError as error:
            raise FatalError(str(error)) from error
    if report is None:
        return
    console.print(summary(report))
    if json_file is not None:
        json_file.write_bytes(orjson.dumps(report.as_json(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    if report.failures():
        click.get_current_context().exit(1)
