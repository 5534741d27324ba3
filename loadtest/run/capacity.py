"""The highest rate that a worker holds with p99 within a bound, and how latency grows on the way there."""

from collections.abc import Callable
from dataclasses import replace

import msgspec
import numpy as np

from loadtest.run.outcome import Outcome
from loadtest.run.profile import PieceSettings
from loadtest.run.run import Asked, Say, run
from loadtest.run.stage import Target
from loadtest.run.text import ms

# Rates grow by this factor while they are held, and then halve the gap so often.
GROWTH = 1.5
HALVINGS = 3
STEPS_MAX = 20
# What is sent before each rate counts: the first step warms up a broker that may be new.
WARM_UP_FIRST_S, WARM_UP_S = 30.0, 5.0
FELL_BEHIND = "the generator fell behind"
# Of the rate asked for, what must be decided for it to be held.
DECIDED_SHARE_MIN = 0.98


class Bound(msgspec.Struct, frozen=True):
    """What is asked: p99 in ms, the first rate in events per second, and for how long each counts."""

    p99_ms: float
    first: float
    seconds: float


class Step(msgspec.Struct, frozen=True):
    """One rate: whether it was held, or `why` not."""

    rate: float
    events_per_second: float
    p50_ms: float | None
    p99_ms: float | None
    cpu_us_per_event: float | None
    held: bool
    why: str


class Capacity(msgspec.Struct, frozen=True):
    """The highest rate that was held, 0 where none was; the rate at the curve's knee, None where there is none.

    `limited_by_generator`: the next rate could not be sent as planned, so that it is not known what the worker does
    with it. It may hold more.
    """

    profile: str
    delivery: str
    bound: Bound
    events_per_second: float
    knee_events_per_second: float | None
    limited_by_generator: bool
    steps: list[Step]

    @property
    def sentence(self) -> str:
        """What was found."""
        knee = (
            ""
            if self.knee_events_per_second is None
            else f"; the curve's knee is at {self.knee_events_per_second:,.0f}"
        )
        if self.limited_by_generator:
            knee += "; the generator fell behind with more, so the worker may hold more"
            if not self.events_per_second:
                return (
                    f"the generator fell behind at {self.bound.first:,.0f} events/s, which says nothing of the worker"
                )
        if not self.events_per_second:
            return f"not even {self.bound.first:,.0f} events/s are held with p99 within {self.bound.p99_ms:g} ms"
        return f"{self.events_per_second:,.0f} events/s are held with p99 within {self.bound.p99_ms:g} ms{knee}"


def find_capacity(asked: Asked, target: Target, bound: Bound, say: Say) -> Capacity:
    """Tries rates on one worker that goes on running; raises as `run`."""

    def attempt(rate: float, warm_up_s: float) -> Step:
        piece = PieceSettings(bound.seconds, rate)
        profile = msgspec.structs.replace(asked.profile, plan=[piece], warm_up_s=warm_up_s)
        step = judged(rate, run(replace(asked, profile=profile), target, say), bound)
        say(f"{rate:,.0f} events/s: p99 {ms(step.p99_ms)}, {'held' if step.held else step.why}")
        return step

    steps = sorted(search(attempt, bound.first), key=lambda step: step.rate)
    held = [step.rate for step in steps if step.held]
    best = max(held, default=0.0)
    return Capacity(asked.name, target.delivery, bound, best, knee(steps), limited_by_generator(steps), steps)


def search(attempt: Callable[[float, float], Step], first: float) -> list[Step]:
    """Steps up by a constant factor until a rate is not held, then halves the gap between it and the last that was."""
    steps = [attempt(first, WARM_UP_FIRST_S)]
    while steps[-1].held and len(steps) < STEPS_MAX:
        steps.append(attempt(steps[-1].rate * GROWTH, WARM_UP_S))
    if len(steps) == 1 or steps[-1].held:
        return steps
    low, high = steps[-2].rate, steps[-1].rate
    for _ in range(HALVINGS):
        steps.append(attempt((low + high) / 2, WARM_UP_S))
        low, high = (steps[-1].rate, high) if steps[-1].held else (low, steps[-1].rate)
    return steps


def limited_by_generator(steps: list[Step]) -> bool:
    """Whether the lowest rate that was not held says nothing of the worker; `steps` are sorted by rate."""
    lowest = next((step for step in steps if not step.held), None)
    return lowest is not None and lowest.why == FELL_BEHIND


def judged(rate: float, outcome: Outcome, bound: Bound) -> Step:
    """Whether a rate was held."""
    why = ""
    if not outcome.valid:
        why = FELL_BEHIND
    elif outcome.missing or outcome.duplicated:
        why = f"{outcome.missing:,} missing, {outcome.duplicated:,} doubled"
    elif outcome.p99_ms is None or outcome.p99_ms > bound.p99_ms:
        why = "p99 beyond the bound"
    elif outcome.events_per_second < DECIDED_SHARE_MIN * rate:
        why = "decided more slowly than sent"
    return Step(rate, outcome.events_per_second, outcome.p50_ms, outcome.p99_ms, outcome.cpu_us_per_event, not why, why)


def knee(steps: list[Step]) -> float | None:
    """The rate where the curve of p99 by rate bends most; None for fewer than three points, or a curve that does not.

    Where the curve, both axes scaled to 0..1, is furthest below its chord: Satopaa et al., Finding a "Kneedle" in a
    Haystack, 2011, for a convex increasing curve, without its smoothing.
    """
    points = [(step.rate, step.p99_ms) for step in steps if step.p99_ms is not None]
    if len(points) < 3:
        return None
    rates, latencies = np.array(points).T
    if np.ptp(latencies) == 0:
        return None
    below = (rates - rates[0]) / np.ptp(rates) - (latencies - latencies.min()) / np.ptp(latencies)
    return float(rates[below.argmax()]) if below.max() > 0 else None
