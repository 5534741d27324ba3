"""Decisions as a table: what was decided when, by which model and policy, for which reasons, from which inputs.

The time of a decision is `decided_at`, the worker's clock when it was made: it is what people ask about, and it stays
what it is whatever becomes of the topic. Timestamps of records only say where reading begins.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec
import numpy as np
import pyarrow as pa

from engine.config import Config
from engine.kafka.decisions import CLOCKS_APART_MS_MAX, DecisionTopic
from engine.policy.settings import Action
from engine.table_file import table_file
from features.spec import FeatureSpec

BATCH_DECISIONS = 4_096
TIME = pa.timestamp("ms", "UTC")


class Source(msgspec.Struct, frozen=True, gc=False):
    """Where the event was."""

    topic: str
    partition: int
    offset: int


class ModelFacts(msgspec.Struct, frozen=True, gc=False):
    """Which model gave the probability."""

    name: str
    version: str
    sha256: str


class PolicyFacts(msgspec.Struct, frozen=True, gc=False):
    """Which policy made a decision of it."""

    name: str
    version: str


class Rule(msgspec.Struct, frozen=True, gc=False):
    """A rule or list that held."""

    id: str
    action: str


class Reason(msgspec.Struct, frozen=True, gc=False):
    """One reason, as people were told it."""

    code: str
    feature: str
    value: float | None
    text: str


class Decision(msgspec.Struct, frozen=True):
    """A record of the topic, as engine/emit.py writes it."""

    schema: Literal["tidegate.decision.v1"]
    decision_id: str
    event_id: str
    event_time: int
    decided_at: int
    source: Source
    decision: Action
    risk_score: int
    probability: float | None
    model: ModelFacts
    policy: PolicyFacts
    feature_set: str
    rules: list[Rule]
    reasons: list[Reason]
    inexact: list[str]
    degraded: list[str]
    features: dict[str, float | None] = {}


class Record(Protocol):
    """What is read of a record of Kafka."""

    def value(self) -> bytes | None: ...
    def partition(self) -> int: ...
    def offset(self) -> int: ...
    def timestamp(self) -> tuple[int, int]: ...


@dataclass(frozen=True, slots=True)
class Span:
    """Times from one on up to another, which is no more in it; None where there is no bound."""

    from_ms: int | None = None
    to_ms: int | None = None

    def holds(self, time_ms: int) -> bool:
        """Whether this time is in it."""
        return (self.from_ms is None or time_ms >= self.from_ms) and (self.to_ms is None or time_ms < self.to_ms)

    def is_over(self, time_ms: int) -> bool:
        """Whether nothing that is in it can stand behind a decision of this time, whatever clocks differ."""
        return self.to_ms is not None and time_ms >= self.to_ms + CLOCKS_APART_MS_MAX


@dataclass(slots=True)
class AuditSummary:
    """What became of the records.

    `unreadable` are no decisions, of the span by their records' timestamps; `first_unreadable` says where one is, and
    why. `other_features` were exported without inputs that the feature set of the configuration does not have.
    """

    records: int = 0
    decisions: int = 0
    with_features: int = 0
    other_features: int = 0
    unreadable: int = 0
    first_unreadable: str = ""


def export(
    config: Config,
    topic: DecisionTopic,
    out: Path,
    span: Span,
    advance: Callable[[AuditSummary], None] = lambda summary: None,
) -> AuditSummary:
    """Writes one row for each committed decision of the span; calls `advance` after each batch of them.

    The file appears whole or not at all. Raises as `DecisionTopic.read`.
    """
    spec, summary = config.feature_spec(), AuditSummary()
    named = frozenset(spec.names)
    with table_file(out, audit_schema(spec)) as table:
        found = decisions_in(topic.read(), span, summary, topic.leave)
        while batch := list(islice(found, BATCH_DECISIONS)):
            table.write(audit_columns(batch, spec))
            summary.decisions += len(batch)
            summary.with_features += sum(bool(decision.features) for decision in batch)
            summary.other_features += sum(not decision.features.keys() <= named for decision in batch)
            advance(summary)
    return summary


def decisions_in(
    records: Iterable[Record], span: Span, summary: AuditSummary, leave: Callable[[int], None]
) -> Iterator[Decision]:
    """The decisions of the span. Counts records, and those that are none; leaves partitions that have no more of it.

    Decisions stand in their partition in the order in which they were made, by one worker after the other.
    """
    decode = msgspec.json.Decoder(Decision).decode
    for record in records:
        summary.records += 1
        try:
            decision = decode(record.value() or b"")
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            if span.holds(record.timestamp()[1]):
                summary.unreadable += 1
                place = f"partition {record.partition()}, offset {record.offset()}"
                summary.first_unreadable = summary.first_unreadable or f"{place}: {error}"
            continue
        if span.holds(decision.decided_at):
            yield decision
        elif span.is_over(decision.decided_at):
            leave(record.partition())


def audit_schema(spec: FeatureSpec) -> pa.Schema:
    """The columns: a decision's fields, and its features by name, which are null where it carries none."""
    text = pa.string()
    rule = pa.struct([("id", text), ("action", text)])
    reason = pa.struct([("code", text), ("feature", text), ("value", pa.float64()), ("text", text)])
    return pa.schema(
        [
            ("decision_id", text),
            ("event_id", text),
            ("event_time", TIME),
            ("decided_at", TIME),
            ("source_topic", text),
            ("source_partition", pa.int32()),
            ("source_offset", pa.int64()),
            ("decision", text),
            ("risk_score", pa.int32()),
            ("probability", pa.float64()),
            ("model_name", text),
            ("model_version", text),
            ("model_sha256", text),
            ("policy_name", text),
            ("policy_version", text),
            ("feature_set", text),
            ("rules", pa.list_(rule)),
            (
                "reasons",
                pa.list_(reason),
            ),
            ("inexact", pa.list_(text)),
            ("degraded", pa.list_(text)),
            *((name, pa.float64()) for name in spec.names),
        ]
    )


def audit_columns(decisions: Sequence[Decision], spec: FeatureSpec) -> dict[str, Any]:
    """Decisions as columns of that schema."""
    schema, names = audit_schema(spec), spec.names
    columns: dict[str, list[Any]] = {
        "decision_id": [decision.decision_id for decision in decisions],
        "event_id": [decision.event_id for decision in decisions],
        "event_time": [decision.event_time for decision in decisions],
        "decided_at": [decision.decided_at for decision in decisions],
        "source_topic": [decision.source.topic for decision in decisions],
        "source_partition": [decision.source.partition for decision in decisions],
        "source_offset": [decision.source.offset for decision in decisions],
        "decision": [decision.decision for decision in decisions],
        "risk_score": [decision.risk_score for decision in decisions],
        "probability": [decision.probability for decision in decisions],
        "model_name": [decision.model.name for decision in decisions],
        "model_version": [decision.model.version for decision in decisions],
        "model_sha256": [decision.model.sha256 for decision in decisions],
        "policy_name": [decision.policy.name for decision in decisions],
        "policy_version": [decision.policy.version for decision in decisions],
        "feature_set": [decision.feature_set for decision in decisions],
        "rules": msgspec.to_builtins([decision.rules for decision in decisions]),
        "reasons": msgspec.to_builtins([decision.reasons for decision in decisions]),
        "inexact": [decision.inexact for decision in decisions],
        "degraded": [decision.degraded for decision in decisions],
    }
    arrays = {name: pa.array(values, schema.field(name).type) for name, values in columns.items()}
    inputs = np.array([list(map(decision.features.get, names)) for decision in decisions], np.float64)
    return arrays | {name: pa.array(inputs[:, at], mask=np.isnan(inputs[:, at])) for at, name in enumerate(names)}
