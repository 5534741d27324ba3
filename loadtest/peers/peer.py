"""Who runs the small job: how it is installed, how it is started, and what is to be said of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

AT_LEAST_ONCE = "at_least_once"
EXACTLY_ONCE = "exactly_once"
GUARANTEES = (AT_LEAST_ONCE, EXACTLY_ONCE)


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one peer: everything has this run's name, and `folder` is empty before it and gone after it."""

    name: str
    bootstrap: str
    input: str
    output: str
    partitions: int
    parallelism: int
    delivery: str
    model: Path | None
    folder: Path
    cache: Path

    def options(self) -> list[str]:
        """What every program of a peer is told on its command line."""
        given = {
            "bootstrap": self.bootstrap,
            "input": self.input,
            "output": self.output,
            "group": self.name,
            "state": str(self.folder / "state"),
            "delivery": self.delivery,
            "model": str(self.model or ""),
            "partitions": str(self.partitions),
            "parallelism": str(self.parallelism),
        }
        return [part for name, value in given.items() for part in (f"--{name}", value)]


@dataclass(frozen=True, slots=True)
class Command:
    """A program that runs until SIGTERM, and what it needs in its environment."""

    arguments: list[str]
    environment: Mapping[str, str] = field(default_factory=dict)


def nothing(_: Path) -> None:
    """What there is to install of what is here already."""


@dataclass(frozen=True, slots=True)
class Peer:
    """`window` is what it computes in place of the last hour; `exact`, whether that is the last hour to the ms.

    `parallelism` is how many threads of a job were best for it on two processors.
    """

    name: str
    window: str
    exact: bool
    command: Callable[[Run], Command]
    install: Callable[[Path], None] = nothing
    guarantees: tuple[str, ...] = GUARANTEES
    parallelism: int = 1
