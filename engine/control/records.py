"""What the control plane reads and writes beside what the engine tells (engine/telemetry.py), as msgspec sees it."""

from typing import Literal

import msgspec

from engine.policy.settings import Action

LABEL_SCHEMA: Literal["tidegate.label.v1"] = "tidegate.label.v1"
CASE_SCHEMA: Literal["tidegate.case.v1"] = "tidegate.case.v1"
CASE_STATUS_SCHEMA: Literal["tidegate.case-status.v1"] = "tidegate.case-status.v1"
RETRAIN_SCHEMA: Literal["tidegate.retrain-request.v1"] = "tidegate.retrain-request.v1"

CaseStatus = Literal["open", "in_review", "closed"]
Outcome = Literal["fraud", "genuine"]


class GroupKey(msgspec.Struct, frozen=True, gc=False):
    """The entity that an alert is about."""

    type: str
    value: str


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """What cases need of an alert."""

    schema: Literal["tidegate.alert.v1"]
    alert_id: str
    event_id: str
    event_time: int
    decision: Action
    risk_score: int
    priority: str
    typology: str
    group_key: GroupKey | None
    amount_minor: int
    currency: str


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """What became known about an event; `labelled_at` in ms since 1970."""

    event_id: str
    label: Literal[0, 1]
    labelled_at: int
    label_source: str = ""
    author: str = ""
    schema: Literal["tidegate.label.v1"] = LABEL_SCHEMA


def status_key(case_id: str) -> bytes:
    """Of what was said of a case, which compaction keeps beside the record of the case."""
    return f"{case_id}@status".encode()


class CaseSaid(msgspec.Struct, frozen=True, kw_only=True):
    """What an analyst says of a case, on the topic of the cases."""

    case_id: str
    status: CaseStatus
    author: str
    said_at_ms: int
    outcome: Outcome | None = None
    schema: Literal["tidegate.case-status.v1"] = CASE_STATUS_SCHEMA

    def __post_init__(self) -> None:
        if (self.outcome is not None) != (self.status == "closed"):
            raise ValueError("outcome: is said of a case that is closed, and of no other")

    @property
    def key(self) -> bytes:
        """Of its record."""
        return status_key(self.case_id)


class CaseRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A case as it stands: the last record of its key holds."""

    case_id: str
    entity: str
    entity_key: str
    typology: str
    status: CaseStatus
    outcome: Outcome | None
    author: str
    said_at_ms: int
    alerts: int
    exposure_minor: int
    currency: str
    risk_score_max: int
    first_seen_ms: int
    last_seen_ms: int
    schema: Literal["tidegate.case.v1"] = CASE_SCHEMA


class RetrainRequest(msgspec.Struct, frozen=True, kw_only=True):
    """That another model should be trained, and why; `request_id` is the same however often it is written."""

    request_id: str
    application_id: str
    model: str
    at_ms: int
    evidence: dict[str, dict[str, float]]
    schema: Literal["tidegate.retrain-request.v1"] = RETRAIN_SCHEMA
