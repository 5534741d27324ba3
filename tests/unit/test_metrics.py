"""Metrics: the promised families, the numbers of what happened, and nobody's card in a label."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client import Histogram as PrometheusHistogram
from prometheus_client.parser import text_string_to_metric_families

from engine.events import REASONS
from engine.observe.metrics import (
    BATCH_BOUNDS,
    LATENCY_BOUNDS_S,
    ROLES,
    SCORE_BOUNDS,
    STAGE_BOUNDS_S,
    Challenger,
    Histogram,
    Metrics,
    MetricsCollector,
    latencies_s,
)
from engine.pipeline import Pipeline
from engine.policy.precedence import DECISIONS
from tests.pipelines import event, json_of, pipeline_of, profile, records_of

# Families without their prefix, and the labels of each.
FAMILIES = {
    "events": {"outcome"},
    "decisions": {"decision", "model_version"},
    "dead_letters": {"reason"},
    "duplicate_events": set(),
    "late_events": set(),
    "inexact_features": {"entity"},
    "transaction_commits": set(),
    "state_cache_hits": set(),
    "state_cache_misses": set(),
    "worker_role": {"role"},
    "broker_up": set(),
    "consumer_lag_events": {"partition"},
    "consumer_lag_seconds": set(),
    "state_entities": {"entity"},
    "state_dirty_bytes": set(),
    "replay_remaining_events": set(),
    "model": {"name", "version", "sha256", "role"},
    "canary_share": {"model"},
    "canary_failures": set(),
    "policy": {"name", "version"},
    "policy_swaps": set(),
    "policy_load_failures": set(),
    "rule_hits": {"rule"},
    "shadow_events": {"model", "outcome"},
    "shadow_failures": {"model"},
    "shadow_up": {"model"},
    "decision_samples": set(),
    "telemetry_records": {"outcome"},
    "event_to_decision_seconds": set(),
    "stage_seconds": {"stage"},
    "batch_events": set(),
    "inference_batch_rows": set(),
    "score": set(),
}


def scraped(metrics: Metrics) -> dict[str, float]:
    """Every sample by its name and labels, as a scrape reads it."""
    registry = CollectorRegistry()
    registry.register(MetricsCollector(metrics))
    found = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            labels = "".join(f",{name}={value}" for name, value in sorted(sample.labels.items()))
            found[sample.name.removeprefix("tidegate_") + labels] = sample.value
    return found


def families(metrics: Metrics) -> dict[str, tuple[str, set[str]]]:
    """Kind and labels of every family."""
    found = {}
    for family in MetricsCollector(metrics).collect():
        labels = {name for sample in family.samples for name in sample.labels} - {"le"}
        found[family.name] = (family.type, labels)
    return found


@pytest.fixture
def busy() -> Pipeline:
    """A pipeline that has seen some of everything."""
    rules = "[[policy.rules]]\nid = 'many'\nwhen = 'card.count.1h > 3'\nweight = 5"
    pipeline = pipeline_of(profile("ring_events_max = 4", {"challenge": 1, "review": 2, "decline": 3}, rules))
    values = [json_of(event(n, card=f"400012341234{n:04d}", merchant="m-1")) for n in range(20)]
    values += [values[0], values[1], b"{", b"", json_of(event(20, card=...)), json_of(event(21, event_time=1))]
    pipeline.process(records_of(values))
    pipeline.metrics.lag_events = {0: 3, 11: 0}
    pipeline.metrics.state_entities = pipeline.state.entities()
    pipeline.metrics.event_to_decision.observe(0.2)
    pipeline.metrics.canary = {"name": "demo", "version": "2", "sha256": "ab"}, 0.05
    challenger = Challenger("demo/3")
    challenger.facts = {"name": "demo", "version": "3", "sha256": "cd"}
    challenger.scored, challenger.dropped = 20, 2
    pipeline.metrics.challengers = [challenger]
    return pipeline


def test_the_promised_families_are_there_with_their_labels(busy: Pipeline) -> None:
    found = families(busy.metrics)
    assert {name.removeprefix("tidegate_") for name in found} >= FAMILIES.keys()
    assert all(name.startswith("tidegate_") for name in found)
    labels = {name.removeprefix("tidegate_"): labels for name, (_, labels) in found.items()}
    assert {name: labels[name] for name in FAMILIES} == FAMILIES


def test_counters_end_in_total_and_durations_are_in_seconds(busy: Pipeline) -> None:
    kinds = {name: kind for name, (kind, _) in families(busy.metrics).items()}
    names = {name.partition(",")[0] for name in scraped(busy.metrics)}
    for name, kind in kinds.items():
        plain = name.removeprefix("tidegate_")
        assert (f"{plain}_total" in names) == (kind == "counter"), name
        assert not plain.endswith(("_ms", "_us", "_seconds_total"))
    assert "model_info" in names


def test_the_numbers_are_what_happened(busy: Pipeline) -> None:
    found = scraped(busy.metrics)
    outcomes = {name: found[f"events_total,outcome={name}"] for name in ("decided", "duplicate", "dead_letter")}
    assert outcomes == {"decided": 22, "duplicate": 2, "dead_letter": 2}
    assert found["duplicate_events_total"] == 2
    assert found["dead_letters_total,reason=malformed_json"] == 1
    assert found["dead_letters_total,reason=empty_value"] == 1
    assert found["late_events_total"] == 1
    assert found["shadow_events_total,model=demo/3,outcome=scored"] == 20
    assert found["shadow_events_total,model=demo/3,outcome=dropped"] == 2
    assert found["shadow_up,model=demo/3"] == 1
    assert found["canary_share,model=demo/2"] == 0.05
    roles = {name.partition("role=")[2].partition(",")[0] for name in found if name.startswith("model_info")}
    assert roles == {"champion", "canary", "challenger"}
    version = busy.metrics.model["name"] + "/" + busy.metrics.model["version"]
    decided = [found[f"decisions_total,decision={name},model_version={version}"] for name in DECISIONS]
    assert sum(decided) == 22
    assert found["batch_events_sum"] == 26
    assert found["batch_events_count"] == 1
    assert found["inference_batch_rows_sum"] == 22
    assert found["score_count"] == 22
    assert found["state_entities,entity=card"] == 21
    assert found["state_entities,entity=merchant"] == 1
    assert found["inexact_features_total,entity=merchant"] > 0
    # Of the card whose event is decades older than all others, nothing is known: older events would be forgotten.
    assert found["inexact_features_total,entity=card"] == 6
    assert found["consumer_lag_events,partition=11"] == 0
    stages = {name for name in found if name.startswith("stage_seconds_count")}
    assert stages == {
        f"stage_seconds_count,stage={stage}" for stage in ("decode", "dedupe", "features", "score", "decide", "encode")
    }


def test_every_outcome_of_every_event_is_counted_once(busy: Pipeline) -> None:
    found = scraped(busy.metrics)
    assert sum(value for name, value in found.items() if name.startswith("events_total,")) == busy.metrics.events
    assert busy.metrics.events == 26


def test_the_worker_has_one_role() -> None:
    metrics = pipeline_of(profile()).metrics
    for role in ROLES:
        metrics.role = role
        found = scraped(metrics)
        assert [name for name in ROLES if found[f"worker_role,role={name}"]] == [role]


def test_no_label_names_a_card_or_an_event(busy: Pipeline) -> None:
    text = "\n".join(scraped(busy.metrics))
    assert "4000" not in text
    assert "m-1" not in text
    assert "e20" not in text
    reasons = {name.rpartition("=")[2] for name in scraped(busy.metrics) if name.startswith("dead_letters_total")}
    assert reasons <= set(REASONS)


def test_an_entity_is_looked_up_only_where_it_is_named() -> None:
    """An absent key is neither in memory nor missed there."""
    pipeline = pipeline_of(profile())
    absent = {"merchant": ..., "device": ..., "ip": ...}
    pipeline.process(records_of([json_of(event(n, **absent)) for n in range(10)]))
    assert (pipeline.state.cache_hits, pipeline.state.cache_misses) == (9, 1)


# --- histograms ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bounds", [LATENCY_BOUNDS_S, STAGE_BOUNDS_S, BATCH_BOUNDS, SCORE_BOUNDS])
@given(data=st.data())
def test_buckets_are_those_of_the_clients_own_histogram(bounds: tuple[float, ...], data: st.DataObject) -> None:
    edges = [*bounds, *(np.nextafter(bound, 1e9) for bound in bounds), 0.0, -1.0, 1e9]
    values = data.draw(st.lists(st.one_of(st.sampled_from(edges), st.floats(-1, 20_000)), max_size=20))
    cuts = data.draw(st.integers(0, 20))
    ours = Histogram(bounds)
    ours.observe_all(np.array(values[:cuts]))
    for value in values[cuts:]:
        ours.observe(value)
    registry = CollectorRegistry()
    theirs = PrometheusHistogram("theirs", "-", buckets=bounds, registry=registry)
    for value in values:
        theirs.observe(value)
    (family,) = registry.collect()
    buckets = [(s.labels["le"], s.value) for s in family.samples if s.name == "theirs_bucket"]
    assert [(float(le), count) for le, count in ours.buckets()] == [(float(le), count) for le, count in buckets]
    assert ours.count == len(values)
    assert ours.total == pytest.approx(sum(values), rel=1e-9, abs=1e-6)


def test_latency_counts_from_the_record_and_leaves_out_what_has_no_timestamp() -> None:
    assert latencies_s(np.array([1_000, -1, 1_750]), 2_000).tolist() == [1.0, 0.25]
    assert latencies_s(np.array([-1]), 2_000).tolist() == []
