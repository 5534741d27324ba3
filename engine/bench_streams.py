"""Seeded streams of events for the benchmarks of state: keys, times, amounts and values, without a byte of JSON.

Each is one entity's: sessions of a card's payments, or a merchant's customers with rushes in between. Times follow the
hour of the day, amounts are lognormal (median 18.08, sigma 1), values are drawn by Zipf's law or never come twice.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.events import Batch

Int64 = NDArray[np.int64]
UInt64 = NDArray[np.uint64]
Float64 = NDArray[np.float64]

EPOCH_MS = 1_700_006_400_000  # a midnight, UTC
MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
# How much busier the busiest hour is than the mean, and when it is.
DAY_SWING, BUSIEST_HOUR = 0.95, 15
SESSION_GAP_MS = 30_000
# Of a merchant's events, the share that comes in rushes, of how many events, how far apart.
RUSH_SHARE, RUSH_EVENTS, RUSH_MS = 0.3, 50, 20 * MINUTE_MS
AMOUNT_LOG_MEAN, AMOUNT_SIGMA = 7.5, 1.0


@dataclass(frozen=True, slots=True)
class Stream:
    """One entity's events by time: `values[n, v]` are the words of its fields."""

    times_ms: Int64
    amounts_minor: Int64
    values: UInt64

    def __len__(self) -> int:
        return len(self.times_ms)


def mixed(numbers: NDArray[np.integer] | int) -> UInt64:
    """Well spread words, never 0 for numbers up to 2^32, of numbers one after another (splitmix64)."""
    words = np.asarray(numbers).astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def by_the_hour(rng: np.random.Generator, events: int, days: int) -> Float64:
    """Times within so many days, sorted: a Poisson process whose rate swings with the hour of the day."""
    found = np.empty(0)
    while len(found) < events:
        drawn = rng.uniform(0, days * DAY_MS, 4 * events)
        rate = 1 + DAY_SWING * np.cos(2 * np.pi * (drawn / HOUR_MS - BUSIEST_HOUR) / 24)
        found = np.concatenate((found, drawn[rng.uniform(0, 1 + DAY_SWING, 4 * events) < rate]))
    return np.sort(found[:events])


def card_times(rng: np.random.Generator, events: int, days: int, session_events: int) -> Int64:
    """A card's payments: sessions of geometrically many, 30 s apart on average, more of them by day than by night."""
    starts = by_the_hour(rng, -(-events // session_events) * 2, days)
    starts = np.sort(rng.choice(starts, -(-events // session_events), replace=False))
    lengths = rng.geometric(1 / session_events, len(starts))
    gaps = rng.exponential(SESSION_GAP_MS, lengths.sum())
    firsts = np.cumsum(lengths) - lengths
    gaps[firsts] = 0.0
    passed = np.cumsum(gaps)
    times = np.repeat(starts - passed[firsts], lengths) + passed
    return EPOCH_MS + np.sort(times).astype(np.int64)


def merchant_times(rng: np.random.Generator, events: int, days: int) -> Int64:
    """A merchant's customers: a Poisson process by the hour, and rushes of about 50 in 20 minutes at any time."""
    steady = by_the_hour(rng, round(events * (1 - RUSH_SHARE)), days)
    rushes = rng.uniform(0, days * DAY_MS, max(1, round(events * RUSH_SHARE / RUSH_EVENTS)))
    sizes = rng.poisson(RUSH_EVENTS, len(rushes))
    times = np.repeat(rushes, sizes) + rng.exponential(RUSH_MS, sizes.sum())
    return EPOCH_MS + np.sort(np.concatenate((steady, times))).astype(np.int64)


def lognormal_amounts(rng: np.random.Generator, events: int) -> Int64:
    """Amounts in minor units, none below 1."""
    return np.maximum(np.rint(np.exp(rng.normal(AMOUNT_LOG_MEAN, AMOUNT_SIGMA, events))), 1).astype(np.int64)


def zipf_values(rng: np.random.Generator, events: int, population: int, first: int = 0) -> UInt64:
    """Words of values, numbered from `first`: the k-th of them comes 1/k as often as the first one."""
    shares = 1 / np.arange(1, population + 1)
    return mixed(first + rng.choice(population, events, p=shares / shares.sum()))


def batch_of(words: UInt64, times_ms: Int64, amounts_minor: Int64, first_offset: int = 0) -> Batch:
    """A micro-batch of these events, as one partition would bring them."""
    events = len(times_ms)
    offsets = np.arange(first_offset, first_offset + events)
    return Batch(
        topic="",
        event_ids=[""] * events,
        event_id_hashes=mixed(offsets),
        times_ms=times_ms,
        amounts_minor=amounts_minor,
        currency="EUR",
        keys={},
        words=np.ascontiguousarray(words),
        flags=np.zeros(events, np.int64),
        partition_keys=[None] * events,
        partitions=np.zeros(events, np.int64),
        offsets=offsets,
        record_times_ms=times_ms,
    )
