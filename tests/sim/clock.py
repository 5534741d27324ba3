"""Time that stands still until somebody waits, and what is due at a moment of it."""

import heapq
import itertools
from collections.abc import Callable

START_S = 1_735_689_600.0  # 2025-01-01


class Timer:
    """Something that happens at its time, unless it is cancelled before."""

    __slots__ = ("cancelled", "happens")

    def __init__(self, happens: Callable[[], None]) -> None:
        self.happens = happens
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Clock:
    """Seconds since the simulation began; stands in for the `time` module too."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._timers: list[tuple[float, int, Timer]] = []
        # Timers of one moment go off in the order in which they were set.
        self._order = itertools.count()

    def after(self, delay_s: float, happens: Callable[[], None]) -> Timer:
        """`happens` is called once so much time has passed; it must not let time pass itself."""
        timer = Timer(happens)
        heapq.heappush(self._timers, (self.now_s + max(delay_s, 0.0), next(self._order), timer))
        return timer

    def advance_to(self, until_s: float) -> None:
        """Lets time pass; a moment that is over already changes nothing."""
        while self._timers and self._timers[0][0] <= until_s:
            at_s, _, timer = heapq.heappop(self._timers)
            self.now_s = max(self.now_s, at_s)
            if not timer.cancelled:
                timer.happens()
        self.now_s = max(self.now_s, until_s)

    def advance(self, seconds: float) -> None:
        self.advance_to(self.now_s + seconds)

    def next_s(self) -> float | None:
        """When the next timer goes off."""
        while self._timers and self._timers[0][2].cancelled:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def monotonic(self) -> float:
        return self.now_s

    def perf_counter(self) -> float:
        return self.now_s

    def time(self) -> float:
        return START_S + self.now_s

    def time_ns(self) -> int:
        return int(self.time() * 1e9)
