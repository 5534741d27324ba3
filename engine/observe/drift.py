"""What the features, fields and scores of decided events were like.

    micro-batch --> Drift.note --> a Tally for each model and policy --(commit)--> Drift.take --> Tally.add, on and on
                                     | counts them some hundreds of events at a time

A tally that was taken holds nothing but counts, so the tallies of two commits add up to that of both.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.decide import Decisions
from engine.events import Batch, Float64, Int64, UInt64
from engine.policy.precedence import DECISIONS
from engine.state.local import FeatureMatrix
from engine.telemetry import FeatureCounts, FieldCounts, Histogram, Versions
from features.jit import kernel
from features.spec import FeatureSpec
from features.words import column_seed, key_hashes
from models.calibration import Calibration
from models.runtime import Scorer

# Where the model says nothing of how its scores are spread.
SCORE_EDGES = [round(0.05 * step, 2) for step in range(1, 20)]
# What the processor compares in one turn of the kernel's inner loop; a rest of it would be gone through one by one.
EDGES_AT_ONCE = 32
# So many events are counted together, or what comes before a commit: a micro-batch may be a dozen of them, and each
# call costs as much as counting some more.
EVENTS_AT_ONCE = 1_024


class Bins:
    """What the inputs and scores of one model are counted by."""

    def __init__(self, model: Scorer) -> None:
        references = model.references
        self.names = [*references]
        self.columns = model.columns.astype(np.int64)
        self.edges, self.lengths = padded([reference.edges for reference in references.values()])
        self.score_edges = _score_edges(model.calibration)
        self.padded_score_edges, self.score_lengths = padded([self.score_edges])


def padded(edges: Sequence[Sequence[float]]) -> tuple[Float64, Int64]:
    """The edges of several columns side by side, filled up with infinity, which no value is above; and their number."""
    lengths = np.array([len(own) for own in edges], np.int64)
    turns = -(-int(lengths.max(initial=1)) // EDGES_AT_ONCE)
    table = np.full((len(edges), max(1, turns) * EDGES_AT_ONCE), np.inf)
    for row, own in enumerate(edges):
        table[row, : len(own)] = own
    return table, lengths


def _score_edges(calibration: Calibration | None) -> list[float]:
    """The points of the calibration, which knows how many genuine events score higher than each."""
    return SCORE_EDGES if calibration is None else calibration.probabilities[1:-1]


class Fields:
    """The fields of events that features are made of: those that have a column of words, at `places`, and others."""

    def __init__(self, spec: FeatureSpec) -> None:
        columns = [(at, column.field) for at, column in enumerate(spec.columns) if not column.predicate]
        self.places = np.array([at for at, _ in columns], np.int64)
        self.names = [name for _, name in columns]
        self._known = {name: key_hashes(known, column_seed(name)) for name, known in spec.event.one_hot}

    def note_others(self, seen: "_Seen", nulls: Counter[str], unseen: Counter[str]) -> None:
        """Adds how many of n events do not have each of the others, and, of any, none of the categories known of it."""
        for name, numbers in seen.numbers.items():
            if name not in self.names:
                nulls[name] += int(np.count_nonzero(np.isnan(numbers)))
        for name, hashes in seen.categories.items():
            absent = hashes == 0
            if name not in self.names:
                nulls[name] += int(np.count_nonzero(absent))
            if name in self._known:
                known = (hashes[:, None] == self._known[name]).any(axis=1)
                unseen[name] += int(np.count_nonzero(~(known | absent)))


class _Seen(NamedTuple):
    """What is counted of n events: `values[n, inputs]`, the others as in `Batch` and `Decisions`."""

    values: Float64
    probabilities: NDArray[np.float32]
    codes: Int64
    times_ms: Int64
    words: UInt64
    numbers: dict[str, Float64]
    categories: dict[str, UInt64]


def _joined(parts: list[_Seen]) -> _Seen:
    if len(parts) == 1:
        return parts[0]
    return _Seen(
        values=np.concatenate([part.values for part in parts]),
        probabilities=np.concatenate([part.probabilities for part in parts]),
        codes=np.concatenate([part.codes for part in parts]),
        times_ms=np.concatenate([part.times_ms for part in parts]),
        words=np.concatenate([part.words for part in parts]),
        numbers={name: np.concatenate([part.numbers[name] for part in parts]) for name in parts[0].numbers},
        categories={name: np.concatenate([part.categories[name] for part in parts]) for name in parts[0].categories},
    )


class Tally:
    """What n events were like that one model and policy decided. Arrays are by input, `counts` also by bin."""

    def __init__(self, bins: Bins, fields: Fields) -> None:
        inputs, places = bins.edges.shape
        self._bins = bins
        self._fields = fields
        self.events = 0
        self.newest_ms: int | None = None
        self._waiting: list[_Seen] = []
        self._waiting_events = 0
        self._decisions = np.zeros(len(DECISIONS), np.int64)
        self._counts = np.zeros((inputs, places + 1), np.int64)
        self._nulls = np.zeros(inputs, np.int64)
        self._outside = np.zeros(inputs, np.int64)
        self._scores = np.zeros((1, bins.padded_score_edges.shape[1] + 1), np.int64)
        # Scores that there are not, and those beyond all edges: neither is told.
        self._untold = np.zeros(1, np.int64)
        self._word_nulls = np.zeros(len(fields.places), np.int64)
        self._other_nulls: Counter[str] = Counter()
        self._unseen: Counter[str] = Counter()

    def note(self, batch: Batch, matrix: FeatureMatrix, decisions: Decisions) -> None:
        """Counts the events of a micro-batch, now or with those that come next; there must be one."""
        # A copy, for the next batch overwrites the matrix; row by row, as the kernel is compiled for.
        values = matrix.values.take(self._bins.columns, axis=1)
        told = values, decisions.probabilities, decisions.codes, batch.times_ms, batch.words
        self._waiting.append(_Seen(*told, batch.numbers, batch.categories))
        self.events += len(batch)
        self._waiting_events += len(batch)
        if self._waiting_events >= EVENTS_AT_ONCE:
            self.settle()

    def settle(self) -> None:
        """Counts what has waited for that."""
        if not self._waiting:
            return
        seen, bins, untold = _joined(self._waiting), self._bins, self._untold
        self._waiting, self._waiting_events = [], 0
        newest_ms = count_events(
            seen.codes, seen.times_ms, seen.words, self._fields.places, self._decisions, self._word_nulls
        )
        self._note_time(newest_ms)
        count_values(seen.values, bins.edges, bins.lengths, self._counts, self._nulls, self._outside)
        scores = seen.probabilities[:, None]
        count_values(scores, bins.padded_score_edges, bins.score_lengths, self._scores, untold, untold)
        self._fields.note_others(seen, self._other_nulls, self._unseen)

    def _note_time(self, newest_ms: int | None) -> None:
        if newest_ms is not None:
            self.newest_ms = newest_ms if self.newest_ms is None else max(self.newest_ms, newest_ms)

    def add(self, other: "Tally") -> None:
        """Counts what the other one, which is settled, has counted by the same model and policy."""
        self.events += other.events
        self._note_time(other.newest_ms)
        self._decisions += other._decisions
        self._counts += other._counts
        self._nulls += other._nulls
        self._outside += other._outside
        self._scores += other._scores
        self._word_nulls += other._word_nulls
        self._other_nulls.update(other._other_nulls)
        self._unseen.update(other._unseen)

    def decisions(self) -> dict[str, int]:
        """How many of each kind."""
        return dict(zip(DECISIONS, self._decisions.tolist(), strict=True))

    def scores(self) -> Histogram:
        """How the probabilities were spread."""
        edges = self._bins.score_edges
        return Histogram(edges, self._scores[0, : len(edges) + 1].tolist())

    def features(self) -> dict[str, FeatureCounts]:
        """How the inputs were spread."""
        bins = self._bins
        return {
            name: FeatureCounts(counts[: length + 1], nulls, outside)
            for name, length, counts, nulls, outside in zip(
                bins.names,
                bins.lengths.tolist(),
                self._counts.tolist(),
                self._nulls.tolist(),
                self._outside.tolist(),
                strict=True,
            )
        }

    def fields(self) -> dict[str, FieldCounts]:
        """How many events were without a field, or had another category in it than is known."""
        nulls = dict(zip(self._fields.names, self._word_nulls.tolist(), strict=True)) | self._other_nulls
        return {name: FieldCounts(events, self._unseen.get(name)) for name, events in nulls.items()}


class Drift:
    """The tallies of what was decided and is not committed yet."""

    def __init__(self, spec: FeatureSpec) -> None:
        self._fields = Fields(spec)
        self._bins: dict[str, Bins] = {}
        self._tallies: dict[Versions, Tally] = {}

    def note(
        self, model: Scorer, versions: Versions, batch: Batch, matrix: FeatureMatrix, decisions: Decisions
    ) -> None:
        """Counts events that a model decided; `versions` names it and the policy."""
        if versions not in self._tallies:
            self._tallies[versions] = self.tally(model)
        self._tallies[versions].note(batch, matrix, decisions)

    def tally(self, model: Scorer) -> Tally:
        """One that has counted nothing yet."""
        if model.label not in self._bins:
            self._bins[model.label] = Bins(model)
        return Tally(self._bins[model.label], self._fields)

    def take(self) -> dict[Versions, Tally]:
        """All that was counted since it was taken last."""
        tallies, self._tallies = self._tallies, {}
        for tally in tallies.values():
            tally.settle()
        return tallies


@kernel
def count_values(
    values: NDArray[Any],
    edges: Float64,
    lengths: Int64,
    counts: Int64,
    nulls: Int64,
    outside: Int64,
) -> None:
    """Counts values[n, f] by the bins between the `lengths[f]` edges of f; NaN counts in `nulls` alone.

    `outside[f]`: how many of them lie below the first edge or above the last. The model sees values as float32, and so
    did whoever made the reference.
    """
    inputs, places = edges.shape
    for row in range(values.shape[0]):
        for f in range(inputs):
            value = np.float64(np.float32(values[row, f]))
            if np.isnan(value):
                nulls[f] += 1
                continue
            # All edges, many at once: quicker than halving them, where each step waits for the one before.
            above = 0
            for place in range(places):
                above += value > edges[f, place]
            counts[f, above] += 1
            outside[f] += (value < edges[f, 0]) | (above == lengths[f])


@kernel
def count_events(codes: Int64, times_ms: Int64, words: UInt64, places: Int64, decisions: Int64, nulls: Int64) -> int:
    """Counts n decisions by their codes, and the words that are 0 in words[n, places[f]]; returns the newest time."""
    newest_ms: int = times_ms[0]
    for row in range(codes.shape[0]):
        decisions[codes[row]] += 1
        newest_ms = max(newest_ms, times_ms[row])
        for f in range(places.shape[0]):
            nulls[f] += words[row, places[f]] == 0
    return newest_ms


def warm_up() -> None:
    """Compiles the kernels, or loads them compiled."""
    one, two, edges = np.zeros(1, np.int64), np.zeros((1, 2), np.int64), np.full((1, 1), np.inf)
    for kind in (np.float32, np.float64):
        count_values(np.zeros((1, 1), kind), edges, one, two, one.copy(), one.copy())
    count_events(one, one, np.zeros((1, 1), np.uint64), one, one.copy(), one.copy())
