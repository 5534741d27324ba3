"""Does what the rounds say, each in the same steps: wait for the moment, strike, look, wait for the successor, mend.

all is well --(delay)--> the moment --> blow --> what was open? --> first decision of the successor --> all is well
                                         |<------------------ recovery ------------------------->|
"""

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from loadtest.chaos.arrivals import Arrivals
from loadtest.chaos.broker import OwnKafka
from loadtest.chaos.crew import Crew
from loadtest.chaos.feed import Feed
from loadtest.chaos.probe import Offsets, Probe
from loadtest.chaos.rounds import Kind, Round
from loadtest.chaos.worker import Worker
from loadtest.errors import LoadTestError


@dataclass(frozen=True, slots=True)
class Blow:
    """What a round did. `uncommitted`: events that were there before and not committed after it.

    `open_at`: where the open transaction began in each partition of the decisions, seen after the blow; it proves that
    the blow was inside a transaction once it is known that none of these records was ever committed.
    """

    kind: Kind
    uncommitted: int
    open_at: Offsets
    recovery_s: float

    def inside_transaction(self, arrivals: Arrivals) -> bool:
        """Whether a transaction was open, and nothing of it came to be."""
        return bool(self.open_at) and not any(arrivals.saw(*place) for place in self.open_at.items())


@dataclass(slots=True)
class Director:
    """`input`: topic of the events. `step_backs`: zombies that noticed and went on as standbys."""

    input: str
    crew: Crew
    feed: Feed
    arrivals: Arrivals
    probe: Probe
    broker: OwnKafka | None
    blows: list[Blow] = field(default_factory=list)
    zombie_exits: int = 0
    step_backs: int = 0

    def run(self, rounds: list[Round], say: Callable[[str], None]) -> None:
        """All rounds; LoadTestError as soon as one does not end as it must."""
        for number, round_ in enumerate(rounds, 1):
            try:
                self._strike(round_)
            except LoadTestError as error:
                raise LoadTestError(f"round {number} of {len(rounds)}, {round_}: {error}") from error
            blow = self.blows[-1]
            found = f"{blow.uncommitted} uncommitted, back after {blow.recovery_s:.2f} s"
            say(f"{number}/{len(rounds)} {blow.kind}: {found}")

    def _strike(self, round_: Round) -> None:
        # Whoever loses the lease without being killed may step back or end as fenced.
        self.crew.may_be_fenced = round_.kind != "kill"
        self.crew.until(self.crew.complete, "an active worker and its standbys")
        active = self._moment(round_)
        if round_.kind == "kill":
            self._kill(active, round_)
        elif round_.kind == "freeze":
            self._freeze(active)
        else:
            self._kill_broker(round_.node)
        self.crew.until(self.crew.complete, "an active worker and its standbys again")

    def _moment(self, round_: Round) -> Worker:
        """Returns the active worker, when it is the moment to strike."""
        not_before = time.monotonic() + round_.delay_s
        self.crew.until(lambda: True if time.monotonic() >= not_before else None, "the delay")
        active = self.crew.until(self.crew.active, "an active worker")
        if round_.inside:
            self._await_transaction()
        else:
            self.crew.until(lambda: self.probe.uncommitted(self.probe.ends(self.input)) or None, "uncommitted work")
        return active

    def _await_transaction(self) -> None:
        """Until one has just begun: at its end it looks open still while its markers are being written."""
        before = self.probe.open_at()

        def begun() -> bool | None:
            nonlocal before
            earlier, before = before, self.probe.open_at()
            return True if before and earlier.items().isdisjoint(before.items()) else None

        self.crew.until(begun, "a transaction to begin")

    def _kill(self, active: Worker, round_: Round) -> None:
        there = self.probe.ends(self.input)
        struck_at = time.monotonic()
        active.kill()
        open_at, first = self.probe.open_at(), self._first_decision()
        uncommitted = self.probe.uncommitted(there)
        if round_.at_once:
            active.start()
        recovery_s = self._arrival(first) - struck_at
        if not round_.at_once:
            active.start()
        self.blows.append(Blow(round_.kind, uncommitted, open_at, recovery_s))

    def _freeze(self, active: Worker) -> None:
        """Past its session, so that another one takes over; then it goes on as if nothing had been."""
        there = self.probe.ends(self.input)
        struck_at = time.monotonic()
        active.freeze()
        open_at, first = self.probe.open_at(), self._first_decision()
        uncommitted = self.probe.uncommitted(there)
        recovery_s = self._arrival(first) - struck_at
        fenced_before = self.crew.fenced
        active.thaw()
        self.crew.until(
            lambda: True if self.crew.fenced > fenced_before or active.health().role == "standby" else None,
            f"{active.name}, which was frozen, to end as fenced or to step back",
        )
        if self.crew.fenced > fenced_before:
            self.zombie_exits += 1
        else:
            self.step_backs += 1
        self.blows.append(Blow("freeze", uncommitted, open_at, recovery_s))

    def _kill_broker(self, node: int) -> None:
        """One node, while the others take over what it led; then it comes back."""
        if self.broker is None:
            raise LoadTestError("only a broker of the run's own can be killed")
        there, open_at = self.probe.ends(self.input), self.probe.open_at()
        struck_at = time.monotonic()
        self.broker.kill(node)
        first = self._first_decision()
        uncommitted = self.probe.uncommitted(there)
        self.broker.start()
        self.blows.append(Blow("kill_broker", uncommitted, open_at, self._arrival(first) - struck_at))

    def _first_decision(self) -> "Future[float]":
        """Of the successor: behind all that is in the topic now."""
        return self.arrivals.beyond(self.probe.ends(self.arrivals.topic))

    def _arrival(self, first: "Future[float]") -> float:
        def look() -> float | None:
            self.feed.check()
            self.arrivals.check()
            return first.result() if first.done() else None

        return self.crew.until(look, "a decision of the successor")
