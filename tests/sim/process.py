"""A simulated process: its clients' calls are its steps, and it can end or stand still at any of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.sim.faults import Crash

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster


# While a process stands still, some other one takes a step this often.
OTHERS_STEP_S = 0.02


class Process:
    """One worker's process. What belongs to it stops when it is killed or paused, and is told so."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.alive = True
        self.paused = False
        self.steps = 0
        # The number of the step that is the last one.
        self.crash_at: int | None = None
        self.on_kill: list[Callable[[], None]] = []
        self.on_pause: list[Callable[[], None]] = []
        self.on_resume: list[Callable[[], None]] = []
        self.on_step: list[Callable[[], None]] = []

    @property
    def running(self) -> bool:
        """Whether its background threads run: heartbeats, retries."""
        return self.alive and not self.paused

    def step(self, name: str) -> None:
        """Something is about to happen, or, at `... done`, has just happened. Raises Crash where the process ends."""
        if not self.alive:
            raise Crash(f"{self.name} is dead")
        assert not self.paused, f"{self.name} is paused and cannot {name}"
        for listener in self.on_step:
            listener()
        faults = self.cluster.faults
        step = f"{self.name} {name}"
        self.cluster.note(step)
        number, self.steps = self.steps, self.steps + 1
        if number == self.crash_at or faults.hit("crash", step):
            self.kill()
            raise Crash(step)
        if faults.hit("stall", step):
            self.stand_still(faults.stall_s)

    @contextmanager
    def call(self, name: str) -> Iterator[None]:
        """A call of a client: a step before it and one after it, if it succeeds."""
        self.step(name)
        yield
        self.step(f"{name} done")

    def stand_still(self, seconds: float) -> None:
        """SIGSTOP and SIGCONT while the others go on. Raises Crash where it is killed meanwhile."""
        self.pause()
        until_s = self.cluster.clock.now_s + seconds
        # In small steps, so that the others get as far as they would.
        while self.cluster.clock.now_s < until_s and self.alive:
            self.cluster.wait(self, min(until_s, self.cluster.clock.now_s + OTHERS_STEP_S))
        self.resume()
        if not self.alive:
            raise Crash(f"{self.name} was killed")

    def kill(self) -> None:
        """kill -9. Sessions run out and the transaction stays open, as the broker learns of nothing."""
        if self.alive:
            self.cluster.note(f"{self.name} killed")
            self.alive = False
            for listener in self.on_kill:
                listener()

    def pause(self) -> None:
        """SIGSTOP."""
        if self.running:
            self.cluster.note(f"{self.name} paused")
            self.paused = True
            for listener in self.on_pause:
                listener()

    def resume(self) -> None:
        """SIGCONT."""
        if self.alive and self.paused:
            self.cluster.note(f"{self.name} resumed")
            self.paused = False
            for listener in self.on_resume:
                listener()
