"""A profile: what is sent when, and to what kind of worker."""

import tomllib
from dataclasses import fields
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import msgspec

from loadtest.errors import LoadTestError
from loadtest.plan import Piece, Plan
from loadtest.settings import TrafficSettings

Delivery = Literal["exactly_once", "at_least_once"]
Isolation = Literal["read_committed", "read_uncommitted"]
# What the plan and the run decide.
_NOT_OF_TRAFFIC = {"events_per_second", "start_time_ms", "diurnal_amplitude"}


class PieceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A piece of the plan: `rate` events per second, or in a straight line to `to`."""

    seconds: float
    rate: float
    to: float | None = None


class Mark(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What somebody does to the system so many seconds after counting begins, to be seen over the latencies."""

    at_s: float
    text: str


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A profile as its file describes it.

    `linger_ms`: how long the driver's producer waits for more than what is due within a tick of 2 ms. `warm_up_s`: for
    how long the plan's first rate is sent before, which does not count. `engine` is the worker's configuration, as far
    as it is not the default.
    """

    plan: list[PieceSettings]
    warm_up_s: float = 20.0
    partitions: int = 12
    delivery: Delivery = "exactly_once"
    isolation: Isolation = "read_committed"
    linger_ms: float = 2.0
    marks: list[Mark] = []
    traffic: dict[str, Any] = {}
    engine: dict[str, Any] = {}

    def planned(self) -> Plan:
        """The plan with its warm-up; ValueError where it makes no sense."""
        pieces = [Piece(one.seconds, one.rate, one.rate if one.to is None else one.to) for one in self.plan]
        return Plan(pieces).after(self.warm_up_s)

    def settings(self, seed: int | None, start_time_ms: int) -> TrafficSettings:
        """The traffic, by another seed if asked for; ValueError where it makes no sense."""
        known = {field.name for field in fields(TrafficSettings)} - _NOT_OF_TRAFFIC
        if unknown := sorted(self.traffic.keys() - known):
            raise ValueError(f"traffic.{unknown[0]}: no such key; there are: {', '.join(sorted(known))}")
        chosen = self.traffic if seed is None else {**self.traffic, "seed": seed}
        return TrafficSettings(**chosen, start_time_ms=start_time_ms)


def shipped() -> list[str]:
    """Names of the profiles in the package."""
    folder = resources.files("loadtest.run").joinpath("profiles")
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def read_profile(name: str) -> Profile:
    """A shipped profile, or one in a file whose name ends in .toml; LoadTestError says what is wrong with it."""
    if name.endswith(".toml"):
        try:
            text = Path(name).read_text("utf-8")
        except OSError as error:
            raise LoadTestError(f"{name} cannot be read: {error.strerror}") from error
    elif name in shipped():
        text = resources.files("loadtest.run").joinpath("profiles", f"{name}.toml").read_text("utf-8")
    else:
        raise LoadTestError(f"{name!r} is no profile and no .toml file; profiles are: {', '.join(shipped())}")
    try:
        profile = msgspec.convert(tomllib.loads(text), Profile)
        profile.planned()
        profile.settings(None, 0)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, ValueError, TypeError) as error:
        raise LoadTestError(f"profile {name}: {error}") from error
    return profile
