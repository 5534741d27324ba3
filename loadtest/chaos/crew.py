"""The workers of one application: who is active, who follows, and that none ends unless it may."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from loadtest.chaos.worker import Worker
from loadtest.errors import LoadTestError

POLL_S = 0.02
PROGRESS_TIMEOUT_S = 60.0
# The first start on a machine compiles the kernels.
FIRST_START_TIMEOUT_S = 300.0
FENCED_EXIT_CODE = 4

Found = TypeVar("Found")


class Crew:
    """Two workers or so. `may_be_fenced`: whether one that ends as fenced is started again, or is a failure."""

    def __init__(self, workers: list[Worker]) -> None:
        self.workers = workers
        self.may_be_fenced = False
        self.fenced = 0
        # Nothing sets it: it is what is waited on for things that nobody announces.
        self._never = threading.Event()

    def start(self) -> None:
        """Starts all, and returns once one is active and the others follow."""
        for worker in self.workers:
            worker.start()
        self.until(self.complete, "an active worker and its standbys", FIRST_START_TIMEOUT_S)

    def check(self) -> None:
        """LoadTestError where a worker ended that nobody ended; one that was fenced starts again if it may."""
        for worker in self.workers:
            code = worker.exit_code
            if code is None:
                continue
            if code == FENCED_EXIT_CODE and self.may_be_fenced:
                self.fenced += 1
                worker.start()
                continue
            raise LoadTestError(f"{worker.name} ended by itself with exit code {code}\n{worker.last_words()}")

    def until(self, look: Callable[[], Found | None], what: str, timeout_s: float = PROGRESS_TIMEOUT_S) -> Found:
        """What `look` finds, once it finds something; LoadTestError where it does not, or a worker ends meanwhile."""
        give_up_at = time.monotonic() + timeout_s
        while True:
            self.check()
            found = look()
            if found is not None:
                return found
            if time.monotonic() > give_up_at:
                raise LoadTestError(f"waited {timeout_s:g} s in vain for {what}\n{self.last_words()}")
            self._never.wait(POLL_S)

    def until_none(self, left: Callable[[], int], what: str) -> None:
        """Returns once nothing is left; LoadTestError where it does not become less for a minute, or as `until`."""
        fewest = left()
        while fewest:

            def fewer(than: int = fewest) -> int | None:
                found = left()
                return found if found < than else None

            fewest = self.until(fewer, f"{what}, with {fewest:,} events left")

    def active(self) -> Worker | None:
        """The one that says that it decides; None unless exactly one does."""
        found = [worker for worker in self.workers if worker.health() == ("active", True)]
        return found[0] if len(found) == 1 else None

    def complete(self) -> Worker | None:
        """The active one, once all others are warm standbys."""
        healths = sorted(worker.health() for worker in self.workers)
        wanted = sorted([("active", True), *[("standby", True)] * (len(self.workers) - 1)])
        return self.active() if healths == wanted else None

    def last_words(self) -> str:
        """The ends of all logs."""
        return "\n".join(worker.last_words() for worker in self.workers)

    def stop(self) -> None:
        """Lets all drain and end; LoadTestError where one does not end well."""
        for worker in self.workers:
            if worker.running:
                worker.stop()

    def kill(self) -> None:
        """Ends all at once, frozen ones too."""
        for worker in self.workers:
            worker.kill()
