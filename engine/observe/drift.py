"""What the features, fields and scores of decided events were like, counted a micro-batch at a time.

    micro-batch --> Drift.note --> a Tally for each model and policy --(commit)--> Drift.take --> Tally.add, on and on

A tally holds nothing but counts, so the tallies of two micro-batches add up to that of both.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from engine.decide import Decisions
from engine.events import Batch, Float64, Int64
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
    table = np.full((len(edges), max(1, lengths.max(initial=0))), np.inf)
    for row, own in enumerate(edges):
        table[row, : len(own)] = own
    return table, lengths


def _score_edges(calibration: Calibration | None) -> list[float]:
    """The points of the calibration, which knows how many genuine events score higher than each."""
    return SCORE_EDGES if calibration is None else calibration.probabilities[1:-1]


class Tally:
    """What n events were like that one model and policy decided. Arrays are by input, `counts` also by bin."""

    def __init__(self, bins: Bins) -> None:
        inputs, edges_max = bins.edges.shape
        self._bins = bins
        self.events = 0
        self.newest_ms: int | None = None
        self._decisions = np.zeros(len(DECISIONS), np.int64)
        self._counts = np.zeros((inputs, edges_max + 1), np.int64)
        self._nulls = np.zeros(inputs, np.int64)
        self._outside = np.zeros(inputs, np.int64)
        self._scores = np.zeros((1, bins.padded_score_edges.shape[1] + 1), np.int64)
        self._field_nulls: Counter[str] = Counter()
        self._unseen: Counter[str] = Counter()

    def note(self, batch: Batch, matrix: FeatureMatrix, decisions: Decisions, fields: "Fields") -> None:
        """Counts the events of a micro-batch; there must be one."""
        bins = self._bins
        self.events += len(batch)
        self._note_time(int(batch.times_ms.max()))
        self._decisions += np.bincount(decisions.codes, minlength=len(DECISIONS))
        count_values(matrix.values, bins.columns, bins.edges, bins.lengths, self._counts, self._nulls, self._outside)
        # A score that there is not is none of the counts, and told by rules_only_events_total.
        scores, nowhere = decisions.probabilities.astype(np.float64)[:, None], np.zeros(1, np.int64)
        count_values(
            scores, np.zeros(1, np.int64), bins.padded_score_edges, bins.score_lengths, self._scores, nowhere, nowhere
        )
        fields.note(batch, self._field_nulls, self._unseen)

    def _note_time(self, newest_ms: int | None) -> None:
        if newest_ms is not None:
            self.newest_ms = newest_ms if self.newest_ms is None else max(self.newest_ms, newest_ms)

    def add(self, other: "Tally") -> None:
        """Counts what the other one has counted by the same model and policy."""
        self.events += other.events
        self._note_time(other.newest_ms)
        self._decisions += other._decisions
        self._counts += other._counts
        self._nulls += other._nulls
        self._outside += other._outside
        self._scores += other._scores
        self._field_nulls.update(other._field_nulls)
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
        return {name: FieldCounts(nulls, self._unseen.get(name)) for name, nulls in self._field_nulls.items()}


class Fields:
    """The fields of events that features are made of."""

    def __init__(self, spec: FeatureSpec) -> None:
        columns = [(at, column.field) for at, column in enumerate(spec.columns) if not column.predicate]
        self._places = np.array([at for at, _ in columns], np.intp)
        self._names = [name for _, name in columns]
        self._known = {name: key_hashes(known, column_seed(name)) for name, known in spec.event.one_hot}

    def note(self, batch: Batch, nulls: Counter[str], unseen: Counter[str]) -> None:
        """Adds, by name, how many of n events have none, and how many have none of the known categories."""
        there = dict(zip(self._names, np.count_nonzero(batch.words, axis=0)[self._places].tolist(), strict=True))
        for name, numbers in batch.numbers.items():
            if name not in there:
                there[name] = int(np.count_nonzero(~np.isnan(numbers)))
        for name, hashes in batch.categories.items():
            if name not in there:
                there[name] = int(np.count_nonzero(hashes))
            if name in self._known:
                known = (hashes[:, None] == self._known[name]).any(axis=1)
                unseen[name] += there[name] - int(np.count_nonzero(known))
        for name, events in there.items():
            nulls[name] += len(batch) - events


class Drift:
    """The tallies of what was decided and is not committed yet."""

    def __init__(self, spec: FeatureSpec) -> None:
        self._fields = Fields(spec)
        self._bins: dict[str, Bins] = {}
        self._tallies: dict[Versions, Tally] = {}

    def note(self, model: Scorer, policy: str, batch: Batch, matrix: FeatureMatrix, decisions: Decisions) -> None:
        """Counts events that a model, under the policy of this label, decided."""
        versions = Versions(model.label, policy)
        if versions not in self._tallies:
            self._tallies[versions] = Tally(self.bins(model))
        self._tallies[versions].note(batch, matrix, decisions, self._fields)

    def bins(self, model: Scorer) -> Bins:
        """Those of a model."""
        if model.label not in self._bins:
            self._bins[model.label] = Bins(model)
        return self._bins[model.label]

    def take(self) -> dict[Versions, Tally]:
        """All that was counted since it was taken last."""
        tallies, self._tallies = self._tallies, {}
        return tallies


@kernel
def count_values(
    values: Float64, columns: Int64, edges: Float64, lengths: Int64, counts: Int64, nulls: Int64, outside: Int64
) -> None:
    """Counts values[n, columns[f]] by the bins between the `lengths[f]` edges of f; NaN counts in `nulls` alone.

    `outside[f]`: how many of them lie below the first edge or above the last. The model sees values as float32, and so
    did whoever made the reference.
    """
    inputs, places = edges.shape
    for row in range(values.shape[0]):
        for f in range(inputs):
            value = np.float64(np.float32(values[row, columns[f]]))
            if np.isnan(value):
                nulls[f] += 1
                continue
            # All edges, many at once: quicker than halving them, where each step waits for the one before.
            above = 0
            for place in range(places):
                above += value > edges[f, place]
            counts[f, above] += 1
            outside[f] += (value < edges[f, 0]) | (above == lengths[f])


def warm_up() -> None:
    """Compiles the kernel, or loads it compiled."""
    one = np.zeros(1, np.int64)
    count_values(
        np.zeros((1, 1)), one, np.full((1, 1), np.inf), one, np.zeros((1, 2), np.int64), one.copy(), one.copy()
    )
