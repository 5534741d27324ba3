"""How fast one core makes events and renders them: all that the driver does beside sending them."""

import sys
import time

import click
import orjson

from loadtest.render import render
from loadtest.settings import TrafficSettings
from loadtest.traffic import chunks

CHUNK_EVENTS = 5_000


def measured(events: int) -> dict[str, float]:
    """Events per second of CPU time, for about so many events: made, rendered, and both, one after the other."""
    stream = chunks(TrafficSettings(), CHUNK_EVENTS)
    next(stream)  # draws the population
    made_s = rendered_s = 0.0
    rounds = max(1, round(events / CHUNK_EVENTS))
    for _ in range(rounds):
        began = time.process_time()
        traffic = next(stream)
        made = time.process_time()
        render(traffic)
        rendered_s += time.process_time() - made
        made_s += made - began
    total = rounds * CHUNK_EVENTS
    return {
        "events": total,
        "made_per_second": round(total / made_s),
        "rendered_per_second": round(total / rendered_s),
        "events_per_second": round(total / (made_s + rendered_s)),
    }


@click.command()
@click.option("--events", type=click.IntRange(10_000), default=500_000, show_default=True, help="How many to make.")
def speed(events: int) -> None:
    """Print as JSON how many events a second one core makes and renders."""
    sys.stdout.buffer.write(orjson.dumps(measured(events), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
