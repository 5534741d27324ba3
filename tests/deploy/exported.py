"""Every metric that a rule or a panel may name, with its labels, and values of labels where those are fixed."""

from functools import cache
from pathlib import Path

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from engine.config import parse_config
from engine.control.figures import PlaneCollector
from engine.control.plane import Plane, Tables
from engine.control.settings import Control
from engine.events import REASONS
from engine.observe.metrics import (
    LATENCY_BOUNDS_S,
    ROLES,
    STAGE_BOUNDS_S,
    Challenger,
    Histogram,
    Metrics,
    MetricsCollector,
)
from engine.policy.precedence import DECISIONS
from engine.policy.settings import Policy

# What Prometheus itself adds.
PROMETHEUS: dict[str, set[str]] = {"up": set(), "ALERTS": {"alertname", "alertstate", "severity"}}
TARGET_LABELS = {"job", "instance"}

VALUES: dict[str, set[str]] = {
    "role": {*ROLES, "champion", "canary", "challenger"},
    "outcome": {"decided", "duplicate", "dead_letter", "scored", "failed", "dropped", "undelivered"},
    "decision": set(DECISIONS),
    "reason": set(REASONS),
    "le": {f"{bound:g}" for bound in (*LATENCY_BOUNDS_S, *STAGE_BOUNDS_S)} | {"+Inf"},
    "stage": {
        *("consume", "decode", "dedupe", "features", "score", "decide", "encode", "shadow", "produce"),
        *("commit", "snapshot", "flush"),
    },
    "job": {"tidegate", "tidegate-control", "$job"},
    "bound": {"value", "low", "high"},
    "alertstate": {"firing", "pending"},
    "severity": {"page", "ticket"},
}


@cache
def of_engine() -> dict[str, set[str]]:
    """Labels of every sample that a worker exports once something of each kind has happened."""
    spec = parse_config("", Path(), {}).feature_spec()
    model = {"name": "demo", "version": "1", "sha256": ""}
    metrics = Metrics(spec, model, Policy())
    challenger = Challenger("demo/2")
    challenger.facts = model
    metrics.challengers = [challenger]
    metrics.canary = model, 0.05
    metrics.lag_events = {0: 0}
    for counts in (metrics.outcomes, metrics.dead_letters, metrics.rule_hits, metrics.state_entities):
        counts["any"] = 1
    metrics.stage_seconds = {"decode": Histogram(STAGE_BOUNDS_S)}
    registry = CollectorRegistry()
    registry.register(MetricsCollector(metrics))
    ProcessCollector(registry=registry)
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        assert family.samples, f"{family.name} has no sample: make it have one here"
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


@cache
def of_control() -> dict[str, set[str]]:
    """Labels of every sample that the control plane can export."""
    plane = Plane(Control(), Tables({}, {}, {}, {}, {}), lambda _: None)
    found = {}
    for family in PlaneCollector(plane).collect():
        suffix = "_total" if family.type == "counter" else ""
        found[f"{family.name}{suffix}"] = set(family._labelnames)  # type: ignore[attr-defined]  # of a family without samples
    return found
