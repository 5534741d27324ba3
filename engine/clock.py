"""Time as an object, so that a simulation can have its own."""

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """What a worker asks about time."""

    def monotonic(self) -> float:
        """Seconds since some moment; never goes back."""

    def time_ms(self) -> int:
        """Milliseconds since 1970."""

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Waits for an event; whether it is set."""


class SystemClock:
    """The machine's."""

    def monotonic(self) -> float:
        """As `Clock`."""
        return time.monotonic()

    def time_ms(self) -> int:
        """As `Clock`."""
        return time.time_ns() // 1_000_000

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """As `Clock`."""
        return event.wait(timeout_s)


SYSTEM_CLOCK = SystemClock()
