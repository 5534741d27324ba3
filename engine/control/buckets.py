"""Telemetry summed up by model and by short stretches of time, in any order, each record once.

telemetry   |--|--|---|--|---|--|--|
buckets     |    10 s    |    10 s    |      where a record ends
windows           (----- 30 s -------]       the last few buckets
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import msgspec
import numpy as np

from engine.telemetry import FeatureCounts, FieldCounts, Histogram, Telemetry

T = TypeVar("T")


class Bucket(msgspec.Struct, frozen=True, kw_only=True):
    """What one model's telemetry of `wide_ms` from `start_ms` adds up to; `seen` names the records in it."""

    application_id: str
    model: str
    policy: str
    start_ms: int
    wide_ms: int
    seen: list[str]
    last_ms: int
    events: int
    decisions: dict[str, int]
    event_time_ms_max: int | None
    score: Histogram
    features: dict[str, FeatureCounts]
    fields: dict[str, FieldCounts]

    @property
    def key(self) -> bytes:
        """In the table."""
        return bucket_key(self.application_id, self.model, self.start_ms)


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Bucket)


def bucket_key(application_id: str, model: str, start_ms: int) -> bytes:
    """Of one bucket."""
    return f"{application_id}|{model}|{start_ms}".encode()


def bucket_start_ms(telemetry: Telemetry, bucket_ms: int) -> int:
    """Of the bucket that a record belongs to."""
    return telemetry.to_ms // bucket_ms * bucket_ms


def encode_bucket(bucket: Bucket) -> bytes:
    """As the table holds it."""
    return _encoder.encode(bucket)


def decode_bucket(value: bytes) -> Bucket:
    """As the table holds it."""
    return _decoder.decode(value)


def with_telemetry(bucket: Bucket | None, telemetry: Telemetry, bucket_ms: int) -> Bucket:
    """The bucket after this record; the same where it has it."""
    if bucket is None:
        return Bucket(
            application_id=telemetry.application_id,
            model=telemetry.versions.model,
            policy=telemetry.versions.policy,
            start_ms=bucket_start_ms(telemetry, bucket_ms),
            wide_ms=bucket_ms,
            seen=[telemetry.identity],
            last_ms=telemetry.to_ms,
            events=telemetry.events,
            decisions=telemetry.decisions,
            event_time_ms_max=telemetry.event_time_ms_max,
            score=telemetry.score,
            features=telemetry.features,
            fields=telemetry.fields,
        )
    if telemetry.identity in bucket.seen:
        return bucket
    return msgspec.structs.replace(
        bucket,
        policy=telemetry.versions.policy,
        seen=[*bucket.seen, telemetry.identity],
        last_ms=max(bucket.last_ms, telemetry.to_ms),
        events=bucket.events + telemetry.events,
        decisions={
            name: bucket.decisions.get(name, 0) + telemetry.decisions.get(name, 0)
            for name in bucket.decisions | telemetry.decisions
        },
        event_time_ms_max=_later(bucket.event_time_ms_max, telemetry.event_time_ms_max),
        score=_score_sum(bucket.score, telemetry.score),
        features=_merged(bucket.features, telemetry.features, _feature_sum),
        fields=_merged(bucket.fields, telemetry.fields, _field_sum),
    )


@dataclass(frozen=True, slots=True)
class Window:
    """The sum of some buckets of one model."""

    events: int
    last_ms: int
    event_time_ms_max: int | None
    score: Histogram
    features: dict[str, FeatureCounts]
    fields: dict[str, FieldCounts]


def summed(buckets: list[Bucket]) -> Window:
    """Of one bucket or more, which stand in the order of time."""
    events, last = 0, buckets[-1]
    event_time_ms_max: int | None = None
    for bucket in buckets:
        events += bucket.events
        event_time_ms_max = _later(event_time_ms_max, bucket.event_time_ms_max)
    scores = [bucket.score for bucket in buckets if bucket.score.edges == last.score.edges]
    return Window(
        events=events,
        last_ms=max(bucket.last_ms for bucket in buckets),
        event_time_ms_max=event_time_ms_max,
        score=Histogram(last.score.edges, np.sum([score.counts for score in scores], axis=0).tolist()),
        features={name: _feature_total(name, buckets) for name in last.features},
        fields={
            name: FieldCounts(
                sum(bucket.fields[name].nulls for bucket in buckets if name in bucket.fields),
                _known_sum([bucket.fields[name].unseen for bucket in buckets if name in bucket.fields]),
            )
            for name in last.fields
        },
    )


def _feature_total(name: str, buckets: list[Bucket]) -> FeatureCounts:
    wide = len(buckets[-1].features[name].counts)
    # Another reference, of another model of this name, cannot be added to it.
    found = [bucket.features[name] for bucket in buckets if name in bucket.features]
    alike = [feature for feature in found if len(feature.counts) == wide]
    return FeatureCounts(
        np.sum([feature.counts for feature in alike], axis=0).tolist(),
        sum(feature.nulls for feature in alike),
        sum(feature.out_of_range for feature in alike),
    )


def _later(one: int | None, other: int | None) -> int | None:
    return max((time for time in (one, other) if time is not None), default=None)


def _merged(one: dict[str, T], other: dict[str, T], add: Callable[[T, T], T]) -> dict[str, T]:
    both = {name: add(value, other[name]) for name, value in one.items() if name in other}
    return {**one, **other, **both}


def _score_sum(one: Histogram, other: Histogram) -> Histogram:
    if one.edges != other.edges:
        return other
    return Histogram(one.edges, _added(one.counts, other.counts))


def _feature_sum(one: FeatureCounts, other: FeatureCounts) -> FeatureCounts:
    if len(one.counts) != len(other.counts):
        return other
    return FeatureCounts(
        _added(one.counts, other.counts), one.nulls + other.nulls, one.out_of_range + other.out_of_range
    )


def _field_sum(one: FieldCounts, other: FieldCounts) -> FieldCounts:
    return FieldCounts(one.nulls + other.nulls, _known_sum([one.unseen, other.unseen]))


def _known_sum(counts: list[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _added(one: list[int], other: list[int]) -> list[int]:
    return [a + b for a, b in zip(one, other, strict=True)]
