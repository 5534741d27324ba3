"""Workloads of the benchmark: a profile's stream, rendered."""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

from loadtest.columns import Int64
from loadtest.render import render
from loadtest.settings import DAY_S, TrafficSettings
from loadtest.traffic import chunks


@dataclass(frozen=True, slots=True)
class Profile:
    """A workload as its file describes it; `engine` is the configuration it runs under, as a tree."""

    events: int
    warm_up_events: int
    prefill_events: int
    partitions: int
    days: float
    traffic: TrafficSettings
    engine: dict[str, Any]

    def with_events(self, events: int) -> "Profile":
        """The same stream, with so many events measured; the share of warm-up stays."""
        return replace(self, events=events, warm_up_events=self.warm_up_events * events // self.events)

    def rendered(self, chunk_events: int) -> Iterator[tuple[list[bytes], list[bytes], Int64]]:
        """JSON values, card numbers as keys, and event times in ms, over and over from the stream's beginning."""
        rate = (self.prefill_events + self.events) / (self.days * DAY_S)
        for traffic in chunks(replace(self.traffic, events_per_second=rate), chunk_events):
            keys = [b"%d" % number for number in traffic.card_numbers.tolist()]
            yield render(traffic), keys, traffic.times_ms


def profiles() -> list[str]:
    """Names of the profiles in the package."""
    folder = resources.files("loadtest.profiles")
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def read_profile(name: str) -> Profile:
    """Reads a shipped profile; KeyError where there is none of that name."""
    if name not in profiles():
        raise KeyError(f"{name!r} is no profile; there are: {', '.join(profiles())}")
    tree = tomllib.loads(resources.files("loadtest.profiles").joinpath(f"{name}.toml").read_text("utf-8"))
    return Profile(**{**tree, "traffic": TrafficSettings(**tree["traffic"])})
