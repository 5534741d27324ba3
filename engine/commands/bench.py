"""`tidegate bench features` and `cold-state`: what single parts cost, measured without a broker."""

import click

from engine.commands.options import json_option, print_figures

MIB = 1024 * 1024


@click.command("features")
@click.option("--entities", type=click.IntRange(1), help="How many entities share the events that are timed.")
@click.option("--repetitions", type=click.IntRange(1), help="How often 204,800 events are timed.")
@click.option("--streams", type=click.IntRange(1), help="Streams of each kind that are compared with brute force.")
@json_option
def bench_features(entities: int | None, repetitions: int | None, streams: int | None, as_json: bool) -> None:
    """Measure what windows cost, how far off they are beyond the ring, and what an entity weighs.

    Takes some minutes, and 2 GB of memory for each 100,000 entities.
    """
    from engine.bench_features import Size
    from engine.bench_features import bench_features as run_bench

    asked = {"entities": entities, "repetitions": repetitions, "streams": streams}
    size = Size(**{name: number for name, number in asked.items() if number is not None})
    print_figures(run_bench(size, lambda line: click.echo(line, err=True)), as_json=as_json)


@click.command("cold-state")
@click.option("--entities", type=click.IntRange(4), default=5_000_000, show_default=True, help="How many are on disk.")
@click.option("--events", type=click.IntRange(1), help="How many events; by default as many as have unread entities.")
@click.option("--budget-mib", type=click.IntRange(64), default=512, show_default=True, help="Memory for state.")
@json_option
def bench_cold_state(entities: int, events: int | None, budget_mib: int, as_json: bool) -> None:
    """Measure events of which every entity must be read from disk, and how much memory that takes."""
    from engine.bench_cold import bench_cold

    figures = bench_cold(entities, events, budget_mib * MIB, lambda line: click.echo(line, err=True))
    print_figures(figures, as_json=as_json)
