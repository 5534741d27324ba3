"""What the control plane knows, as Prometheus families and as JSON."""

from collections.abc import Iterator
from math import isfinite
from typing import Any

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from engine.control.alarms import Alarm
from engine.control.plane import Plane
from engine.control.quality import Estimate, Figures, segments
from engine.observe.logs import masked

CASES_SHOWN = 200
RATES = ("precision", "recall", "false_positive_rate")
VALUES = ("value_caught", "value_missed")


class PlaneCollector(Collector):
    """Families of a scrape, those of docs/control.md."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane

    def collect(self) -> Iterator[Metric]:
        """Every family."""
        yield from self._quality()
        yield from self._drift()
        plane = self._plane
        cases = GaugeMetricFamily("tidegate_cases", "Cases by status; closed ones by outcome.", labels=["status"])
        counts = plane.desk.counts()
        for status in ("open", "in_review", "fraud", "genuine"):
            cases.add_metric([status], counts[status])
        yield cases
        records = CounterMetricFamily(
            "tidegate_control_records", "Records by topic and whether they could be read.", labels=["topic", "outcome"]
        )
        for (topic, outcome), count in sorted(plane.records.items()):
            records.add_metric([topic, outcome], count)
        yield records
        lag = GaugeMetricFamily("tidegate_control_lag_events", "Records behind committed offsets.", labels=["topic"])
        for topic, events in plane.lags().items():
            lag.add_metric([topic], events)
        yield lag
        yield CounterMetricFamily("tidegate_retrain_requests", "Times another model was asked for.", plane.requests)

    def _quality(self) -> Iterator[Metric]:
        by_model = _by(self._plane, "model")
        told = [(name, name, f"The {name} of decisions, and its 95% interval.") for name in RATES]
        told += [(name, f"{name}_minor", f"Fraud, {name}, in minor units.") for name in VALUES]
        for name, shown, text in told:
            family = GaugeMetricFamily(f"tidegate_quality_{shown}", text, labels=["model", "bound"])
            for model, figures in by_model.items():
                _add_bounds(family, model, getattr(figures, name))
            yield family
        labelled = GaugeMetricFamily("tidegate_quality_labelled", "Labels that figures rest on.", labels=["model"])
        for model, figures in by_model.items():
            labelled.add_metric([model], figures.labelled)
        yield labelled
        cards = GaugeMetricFamily("tidegate_quality_card_precision", "Of the first cards of a day, with fraud.")
        if (share := self._plane.joined.card_precision(self._plane.clock_ms())) is not None:
            cards.add_metric([], share)
        yield cards

    def _drift(self) -> Iterator[Metric]:
        watch = self._plane.watch
        feature_psi = GaugeMetricFamily(
            "tidegate_feature_psi", "Stability index of a feature.", labels=["application", "feature", "window"]
        )
        score_psi = GaugeMetricFamily(
            "tidegate_score_psi", "Stability index of the score.", labels=["application", "window"]
        )
        shares = GaugeMetricFamily(
            "tidegate_data_share",
            "Share of values that are null, unseen or out of range.",
            labels=["application", "kind", "field", "window"],
        )
        for application, found in watch.readings.items():
            for reading in found:
                kind, _, field = reading.signal.partition(":")
                if kind == "psi":
                    feature_psi.add_metric([application, field, reading.window], reading.value)
                elif kind == "psi_score":
                    score_psi.add_metric([application, reading.window], reading.value)
                elif field:
                    shares.add_metric([application, kind, field, reading.window], reading.value)
        yield from (feature_psi, score_psi, shares)
        alarms = GaugeMetricFamily(
            "tidegate_drift_alarm", "1 for each alarm that is raised.", labels=["application", "signal"]
        )
        raised = GaugeMetricFamily("tidegate_drift_alarms", "How many alarms are raised.", labels=["application"])
        age = GaugeMetricFamily(
            "tidegate_telemetry_age_seconds", "Since the last telemetry of an application.", labels=["application"]
        )
        for application, known in watch.alarms.items():
            for signal in known.raised:
                alarms.add_metric([application, signal], 1)
            raised.add_metric([application], len(known.raised))
        for application, last_ms in watch.last_ms().items():
            age.add_metric([application], (self._plane.clock_ms() - last_ms) / 1000)
        yield from (alarms, raised, age)


def quality_json(plane: Plane) -> dict[str, Any]:
    """Over all, by model and by segment."""
    now_ms = plane.clock_ms()
    return {
        "window": plane.settings.quality.window,
        "overall": _figures_json(plane.joined.figures(now_ms)),
        "card_precision": plane.joined.card_precision(now_ms),
        "cards": plane.settings.quality.cards,
        **{key: {name: _figures_json(of) for name, of in _by(plane, key).items()} for key in _SEGMENTS},
    }


def drift_json(plane: Plane) -> dict[str, Any]:
    """Of each application: its model, alarms that are raised, and the readings of the last look."""
    watch = plane.watch
    return {
        application: {
            "model": known.model,
            "looked_at_ms": known.looked_at_ms,
            "alarms": {name: _alarm_json(alarm) for name, alarm in sorted(known.raised.items())},
            "asked": [{"model": asked.model, "at_ms": asked.at_ms} for asked in known.asked],
            "readings": [
                {"signal": one.signal, "window": one.window, "value": one.value, "limit": one.limit, "over": one.over}
                for one in watch.readings.get(application, [])
            ],
        }
        for application, known in watch.alarms.items()
    }


def cases_json(plane: Plane, status: str | None) -> dict[str, Any]:
    """The cases that were last heard of, keys of entities masked."""
    standing = plane.desk.standing.values()
    wanted = [record for record in standing if status is None or record.status == status]
    newest = sorted(wanted, key=lambda record: (-record.last_seen_ms, record.case_id))[:CASES_SHOWN]
    return {
        "cases": [msgspec.to_builtins(record) | {"entity_key": masked(record.entity_key)} for record in newest],
        "counts": dict(plane.desk.counts()),
    }


def models_json(plane: Plane) -> dict[str, Any]:
    """Every command on the control topic, and from when to when telemetry came from which models."""
    seen: dict[str, dict[str, list[int]]] = {}
    for application, starts in plane.watch.buckets.items():
        for models in starts.values():
            for model, bucket in models.items():
                span = seen.setdefault(application, {}).setdefault(model, [bucket.start_ms, bucket.last_ms])
                span[:] = [min(span[0], bucket.start_ms), max(span[1], bucket.last_ms)]
    return {
        "rollouts": [msgspec.to_builtins(rollout) for rollout in plane.rollouts()],
        "deciding": {
            application: {model: {"from_ms": first, "to_ms": last} for model, (first, last) in models.items()}
            for application, models in seen.items()
        },
    }


_SEGMENTS = ("model", "channel", "country")


def _by(plane: Plane, key: str) -> dict[str, Figures]:
    now_ms = plane.clock_ms()
    first_day = plane.joined.first_day(now_ms)
    groups = [group for group in plane.joined.quality.cells if group.day >= first_day]
    return {name: plane.joined.figures(now_ms, **{key: name}) for name in segments(groups, key)}


def _figures_json(figures: Figures) -> dict[str, Any]:
    found: dict[str, Any] = {name: _estimate_json(getattr(figures, name)) for name in (*RATES, *VALUES)}
    return {"labelled": figures.labelled, **found}


def _estimate_json(estimate: Estimate) -> dict[str, float | None]:
    bounds = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    return {name: round(value, 9) if value is not None and isfinite(value) else None for name, value in bounds.items()}


def _alarm_json(alarm: Alarm) -> dict[str, float]:
    return {"value": alarm.value, "limit": alarm.limit, "events": alarm.events, "raised_at_ms": alarm.raised_at_ms}


def _add_bounds(family: GaugeMetricFamily, model: str, estimate: Estimate) -> None:
    for bound, value in _estimate_json(estimate).items():
        if value is not None:
            family.add_metric([model, bound], value)
