"""What a window of telemetry says: readings against their limits, each with the name of its signal."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt

import numpy as np

from engine.control.buckets import Window
from engine.control.psi import Bins, bins_of, counted_bins, noise, psi, score_bins
from engine.control.settings import Drift
from engine.telemetry import Histogram
from features.durations import duration_ms
from models.manifest import Manifest

# How many standard deviations of a share are chance.
CHANCE_Z = 4.75


@dataclass(frozen=True, slots=True)
class Reading:
    """`signal` as in `psi:card.count.1h`; `over`: whether the value lies above what `limit` and chance explain."""

    signal: str
    window: str
    value: float
    limit: float
    over: bool
    events: int

    @property
    def name(self) -> str:
        """What alarms know it by."""
        return f"{self.signal}@{self.window}" if self.window else self.signal


class Expected:
    """What a model's manifest expects of telemetry."""

    def __init__(self, manifest: Manifest) -> None:
        self._calibration = manifest.calibration
        self._score: tuple[list[float], Bins] | None = None
        origin = manifest.training or manifest.imported
        self.events = 0 if origin is None else origin.rows
        self.null_shares = {name: reference.null_share for name, reference in manifest.reference.items()}
        self.lengths = {name: len(reference.edges) + 1 for name, reference in manifest.reference.items()}
        self.bins = {name: bins_of(reference) for name, reference in manifest.reference.items()}

    @property
    def knows_scores(self) -> bool:
        """Whether the manifest says how scores are distributed."""
        return self._calibration is not None

    def score(self, edges: list[float]) -> Bins | None:
        """Bins for a histogram of scores; None where the manifest says nothing of them."""
        if self._calibration is None:
            return None
        if self._score is None or self._score[0] != edges:
            self._score = edges, score_bins(edges, self._calibration)
        return self._score[1]


def readings(
    name: str,
    window: Window,
    longest: Window,
    expected: Expected | None,
    settings: Drift,
    baseline: Histogram | None = None,
) -> Iterator[Reading]:
    """Of the window of this name; `longest` is what fields are compared with. Nothing where there are too few
    events.

    Without a manifest there are only those that need none. `baseline`: how a model scored at first, which is what is
    usual where the manifest does not say.
    """
    if window.events < settings.events_min:
        return
    if expected is not None:
        yield from _distributions(name, window, expected, settings)
    yield from _score(name, window, expected, settings, baseline)
    for field, counts in window.fields.items():
        usual = longest.fields[field].nulls / max(longest.events, 1) if field in longest.fields else 0.0
        yield _share(f"field_nulls:{field}", name, counts.nulls, usual + settings.null_share_excess_max, window.events)
        if counts.unseen is not None:
            yield _share(f"unseen:{field}", name, counts.unseen, settings.unseen_share_max, window.events)


def _distributions(name: str, window: Window, expected: Expected, settings: Drift) -> Iterator[Reading]:
    for feature, counts in window.features.items():
        if expected.lengths.get(feature) != len(counts.counts):
            continue
        events = sum(counts.counts) + counts.nulls
        if events < settings.events_min:
            continue
        yield _psi(
            f"psi:{feature}", name, expected.bins[feature], counts.counts, counts.nulls, expected.events, settings
        )
        null_limit = expected.null_shares[feature] + settings.null_share_excess_max
        yield _share(f"nulls:{feature}", name, counts.nulls, null_limit, events)
        yield _share(f"out_of_range:{feature}", name, counts.out_of_range, settings.out_of_range_share_max, events)


def _score(
    name: str, window: Window, expected: Expected | None, settings: Drift, baseline: Histogram | None
) -> Iterator[Reading]:
    if sum(window.score.counts) < settings.events_min:
        return
    bins, events = None, 0
    if expected is not None and expected.knows_scores:
        bins, events = expected.score(window.score.edges), expected.events
    elif baseline is not None and baseline.edges == window.score.edges:
        bins, events = counted_bins(baseline.counts), sum(baseline.counts)
    if bins is not None and events:
        yield _psi("psi_score", name, bins, window.score.counts, 0, events, settings)


def freshness(window: Window, settings: Drift) -> Reading | None:
    """How far the newest event time lies behind the worker's clock, in seconds; None where no event came."""
    if window.event_time_ms_max is None:
        return None
    age_s = (window.last_ms - window.event_time_ms_max) / 1000
    limit_s = duration_ms(settings.freshness_max) / 1000
    return Reading("freshness", "", age_s, limit_s, age_s > limit_s, window.events)


def _psi(
    signal: str, window: str, bins: Bins, counts: list[int], nulls: int, reference_events: int, settings: Drift
) -> Reading:
    value, events = psi(bins, np.array(counts, np.int64), nulls), sum(counts) + nulls
    over = value > settings.psi_max + noise(bins, events, reference_events)
    return Reading(signal, window, value, settings.psi_max, over, events)


def _share(signal: str, window: str, count: int, limit: float, events: int) -> Reading:
    """Over where so many would be no chance even if the limit were the truth."""
    chance = CHANCE_Z * sqrt(limit * max(0.0, 1 - limit) / events)
    return Reading(signal, window, count / events, limit, count / events > limit + chance, events)
