"""What the engine tells those who watch it: samples of its decisions, and counts of what it has seen.

decisions-sample   a Sample for each decision that is not approve, and for a share of the others, in the transaction of
                   the decisions; weights make sums over samples those over all decisions
telemetry          a Telemetry for each pair of model and policy every few seconds; one may be lost, none comes twice

Whoever reads them takes fields that it does not know for none: later versions may have more.
"""

from typing import Literal

import msgspec

from engine.policy.settings import Action

SAMPLE_SCHEMA: Literal["tidegate.decision-sample.v1"] = "tidegate.decision-sample.v1"
TELEMETRY_SCHEMA: Literal["tidegate.telemetry.v1"] = "tidegate.telemetry.v1"


class Versions(msgspec.Struct, frozen=True):
    """Who decided, both as name/version: the model and the policy."""

    model: str
    policy: str


class Source(msgspec.Struct, frozen=True):
    """Where the event stands in the input."""

    topic: str
    partition: int
    offset: int


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One decision, with what its quality is judged by.

    `weight`: how many decisions it stands for. `score` is the model's probability, null where it gave none. `channel`
    and `country` are the fields that the configuration says. `card`: what the decision is keyed by. `flags` are what
    the decision has as `degraded`.
    """

    schema: Literal["tidegate.decision-sample.v1"] = SAMPLE_SCHEMA
    decision_id: str
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
    flags: list[str]


class Histogram(msgspec.Struct, frozen=True):
    """`counts[i]`: values above `edges[i - 1]` and up to `edges[i]`; the first and the last bin are open."""

    edges: list[float]
    counts: list[int]

    def __post_init__(self) -> None:
        if len(self.counts) != len(self.edges) + 1:
            raise ValueError("counts: must have one entry more than edges")


class FeatureCounts(msgspec.Struct, frozen=True):
    """One input of the model. `counts` by the bins of its reference: `models.reference.Reference.bin_shares`.

    Nulls count in `nulls` and nowhere else. `out_of_range`: of `counts`, those below or above all of the reference.
    """

    counts: list[int]
    nulls: int
    out_of_range: int


class FieldCounts(msgspec.Struct, frozen=True, omit_defaults=True):
    """One field of the events. `unseen`: values that are none of the categories that the features know.

    Null where the features know none.
    """

    nulls: int
    unseen: int | None = None


class Telemetry(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker decided by one model and policy in some seconds of the wall clock, `from_ms` to `to_ms`.

    Only what was committed counts. `event_time_ms_max` is null where nothing was decided; `features` are empty where
    the model has no reference.
    """

    schema: Literal["tidegate.telemetry.v1"] = TELEMETRY_SCHEMA
    application_id: str
    worker_id: str
    from_ms: int
    to_ms: int
    events: int
    decisions: dict[str, int]
    event_time_ms_max: int | None
    versions: Versions
    score: Histogram
    features: dict[str, FeatureCounts]
    fields: dict[str, FieldCounts]

    @property
    def identity(self) -> str:
        """The same for each copy of the record, and for no other."""
        return f"{self.worker_id}-{self.from_ms}-{self.to_ms}-{self.versions.policy}"


_encoder = msgspec.json.Encoder()
_samples = msgspec.json.Decoder(Sample)
_telemetry = msgspec.json.Decoder(Telemetry)


def encode(record: Sample | Telemetry) -> bytes:
    """The value of a record."""
    return _encoder.encode(record)


def decode_sample(value: bytes | None) -> Sample:
    """Reads a record of `decisions-sample`; ValueError where it is none that this version knows."""
    return _samples.decode(value or b"")


def decode_telemetry(value: bytes | None) -> Telemetry:
    """Reads a record of `telemetry`; ValueError where it is none that this version knows."""
    return _telemetry.decode(value or b"")
