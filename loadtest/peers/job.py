"""The small job: per event, how many events its card had in the last hour, itself included, and what they sum up to.

in   {"event_id": "e0000000007", "event_time": 1750003100140, "amount": 12.50, "currency": "EUR", "card": "4000..."}
out  {"event_id": "e0000000007", "card": "4000...", "count_1h": 3, "sum_1h": 40.0}, and "probability" with the model
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]

WINDOW_MS = 3_600_000
CARDS = 100_000
# A card has 1.8 events in its hour. No two events have the same time, so that how an engine breaks ties is no matter.
STEP_MS = 20
# 5,000 events before an hour of the clock, so that even the slowest passes it, and it shows who counts by the clock.
START_TIME_MS = 1_750_003_200_000 - 5_000 * STEP_MS
HOT_CARD = 0
# What the model is given, in this order.
INPUTS = ("event.amount", "card.count.1h", "card.sum.amount.1h")

_EVENT = '{"event_id":"e%010d","event_time":%d,"amount":%d.%02d,"currency":"EUR","card":"4000%012d"}'


@dataclass(frozen=True, slots=True)
class Stream:
    """Events by column, each [n], in the order in which they are sent: card numbers, cents, ms since the epoch."""

    cards: Int64
    amounts_minor: Int64
    times_ms: Int64

    def __len__(self) -> int:
        return len(self.cards)

    def ids(self) -> list[str]:
        """Event ids; `number_of` takes them back."""
        return [f"e{row:010d}" for row in range(len(self))]

    def keys(self, first: int, last: int) -> list[bytes]:
        """Partition keys of some rows: the card."""
        return [b"4000%012d" % card for card in self.cards[first:last].tolist()]

    def values(self, first: int, last: int) -> list[bytes]:
        """Some rows as JSON, about 100 bytes each."""
        major, minor = np.divmod(self.amounts_minor[first:last], 100)
        columns = (self.times_ms[first:last], major, minor, self.cards[first:last])
        rows = zip(range(first, last), *(column.tolist() for column in columns), strict=False)
        return [(_EVENT % row).encode() for row in rows]

    def chunks(self, first: int, last: int, size: int = 10_000) -> Iterator[tuple[int, int]]:
        """Bounds of pieces of some rows."""
        for start in range(first, last, size):
            yield start, min(start + size, last)


def stream(events: int, *, hot: bool, seed: int = 1) -> Stream:
    """The same events for the same arguments; with `hot`, one card has every other event."""
    rng = np.random.default_rng(seed)
    cards = rng.integers(1, CARDS, events, dtype=np.int64)
    if hot:
        cards[rng.random(events) < 0.5] = HOT_CARD
    amounts_minor = np.clip(np.exp(rng.normal(3.0, 1.2, events)) * 100, 1, 10_000_000).astype(np.int64)
    return Stream(cards, amounts_minor, START_TIME_MS + STEP_MS * np.arange(events, dtype=np.int64))


def number_of(event_id: str) -> int:
    """The row of an event, of its id."""
    return int(event_id[1:])


def oracle(events: Stream) -> tuple[Int64, Int64]:
    """Counts, and sums in cents, [n] each: of events x of the same card with t - 1 h < x.time <= t.

    >>> counts, sums = oracle(Stream(np.array([7, 7, 8, 7]), np.array([5, 6, 7, 8]),
    ...                              np.array([0, 1, 1, WINDOW_MS])))
    >>> counts.tolist(), sums.tolist()
    ([1, 2, 1, 2], [5, 11, 7, 14])
    """
    order = np.lexsort((events.times_ms, events.cards))
    # One axis for all cards, on which no window reaches the card before.
    span = int(events.times_ms.max() - events.times_ms.min()) + WINDOW_MS + 1
    position = events.cards[order] * span + (events.times_ms[order] - events.times_ms.min())
    first = np.searchsorted(position, position - WINDOW_MS, side="right")
    totals = np.concatenate(([0], np.cumsum(events.amounts_minor[order])))
    last = np.arange(1, len(events) + 1)
    counts, sums = np.empty(len(events), np.int64), np.empty(len(events), np.int64)
    counts[order] = last - first
    sums[order] = totals[last] - totals[first]
    return counts, sums
