"""A small world of decisions whose truth is known: what the engine would have sampled, and what becomes known later."""

from dataclasses import dataclass

import msgspec
import numpy as np

from engine.control.records import Alert, GroupKey, Label
from engine.policy.settings import Action
from engine.telemetry import FeatureCounts, FieldCounts, Histogram, Sample, Source, Telemetry, Versions

NOW_MS = 1_790_000_000_000
VERSIONS = Versions("fraud/1", "p/1")
CHANNELS = ("web", "pos", None)
COUNTRIES = ("DE", "FR")


@dataclass(frozen=True)
class World:
    """Every decision, every label, and which of the decisions are sampled at a rate."""

    samples: list[Sample]
    labels: list[Label]
    sampled: list[Sample]


def sample(number: int, decision: Action = "approve", **changes: object) -> Sample:
    made = Sample(
        decision_id=f"transactions-0-{number}",
        event_id=f"event-{number}",
        event_time_ms=NOW_MS - 1_000 + number,
        decided_at_ms=NOW_MS + number,
        source=Source("transactions", 0, number),
        decision=decision,
        score=0.5,
        risk_score=500,
        weight=1.0,
        amount_minor=1_000,
        currency="EUR",
        channel="web",
        country="DE",
        versions=VERSIONS,
        flags=[],
        card=f"card-{number % 50}",
    )
    return msgspec.structs.replace(made, **changes)


def label(number: int, value: int, after_ms: int = 1_000_000) -> Label:
    return Label(event_id=f"event-{number}", label=1 if value else 0, labelled_at=NOW_MS + after_ms)


def world(seed: int, events: int, rate: float, fraud_share: float = 0.01, recall: float = 0.7) -> World:
    """Decisions that find so much of the fraud, and 1% of the rest; each is labelled."""
    rng = np.random.default_rng(seed)
    fraud = rng.random(events) < fraud_share
    flagged = np.where(fraud, rng.random(events) < recall, rng.random(events) < 0.01)
    drawn = rng.random(events) < rate
    samples, labels, sampled = [], [], []
    for number in range(events):
        made = sample(
            number,
            "review" if flagged[number] else "approve",
            weight=1.0 if flagged[number] else 1 / rate,
            amount_minor=int(rng.integers(100, 100_000)),
            risk_score=int(rng.integers(0, 1_000)),
            channel=CHANNELS[number % 3],
            country=COUNTRIES[number % 2],
        )
        samples.append(made)
        labels.append(label(number, int(fraud[number])))
        if flagged[number] or drawn[number]:
            sampled.append(made)
    return World(samples, labels, sampled)


def alert(number: int, value: str = "4111", after_ms: int = 0, typology: str = "testing", **changes: object) -> Alert:
    made = Alert(
        schema="tidegate.alert.v1",
        alert_id=f"alert-{number}",
        event_id=f"event-{number}",
        event_time=NOW_MS + after_ms,
        decision="review",
        risk_score=700,
        priority="medium",
        typology=typology,
        group_key=GroupKey("card", value),
        amount_minor=500,
        currency="EUR",
    )
    return msgspec.structs.replace(made, **changes)


def telemetry(number: int, counts: list[int], every_ms: int = 5_000, **changes: object) -> Telemetry:
    """The record of this number, `every_ms` long each, with these counts of the only feature."""
    start_ms = NOW_MS + number * every_ms
    made = Telemetry(
        application_id="tidegate",
        worker_id="a",
        from_ms=start_ms,
        to_ms=start_ms + every_ms,
        events=sum(counts),
        decisions={"approve": sum(counts)},
        event_time_ms_max=start_ms,
        versions=VERSIONS,
        score=Histogram([0.5], [sum(counts), 0]),
        features={"event.amount": FeatureCounts(counts, 0, 0)},
        fields={"channel": FieldCounts(0, 0)},
    )
    return msgspec.structs.replace(made, **changes)
