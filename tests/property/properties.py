"""What must hold of windows whatever is sent: each property is a function of a tally and drawn streams.

`tests/property/test_windows.py` tries each on a thousand examples, `scripts/prove-features` on as many as it is told.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from tests.build import full_config
from tests.oracle.compare import Tally
from tests.oracle.events import Event
from tests.property import streams
from tests.property.machine import machine
from tests.property.run import Run, Setting, batches

WINDOWS = ("10s", "1m", "1h")
# With these an entity is forgotten 40 seconds after it was last heard of, which is well within a stream.
SHORT_WINDOWS = ("5s", "20s")
SHORT_HORIZON = "10s"

orders = st.lists(st.integers(0, streams.PARTITIONS - 1), max_size=streams.EVENTS_MAX)


# An entity's values without a window share one flag. So that the most careful of them does not answer for the others,
# half of the examples have but one of them: "" stands for every form of every aggregate.
WINDOWLESS = ("since_last", "since_last.small", "since_first", "last.amount", "last.merchant", "last.city", "geo_speed")
chosen = st.sampled_from(("",) * len(WINDOWLESS) + WINDOWLESS)


@cache
def remembering(ring_events_max: int, windows: tuple[str, ...] = WINDOWS, only: str = "") -> Setting:
    """Nothing is ever forgotten."""
    return Setting(full_config(windows, ring_events_max, ["count", only] if only else None))


@cache
def forgetful(ring_events_max: int, only: str = "") -> Setting:
    """Entities are forgotten soon."""
    return Setting(
        full_config(
            SHORT_WINDOWS,
            ring_events_max,
            ["count", only] if only else None,
            merchant_windows=("5s", "30s"),
            horizon_past=SHORT_HORIZON,
        )
    )


def whole_rings(tally: Tally, stream: list[streams.Item], cuts: list[int]) -> None:
    """As long as rings hold everything, every value is exact, in any order of events."""
    Run(remembering(64), tally).send_in(streams.numbered(stream), cuts, promised=True)
    assert tally.exact == tally.compared


def overflow(tally: Tally, stream: list[streams.Item], cuts: list[int], only: str) -> None:
    """Rings of four overflow; what is flagged exact is, and nothing is flagged inexact without need."""
    Run(remembering(4, only=only), tally).send_in(streams.numbered(stream), cuts, promised=True)


def interleavings(tally: Tally, stream: list[streams.Item], order: list[int], cuts: list[int]) -> None:
    """However partitions are interleaved and batches cut, the state is the same to the byte."""
    events = streams.numbered(stream)
    one, other = Run(remembering(4), tally), Run(remembering(4), tally)
    one.send(events, compared=False)
    other.send_in(streams.shuffled(events, order), cuts)
    one.flush()
    other.flush()
    assert one.entities() == other.entities()
    assert sorted(event.sequence for event in one.accepted) == sorted(event.sequence for event in other.accepted)


def restarts(tally: Tally, stream: list[streams.Item], cuts: list[int], ring_events_max: int) -> None:
    """Written and read back between any two batches: not one bit differs from a run in one go."""
    twice(remembering(ring_events_max), tally, streams.numbered(stream), cuts)


def forgetting(tally: Tally, stream: list[streams.Item], cuts: list[int], ring_events_max: int, only: str) -> None:
    """Entities not heard of for the TTL are forgotten, and no value that is wrong thereby is flagged exact."""
    twice(forgetful(ring_events_max, only), tally, streams.numbered(stream), cuts).check_deletion()


def twice(setting: Setting, tally: Tally, events: list[Event], cuts: list[int]) -> Run:
    """Runs once in one go and once with restarts in between, with the same values to the bit; returns the latter."""
    whole, run = Run(setting, tally), Run(setting, tally)
    whole.send(events, promised=True)
    for batch in batches(events, cuts):
        run.send(batch, compared=False)
        run.restart()
    assert run.bits == whole.bits
    tally.bits += len(run.bits) * len(run.comparison.names)
    return run


def cold(tally: Tally, stream: list[streams.Item], unseen: int, ring_events_max: int, only: str) -> None:
    """A state that begins in the middle of a stream knows what it cannot know."""
    events = streams.numbered(stream)
    unseen %= len(events)
    run = Run(remembering(ring_events_max, only=only), tally, unseen=events[:unseen])
    if unseen:
        run.state.begin_cold(max(event.time_ms for event in events[:unseen]))
    run.send_in(events[unseen:], [unseen + 3])
    run.restart()
    run.look("card", "a", streams.START_MS + 60_000)


def further_windows(tally: Tally, stream: list[streams.Item], cuts: list[int], ring_events_max: int) -> None:
    """A window that is added to a running state is right at once where it is exact."""
    events = streams.numbered(stream)
    few, more = remembering(ring_events_max, ("1m",)), remembering(ring_events_max, ("10s", "1m", "20m"))
    run = Run(few, tally)
    for number, batch in enumerate(batches(events, cuts)):
        run.send(batch)
        run.restart(few if number % 3 == 2 else more)
        assert run.setting.fingerprint == run.state.header.fingerprint


@dataclass(frozen=True)
class Property:
    """One property, which is worth nothing unless some exact values were of the kind that `needs` names in a tally."""

    name: str
    check: Callable[..., None]
    strategies: tuple[st.SearchStrategy, ...]
    needs: tuple[str, ...] = ("overflowed_exact",)

    @property
    def says(self) -> str:
        return (self.check.__doc__ or "").partition("\n")[0]

    def try_out(self, examples: int, start: int, tally: Tally) -> None:
        """Tries so many examples, the same for the same start; AssertionError with the smallest that fails."""

        def tried(drawn: tuple) -> None:
            tally.examples += 1
            found = Tally()
            self.check(found, *drawn)
            tally.add(found)

        seed(start)(_settings(examples)(given(st.tuples(*self.strategies))(tried)))()


@dataclass(frozen=True)
class MachineProperty(Property):
    """A state machine: its rules in any order."""

    def try_out(self, examples: int, start: int, tally: Tally) -> None:
        run_state_machine_as_test(seed(start)(machine(tally)), settings=_settings(examples))


def _settings(examples: int) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        stateful_step_count=15,
    )


FORGETS = ("overflowed_exact", "forgotten_exact")
DELETES = (*FORGETS, "deleted")
_any_scale = streams.items(scales=(1, 1, 20, 1_000))
PROPERTIES = {
    found.name: found
    for found in (
        Property("whole_rings", whole_rings, (_any_scale, streams.cuts), needs=()),
        Property("overflow", overflow, (_any_scale, streams.cuts, chosen)),
        Property("interleavings", interleavings, (_any_scale, orders, streams.cuts)),
        Property("restarts", restarts, (_any_scale, streams.cuts, st.sampled_from([4, 8]))),
        Property("forgetting", forgetting, (streams.items(), streams.cuts, st.sampled_from([4, 64]), chosen), DELETES),
        Property("cold", cold, (streams.items(), st.integers(0, streams.EVENTS_MAX), st.sampled_from([4, 64]), chosen)),
        Property("further_windows", further_windows, (streams.items(), streams.cuts, st.sampled_from([4, 8]))),
        MachineProperty("machine", machine, (), FORGETS),
    )
}
