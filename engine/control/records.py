"""What the control plane reads and writes, as msgspec sees it."""

from typing import Literal

import msgspec

from engine.policy.settings import Action

LABEL_SCHEMA: Literal["tidegate.label.v1"] = "tidegate.label.v1"
CASE_SCHEMA: Literal["tidegate.case.v1"] = "tidegate.case.v1"
CASE_STATUS_SCHEMA: Literal["tidegate.case-status.v1"] = "tidegate.case-status.v1"
RETRAIN_SCHEMA: Literal["tidegate.retrain-request.v1"] = "tidegate.retrain-request.v1"

CaseStatus = Literal["open", "in_review", "closed"]
Outcome = Literal["fraud", "genuine"]


class Source(msgspec.Struct, frozen=True, gc=False):
    """Where the event was."""

    topic: str
    partition: int
    offset: int


class Versions(msgspec.Struct, frozen=True, gc=False):
    """What decided: the model as name/version, and the policy."""

    model: str
    policy: str


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """A decision of `decisions-sample`. `weight`: for how many decisions it stands."""

    schema: Literal["tidegate.decision-sample.v1"]
    event_id: str
    event_time_ms: int
    decided_at_ms: int
    source: Source
    decision: Action
    score: float | None
    risk_score: int
    weight: float
    amount_minor: int
    currency: str
    channel: str | None
    country: str | None
    versions: Versions
    card: str | None


class ScoreCounts(msgspec.Struct, frozen=True):
    """`counts[i]`: scores above edges[i - 1], up to edges[i]; the last one counts what is above all edges."""

    edges: list[float]
    counts: list[int]

    def __post_init__(self) -> None:
        if len(self.counts) != len(self.edges) + 1:
            raise ValueError("score.counts: must have one entry more than edges")


class FeatureCounts(msgspec.Struct, frozen=True):
    """The same over the edges of the manifest's reference. What is out of range stands in the outer bins too."""

    counts: list[int]
    nulls: int
    out_of_range: int


class FieldCounts(msgspec.Struct, frozen=True):
    """How often a field of the input was absent, or had a value that the features know nothing of.

    `unseen` is None where they know no categories.
    """

    nulls: int
    unseen: int | None = None


class Telemetry(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker decided between two moments of its clock, by one model and policy."""

    schema: Literal["tidegate.telemetry.v1"]
    application_id: str
    worker_id: str = ""
    from_ms: int
    to_ms: int
    events: int
    decisions: dict[str, int]
    event_time_ms_max: int | None
    versions: Versions
    score: ScoreCounts
    features: dict[str, FeatureCounts]
    fields: dict[str, FieldCounts]

    @property
    def identity(self) -> str:
        """The same for each copy of the record, and for no other."""
        return f"{self.worker_id}-{self.from_ms}-{self.to_ms}-{self.versions.policy}"


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
        """Of its record, which compaction keeps beside that of the case."""
        return f"{self.case_id}@status".encode()


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
