"""A load as its file describes it: when events come, what they are, and how they are delivered and counted."""

import tomllib
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from loadtest.errors import LoadTestError
from loadtest.plan import Piece, Plan
from loadtest.settings import TrafficSettings


class _Step(msgspec.Struct, forbid_unknown_fields=True):
    """A piece of the plan; without `rate_to` the rate stays."""

    seconds: float
    rate: float
    rate_to: float | None = None


class _Mark(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Something to be marked in pictures, so many seconds after the first event."""

    at_s: float
    text: str


class _File(msgspec.Struct, forbid_unknown_fields=True):
    plan: list[_Step]
    delivery: str = "at_least_once"
    isolation: str = "read_committed"
    warm_up_s: float = 0.0
    partitions: int = 6
    traffic: dict[str, Any] = {}
    engine: dict[str, Any] = {}
    marks: list[_Mark] = []


@dataclass(frozen=True, slots=True)
class LoadProfile:
    """What is measured. Events due in the first `warm_up_s` are sent and must be decided, but their latency is not
    counted. `engine` holds tables of `tidegate run`'s configuration; `marks` are (seconds, text)."""

    name: str
    plan: Plan
    traffic: TrafficSettings
    delivery: str
    isolation: str
    warm_up_s: float
    partitions: int
    engine: dict[str, Any]
    marks: tuple[tuple[float, str], ...]

    def at_rate(self, warm_up_s: float, seconds: float, rate: float) -> "LoadProfile":
        """The same events at one constant rate, with so long a warm-up before the counted seconds."""
        plan = Plan([Piece(warm_up_s + seconds, rate, rate)])
        traffic = replace(self.traffic, events_per_second=rate)
        return replace(self, plan=plan, traffic=traffic, warm_up_s=warm_up_s, marks=())


def profile_names() -> list[str]:
    """Names of the profiles in the package."""
    folder = resources.files("loadtest.run.profiles")
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def read_load_profile(name: str) -> LoadProfile:
    """A profile that ships, or a file of the same form; LoadTestError says which key is wrong and why."""
    if name in profile_names():
        text = resources.files("loadtest.run.profiles").joinpath(f"{name}.toml").read_text("utf-8")
    elif Path(name).is_file():
        text = Path(name).read_text("utf-8")
    else:
        raise LoadTestError(f"--profile {name!r} is no file, and none of {', '.join(profile_names())}")
    return parse_load_profile(text, name)


def parse_load_profile(text: str, name: str) -> LoadProfile:
    """Raises as `read_load_profile`."""
    try:
        return _checked(msgspec.convert(tomllib.loads(text), _File), name)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, ValueError) as error:
        raise LoadTestError(f"profile {name}: {error}") from error


def _checked(file: _File, name: str) -> LoadProfile:
    plan = Plan([Piece(s.seconds, s.rate, s.rate if s.rate_to is None else s.rate_to) for s in file.plan])
    for key, allowed in (
        ("delivery", ("at_least_once", "exactly_once")),
        ("isolation", ("read_committed", "read_uncommitted")),
    ):
        if getattr(file, key) not in allowed:
            raise ValueError(f"{key}: {getattr(file, key)!r} is not one of {', '.join(allowed)}")
    if not 0 <= file.warm_up_s < plan.seconds:
        raise ValueError(f"warm_up_s: {file.warm_up_s} must be within the {plan.seconds:g} s of the plan")
    if file.partitions < 1:
        raise ValueError(f"partitions: {file.partitions} must be at least 1")
    if "kafka" in file.engine:
        raise ValueError("engine.kafka: topics and delivery are the run's own; `delivery` and `partitions` set them")
    known = {key for key in TrafficSettings.__dataclass_fields__ if key not in ("events_per_second", "start_time_ms")}
    if unknown := sorted(file.traffic.keys() - known):
        raise ValueError(f"traffic.{unknown[0]}: unknown key")
    traffic = TrafficSettings(**{**file.traffic, "events_per_second": plan.mean_rate})
    marks = tuple((mark.at_s, mark.text) for mark in file.marks)
    return LoadProfile(
        name, plan, traffic, file.delivery, file.isolation, file.warm_up_s, file.partitions, file.engine, marks
    )
