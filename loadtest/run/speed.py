"""How fast one core makes events and renders them, which is what the generator does beside sending."""

import time

from loadtest.render import render
from loadtest.settings import TrafficSettings
from loadtest.traffic import chunks

CHUNK_EVENTS = 5_000


def speed(events: int) -> dict[str, float]:
    """Events per second of CPU time: made, rendered, and both."""
    stream = chunks(TrafficSettings(), CHUNK_EVENTS)
    next(stream)  # draws the population
    made_s = rendered_s = 0.0
    rounds = max(1, events // CHUNK_EVENTS)
    for _ in range(rounds):
        began = time.process_time()
        traffic = next(stream)
        made = time.process_time()
        render(traffic)
        rendered_s += time.process_time() - made
        made_s += made - began
    total = rounds * CHUNK_EVENTS
    return {
        "made_per_second": total / made_s,
        "rendered_per_second": total / rendered_s,
        "both_per_second": total / (made_s + rendered_s),
    }
