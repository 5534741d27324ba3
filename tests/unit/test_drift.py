"""What is counted of decided events: every count as one event after another would give it."""

import math
from bisect import bisect_left
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.assemble import watched
from engine.decide import Decisions
from engine.events import Batch
from engine.observe import drift as drift_module
from engine.observe.drift import SCORE_EDGES, Bins, Drift, Tally, count_values, padded
from engine.pipeline import Pipeline
from engine.state.local import FeatureMatrix
from engine.telemetry import FeatureCounts, FieldCounts, Versions
from models.absent import NoModel
from models.calibration import Calibration
from models.reference import reference_of
from tests.build import batch_of, full_config
from tests.oracle.events import Event
from tests.pipelines import demo_model, event, json_of, pipeline_of, profile, records_of

FLOAT32 = st.floats(allow_nan=False, allow_infinity=False, width=32)
FEW = st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0])


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[list[float]], list[list[float]]]:
    """Edges of some columns, and rows of values that often lie on them."""
    edges = draw(st.lists(st.lists(FLOAT32 | FEW, unique=True, max_size=6).map(sorted), min_size=1, max_size=4))
    known = st.sampled_from(sorted({edge for own in edges for edge in own} | {0.0}))
    value = known | FLOAT32 | st.floats() | st.just(math.nan)
    rows = draw(st.lists(st.lists(value, min_size=len(edges), max_size=len(edges)), max_size=12))
    return edges, rows


def counted(edges: list[list[float]], values: np.ndarray) -> list[FeatureCounts]:
    """By the kernel."""
    table, lengths = padded(edges)
    inputs, places = table.shape
    counts, nulls = np.zeros((inputs, places + 1), np.int64), np.zeros(inputs, np.int64)
    outside = np.zeros(inputs, np.int64)
    count_values(values, table, lengths, counts, nulls, outside)
    assert all(counts[column, len(own) + 1 :].sum() == 0 for column, own in enumerate(edges))
    return [
        FeatureCounts(counts[column, : len(own) + 1].tolist(), int(nulls[column]), int(outside[column]))
        for column, own in enumerate(edges)
    ]


def counted_slowly(edges: list[float], values: list[float]) -> FeatureCounts:
    """One value after another, each as the model sees it."""
    counts, nulls, outside = [0] * (len(edges) + 1), 0, 0
    for value in values:
        with np.errstate(over="ignore"):
            seen = float(np.float32(value))
        if math.isnan(seen):
            nulls += 1
            continue
        counts[bisect_left(edges, seen)] += 1
        outside += not edges or seen < edges[0] or seen > edges[-1]
    return FeatureCounts(counts, nulls, outside)


@given(tables())
@example(([[0.1], []], [[0.1, 1.0], [math.inf, -math.inf]]))
def test_values_are_counted_as_one_by_one(table: tuple[list[list[float]], list[list[float]]]) -> None:
    edges, rows = table
    values = np.array(rows, np.float64).reshape(len(rows), len(edges))
    expected = [counted_slowly(own, values[:, column].tolist()) for column, own in enumerate(edges)]
    assert counted(edges, values) == expected


@pytest.mark.parametrize("kind", ["counts", "amounts", "constant", "nulls"])
def test_a_sample_falls_into_bins_as_its_reference_says(kind: str) -> None:
    rng = np.random.default_rng(7)
    sample = {
        "counts": rng.geometric(0.3, 3_000).astype(np.float64),
        "amounts": np.round(rng.lognormal(3, 1, 3_000), 2).astype(np.float32).astype(np.float64),
        "constant": np.full(300, 7.0),
        "nulls": np.full(30, np.nan),
    }[kind]
    reference = reference_of(sample)
    (found,) = counted([reference.edges], sample[:, None])
    shares = reference.bin_shares()
    assert len(shares) == len(reference.edges) + 1
    assert sum(shares) == pytest.approx(1)
    assert found.nulls == reference.null_share * len(sample)
    if kind != "nulls":
        np.testing.assert_allclose(np.array(found.counts) / len(sample), shares, atol=1e-12)
        assert found.out_of_range == 0


# --- whole micro-batches ------------------------------------------------------------------------------------------


def counting() -> Pipeline:
    """A pipeline that counts."""
    pipeline = pipeline_of(profile())
    watched(profile(), pipeline)
    return pipeline


def some_events(first: int, count: int) -> Any:
    """Several cards and amounts; here and there a key is absent."""
    rng = np.random.default_rng(first)
    values = [
        json_of(
            event(
                number,
                card=f"4000{int(rng.integers(5)):012d}" if rng.random() > 0.1 else ...,
                device=f"d-{int(rng.integers(3))}" if rng.random() > 0.2 else ...,
                amount=float(np.round(rng.lognormal(3, 2), 2)),
            )
        )
        for number in range(first, first + count)
    ]
    return records_of(values, offsets=range(first, first + count))


def seen(pipeline: Pipeline, records: Any) -> tuple[Batch, np.ndarray]:
    """The events of a batch, and its features, which the next one overwrites."""
    batch, _ = pipeline.decoder.decode(records)
    outputs = pipeline.process(records)
    assert len(outputs.decisions) == len(batch)
    return batch, pipeline.state.newest_values(len(batch)).copy()


@pytest.mark.parametrize("events_at_once", [1, 41, 80, 1_024])
def test_a_tally_counts_all_that_was_decided_since_the_last_one_was_taken(
    events_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drift_module, "EVENTS_AT_ONCE", events_at_once)
    pipeline = counting()
    model, drift = demo_model(), pipeline.drift
    assert drift is not None
    batches = [seen(pipeline, some_events(first, 40)) for first in (0, 40)]
    ((versions, tally),) = drift.take().items()
    assert versions == Versions("demo/1", "demo/1") == pipeline.versions
    values = np.concatenate([values for _, values in batches])
    probabilities = model.score(values)
    assert tally.events == len(values) == 80
    assert tally.newest_ms == max(int(batch.times_ms.max()) for batch, _ in batches)
    assert tally.decisions() == dict(zip(tally.decisions(), pipeline.metrics.decisions["demo/1"].tolist(), strict=True))
    assert tally.scores().counts == counted_slowly(SCORE_EDGES, probabilities.tolist()).counts
    assert tally.features() == {
        feature.name: counted_slowly(
            model.manifest.reference[feature.name].edges, values[:, model.columns[place]].tolist()
        )
        for place, feature in enumerate(model.manifest.features)
    }
    absent = {name: sum(batch.keys[name].count(None) for batch, _ in batches) for name in ("card", "device", "ip")}
    assert absent["card"] > 0
    assert {name: counts.nulls for name, counts in tally.fields().items()} == absent | {"merchant": 0}
    assert drift.take() == {}


def taken(pipeline: Pipeline) -> Tally:
    """The only tally that there is."""
    assert pipeline.drift is not None
    (tally,) = pipeline.drift.take().values()
    return tally


def test_tallies_of_two_batches_add_up_to_that_of_both() -> None:
    often, once = counting(), counting()
    often.process(some_events(0, 25))
    one = taken(often)
    often.process(some_events(25, 25))
    other = taken(often)
    for first in (0, 25):
        once.process(some_events(first, 25))
    both = taken(once)
    assert one.features() != both.features()
    one.add(other)
    for fact in ("decisions", "scores", "features", "fields"):
        assert getattr(one, fact)() == getattr(both, fact)()
    assert (one.events, one.newest_ms) == (both.events, both.newest_ms)


@pytest.mark.parametrize("numbers", [[[50], [3]], [[3], [50]], [[3, 50, 7]]])
def test_the_newest_time_is_that_of_no_matter_which_event(numbers: list[list[int]]) -> None:
    pipeline = counting()
    for batch in numbers:
        pipeline.process(records_of([json_of(event(number)) for number in batch], offsets=batch))
    assert taken(pipeline).newest_ms == event(50)["event_time"]


def test_scores_are_counted_by_the_points_of_the_calibration() -> None:
    calibration = Calibration(
        probabilities=[0.0, 0.001, 0.02, 1.0], risk_scores=[0.0, 250.0, 500.0, 1000.0], rows=1, genuine=True
    )

    class Calibrated(NoModel):
        @property
        def calibration(self) -> Calibration:  # type: ignore[override]
            return calibration

    assert Bins(Calibrated.__new__(Calibrated)).score_edges == [0.001, 0.02]


def test_without_a_model_only_events_decisions_and_fields_are_counted() -> None:
    """Nothing is known of inputs, and there are no scores."""
    pipeline = pipeline_of(profile())
    drift, model = Drift(pipeline.state.spec), NoModel()
    batch, values = seen(pipeline, some_events(0, 9))
    decider = pipeline.champion.decider
    decisions = decider.decide(batch, values, demo_model().score(values))
    decisions.probabilities = np.full(9, np.nan, np.float32)
    flags = np.zeros((9, 4), np.uint8)
    drift.note(
        model,
        Versions(model.label, "demo/1"),
        batch,
        FeatureMatrix(values, flags, flags, np.zeros(9, np.bool_)),
        decisions,
    )
    ((versions, tally),) = drift.take().items()
    assert versions.model == "none/0"
    assert tally.features() == {}
    assert sum(tally.scores().counts) == 0
    assert sum(tally.decisions().values()) == tally.events == 9


# --- fields -------------------------------------------------------------------------------------------------------


def test_fields_that_are_absent_and_categories_that_nobody_knows() -> None:
    spec = full_config().feature_spec()
    modes = ["chip", None, "ecom", "moto", "fax", "chip"]
    cities = ["a", None, None, "b", "c", "d"]
    events = [
        Event(
            1_000 + row,
            row,
            100,
            {"card": "c-1", "merchant": None, "entry_mode": mode, "city": city},
            numbers={"distance_km": float(row) if row % 2 else None, "lat": None, "lon": None},
        )
        for row, (mode, city) in enumerate(zip(modes, cities, strict=True))
    ]
    drift, batch, none = Drift(spec), batch_of(events, spec), np.zeros(6, np.int64)
    decisions = Decisions(none, none, none.astype(np.float32), np.zeros(0, np.intp), [], [])
    flags = np.zeros((6, 2), np.uint8)
    matrix = FeatureMatrix(np.zeros((6, len(spec.names))), flags, flags, np.zeros(6, np.bool_))
    for _ in range(2):
        drift.note(NoModel(), Versions("none/0", ""), batch, matrix, decisions)
    (tally,) = drift.take().values()
    assert tally.fields() == {
        "card": FieldCounts(0),
        "merchant": FieldCounts(12),
        "city": FieldCounts(4),
        "distance_km": FieldCounts(6),
        "location": FieldCounts(12),
        "entry_mode": FieldCounts(2, 4),
    }
