"""The highest rate that is held, the curve of latency over throughput on the way there, and its knee.

    rate  5,000 -> 7,500 -> 11,250 -> 16,900 (not held)
                                 `-> 14,100 -> 15,500 ...      halfway between held and not held, a few times

All steps run on one worker, one after the other, each with a warm-up that is not counted.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from loadtest.errors import LoadTestError
from loadtest.run.conduct import conduct
from loadtest.run.outcome import machine
from loadtest.run.profile import LoadProfile
from loadtest.run.target import Endpoint

KEPT = (
    "valid", "invalid_because", "sent", "decided", "missing", "duplicated", "p50_ms", "p99_ms", "p999_ms", "max_ms",
    "events_per_second", "cpu_us_per_event",
)  # fmt: skip

Step = dict[str, Any]
Measure = Callable[[float], Step]


@dataclass(frozen=True, slots=True)
class Search:
    """`first` events/s, `factor` times as many each step, then `halvings` steps between the last two."""

    first: float = 5_000.0
    factor: float = 1.4
    halvings: int = 2
    rate_max: float = 200_000.0
    p99_bound_ms: float = 100.0


def held(step: Step, p99_bound_ms: float) -> bool:
    """Whether a rate was held: sent as meant, all decided once, and soon enough."""
    p99_ms = step["p99_ms"]
    decided = not step["missing"] and not step["duplicated"]
    return bool(step["valid"] and decided and p99_ms is not None and p99_ms <= p99_bound_ms)


def climb(search: Search, measure: Measure) -> tuple[list[Step], str]:
    """The steps in the order in which they were made, each with `rate` and `held`, and why no more were made.

    Ends at once where the generator could not send a rate: the engine's limit is not known then.
    """
    steps: list[Step] = []
    rate, low, high = search.first, 0.0, 0.0
    while rate <= search.rate_max:
        step = {"rate": rate, **measure(rate)}
        step["held"] = held(step, search.p99_bound_ms)
        steps.append(step)
        if not step["valid"]:
            return steps, f"{rate:,.0f} events/s could not be sent as meant, which says nothing of the engine"
        if step["held"]:
            low = rate
        else:
            high = rate
        if high and (low == 0.0 or len(steps) - steps.index(_first_not_held(steps)) > search.halvings):
            return steps, f"{high:,.0f} events/s was not held"
        rate = (low + high) / 2 if high else rate * search.factor
    return steps, f"the search was to end at {search.rate_max:,.0f} events/s"


def _first_not_held(steps: list[Step]) -> Step:
    return next(step for step in steps if not step["held"])


def knee(rates: list[float], latencies_ms: list[float]) -> float | None:
    """The rate at the knee of a rising curve; None with fewer than three points, or where nothing bends upwards.

    Kneedle's definition (Satopaa et al., "Finding a Kneedle in a Haystack", ICDCS workshops 2011): with both axes
    scaled to 0..1, the point furthest below the straight line from the first point to the last.

    >>> knee([1.0, 2.0, 3.0, 4.0], [1.0, 1.1, 1.3, 9.0])
    3.0
    """
    points = sorted(zip(rates, latencies_ms, strict=True))
    if len(points) < 3:
        return None
    (x0, y0), (x1, y1) = points[0], points[-1]
    if x1 <= x0 or y1 <= y0:
        return None
    below, rate = max(((x - x0) / (x1 - x0) - (y - y0) / (y1 - y0), x) for x, y in points)
    return rate if below > 0 else None


def find_capacity(
    profile: LoadProfile,
    endpoint: Endpoint,
    search: Search,
    seconds: tuple[float, float],
    say: Callable[[str], None],
    stop: threading.Event,
) -> dict[str, Any]:
    """What `capacity --json` prints; `seconds` of warm-up and of counting each step has. Raises LoadTestError."""

    def measure(rate: float) -> Step:
        say(f"{rate:,.0f} events/s")
        figures = conduct(profile.at_rate(*seconds, rate), endpoint, say, stop)
        if stop.is_set():
            raise LoadTestError("stopped before the end")
        return {key: figures[key] for key in KEPT}

    steps, ended = climb(search, measure)
    held_rates = [step["rate"] for step in steps if step["held"]]
    timed = [step for step in steps if step["valid"] and step["p99_ms"] is not None]
    return {
        "profile": profile.name,
        "delivery": profile.delivery,
        "valid": all(step["valid"] for step in steps),
        "invalid_because": [reason for step in steps for reason in step["invalid_because"]],
        "capacity_per_second": max(held_rates, default=None),
        "knee_per_second": knee([step["rate"] for step in timed], [step["p99_ms"] for step in timed]),
        "p99_bound_ms": search.p99_bound_ms,
        "warm_up_s": seconds[0],
        "seconds": seconds[1],
        "ended_because": ended,
        "steps": steps,
        "seed": profile.traffic.seed,
        "machine": machine(),
    }
