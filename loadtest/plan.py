"""When events are due: rates over time, and their integral.

events/s
  3000 |        ____
  1000 |_______|    |________        pieces of constant or linearly changing rate, one after the other
       0       60   90      150 s
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loadtest.columns import Float64, Int64


@dataclass(frozen=True, slots=True)
class Piece:
    """So many seconds, from one rate (events/s) to another in a straight line. Raises ValueError on what is no pace."""

    seconds: float
    rate: float
    rate_to: float

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise ValueError(f"seconds: {self.seconds} must be positive")
        if not (self.rate >= 0 and self.rate_to >= 0 and self.rate + self.rate_to > 0):
            raise ValueError(f"rate, rate_to: {self.rate}, {self.rate_to} must not be negative, nor both 0")

    @property
    def events(self) -> float:
        """The integral."""
        return self.seconds * (self.rate + self.rate_to) / 2


class Plan:
    """Pieces in a row; by a time t, as many events are due as the integral up to t has whole ones."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        if not pieces:
            raise ValueError("a plan needs at least one piece")
        self.pieces = tuple(pieces)
        self._starts_s = np.cumsum([0.0, *(piece.seconds for piece in pieces)])
        self._before = np.cumsum([0.0, *(piece.events for piece in pieces)])

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return float(self._starts_s[-1])

    @property
    def events(self) -> int:
        """How many events are due in all; what floating point takes from a whole number is given back."""
        return int(self._before[-1] + 1e-6)

    @property
    def mean_rate(self) -> float:
        """Events per second over the whole plan."""
        return float(self._before[-1]) / self.seconds

    def rate_at(self, t_s: float) -> float:
        """Events per second at a moment; 0 outside the plan."""
        if not 0 <= t_s < self.seconds:
            return 0.0
        at = int(np.searchsorted(self._starts_s, t_s, side="right")) - 1
        piece = self.pieces[at]
        return piece.rate + (piece.rate_to - piece.rate) * (t_s - float(self._starts_s[at])) / piece.seconds

    def due_ms(self, numbers: Int64) -> Int64:
        """The whole millisecond, from the beginning, by which each event is due; numbers count from 0.

        Rounded up, so that none is due before the integral has it. Numbers that are not in the plan are due after its
        end.
        """
        wanted = numbers.astype(np.float64) + 1.0
        at = np.clip(np.searchsorted(self._before, wanted, side="left") - 1, 0, len(self.pieces) - 1)
        first = np.array([piece.rate for piece in self.pieces])[at]
        last = np.array([piece.rate_to for piece in self.pieces])[at]
        span = np.array([piece.seconds for piece in self.pieces])[at]
        inside = _time_to(wanted - self._before[at], first, (last - first) / span)
        within_s = np.minimum(self._starts_s[at] + inside, self.seconds)
        # A millisecond that a rounding error of floating point exceeds is still that millisecond.
        due: Int64 = np.ceil(within_s * 1_000 - 1e-6).astype(np.int64)
        due[numbers >= self.events] = int(np.ceil(self.seconds * 1_000)) + 2
        return due


def _time_to(events: Float64, rate: Float64, slope: Float64) -> Float64:
    """The t at which rate * t + slope * t^2 / 2 reaches `events`; in the form that loses nothing where slope is 0."""
    root = np.sqrt(np.maximum(rate * rate + 2 * slope * events, 0.0))
    times: Float64 = 2 * events / np.maximum(rate + root, 1e-12)
    return times
