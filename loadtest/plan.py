"""When events are due: a plan of rates that change with time, and what it makes of a steady stream."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loadtest.columns import Float64, Int64


@dataclass(frozen=True, slots=True)
class Piece:
    """So many seconds, in which the rate goes in a straight line from `start` to `end` events per second."""

    seconds: float
    start: float
    end: float

    @property
    def events(self) -> float:
        """How many events are due within it, on average."""
        return self.seconds * (self.start + self.end) / 2


class Plan:
    """Pieces one after another. The last rate goes on beyond the end."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        """ValueError where there is no piece, or a length or rate that is not positive."""
        if not pieces:
            raise ValueError("the plan has no pieces")
        for piece in pieces:
            if not min(piece.seconds, piece.start, piece.end) > 0:
                raise ValueError(f"seconds and rates must be positive, not {piece}")
        self.pieces = (*pieces,)
        self.seconds = sum(piece.seconds for piece in pieces)
        self.events = sum(piece.events for piece in pieces)
        self._starts_s = np.cumsum([0.0, *(piece.seconds for piece in pieces)])
        self._starts_events = np.cumsum([0.0, *(piece.events for piece in pieces)])
        self._rates = np.array([*(piece.start for piece in pieces), pieces[-1].end])
        self._slopes = np.array([*((piece.end - piece.start) / piece.seconds for piece in pieces), 0.0])

    @property
    def mean_rate(self) -> float:
        """Events per second over the whole plan."""
        return self.events / self.seconds

    @property
    def rate_max(self) -> float:
        """The highest rate at any time."""
        return max(max(piece.start, piece.end) for piece in self.pieces)

    def after(self, seconds: float) -> "Plan":
        """The same, begun with so many seconds at its first rate."""
        if not seconds:
            return self
        first = self.pieces[0].start
        return Plan((Piece(seconds, first, first), *self.pieces))

    def rate_at(self, seconds: Float64) -> Float64:
        """Events per second at these times since the beginning."""
        piece = np.searchsorted(self._starts_s, seconds, side="right") - 1
        rates: Float64 = self._rates[piece] + self._slopes[piece] * (seconds - self._starts_s[piece])
        return rates

    def due_ms(self, steady_ms: Int64) -> Int64:
        """When events are due that a steady stream of the mean rate has at `steady_ms` since its beginning.

        A Poisson process stays one when its time is moved by the inverse of its cumulated rate (Cinlar, Introduction to
        Stochastic Processes, 1975, 4.7). Within a piece of rate r and slope a, the m-th event is due after
        2m / (r + sqrt(r^2 + 2am)) seconds.
        """
        events = steady_ms / 1_000 * self.mean_rate
        piece = np.searchsorted(self._starts_events, events, side="right") - 1
        within, rates = events - self._starts_events[piece], self._rates[piece]
        seconds = 2 * within / (rates + np.sqrt(np.maximum(rates * rates + 2 * self._slopes[piece] * within, 0.0)))
        due_ms: Int64 = np.rint((self._starts_s[piece] + seconds) * 1_000).astype(np.int64)
        return due_ms


def steady(events_per_second: float, seconds: float) -> Plan:
    """One rate for so long."""
    return Plan([Piece(seconds, events_per_second, events_per_second)])
