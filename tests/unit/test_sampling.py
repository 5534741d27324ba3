"""Samples of decisions: which they are, what they weigh, and that each says what its decision says."""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.assemble import watched
from engine.canary import Canary
from engine.config import Config
from engine.decide import Decisions
from engine.pipeline import Pipeline
from engine.policy.precedence import DECISIONS
from engine.sampling import Sampler, drawn
from engine.state.local import FeatureMatrix
from engine.telemetry import Sample, Versions, decode_sample
from features.words import key_hashes
from tests.pipelines import START_MS, blank_batch, event, json_of, pipeline_of, profile, records_of

IDS = [f"t4711-{number:010d}" for number in range(40_000)]
HASHES = key_hashes(IDS, 0)
RATES = (0.001, 0.01, 0.25, 0.9)


def sampled(rate: float, extra: str = "", policy: dict[str, int] | None = None) -> Pipeline:
    """A pipeline that draws samples."""
    config = config_of(rate, extra, policy)
    pipeline = pipeline_of(config)
    watched(config, pipeline)
    return pipeline


def config_of(rate: float, extra: str = "", policy: dict[str, int] | None = None) -> Config:
    return profile(policy=policy, extra=f"[telemetry]\nsample_rate = {rate}\n{extra}")


def samples_of(pipeline: Pipeline, events: Sequence[dict[str, Any]], first: int = 0) -> list[Sample]:
    records = records_of([json_of(fields) for fields in events], offsets=range(first, first + len(events)))
    return [decode_sample(message["value"]) for message in pipeline.process(records).samples]


# --- which ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", RATES)
def test_a_share_is_drawn(rate: float) -> None:
    assert abs(drawn(HASHES, rate).mean() - rate) < 4 * np.sqrt(rate * (1 - rate) / len(IDS))


def test_a_larger_share_holds_a_smaller_one() -> None:
    for small, large in zip((0.0, *RATES), (*RATES, 1.0), strict=True):
        assert drawn(HASHES, large)[drawn(HASHES, small)].all()


def test_none_and_all() -> None:
    assert not drawn(HASHES, 0.0).any()
    assert drawn(np.array([0, 1, 2**64 - 1], np.uint64), 1.0).all()


@given(st.permutations(range(60)), st.sets(st.integers(1, 59)))
def test_the_same_events_are_drawn_whenever_and_beside_whomever_they_come(order: list[int], cuts: set[int]) -> None:
    hashes = HASHES[np.array(order)]
    found = np.concatenate([drawn(part, 0.3) for part in np.split(hashes, sorted(cuts))])
    assert np.array_equal(found, drawn(HASHES[:60], 0.3)[np.array(order)])


def test_an_event_that_is_decided_again_is_drawn_again() -> None:
    events = [event(number, card=f"4000{number % 7:012d}", amount=2.5 + number) for number in range(120)]
    whole, parts = (sampled(0.3, policy={"challenge": 900, "review": 950, "decline": 1000}) for _ in range(2))
    at_once = samples_of(whole, events)
    assert 15 < len(at_once) < 60
    again = [found for first in range(0, 120, 13) for found in samples_of(parts, events[first : first + 13], first)]
    assert again == at_once


# --- what they weigh --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", RATES)
def test_weights_make_samples_stand_for_all(rate: float) -> None:
    """Of events, and of amounts: within four standard deviations of what a sum over approvals that are drawn has."""
    codes = np.arange(len(IDS)) % 50 % 4 * (np.arange(len(IDS)) % 50 < 4)
    amounts = np.random.default_rng(3).lognormal(3, 1, len(IDS))
    batch = blank_batch(len(IDS))
    batch.event_id_hashes = HASHES
    decisions = Decisions(codes, codes, codes.astype(np.float32), np.flatnonzero(codes), [], [])
    sampler = Sampler(config_of(rate))
    rows = sampler.rows(batch, decisions)
    weights = np.where(codes[rows] > 0, 1.0, 1 / rate)
    assert set(np.flatnonzero(codes)) <= set(rows)
    approved = codes == 0
    for value in (np.ones(len(IDS)), amounts):
        spread = np.sqrt((value[approved] ** 2).sum() * (1 - rate) / rate)
        assert abs((weights * value[rows]).sum() - value.sum()) < 4 * spread


@pytest.mark.parametrize("rate", [0.0, 0.2, 1.0])
def test_a_decision_that_is_no_approval_is_always_there_and_weighs_one(rate: float) -> None:
    events = [event(number, card=f"4000{number % 3:012d}", amount=1.5 + number) for number in range(200)]
    found = samples_of(sampled(rate), events)
    weights = {decision: {s.weight for s in found if s.decision == decision} for decision in DECISIONS}
    assert weights["review"] == weights["challenge"] == {1.0}
    assert weights["approve"] == ({1 / rate} if rate else set())
    if rate == 1.0:
        assert len(found) == 200


# --- what they say ----------------------------------------------------------------------------------------------


def both(pipeline: Pipeline, events: Sequence[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Each decision, and its sample, of which every event has one."""
    outputs = pipeline.process(records_of([json_of(fields) for fields in events]))
    assert [message["key"] for message in outputs.samples] == [message["key"] for message in outputs.decisions]
    return [
        (json.loads(decision["value"]), json.loads(sample["value"]))
        for decision, sample in zip(outputs.decisions, outputs.samples, strict=True)
    ]


def test_a_sample_says_what_its_decision_says() -> None:
    events = [event(0, channel="ecom", country="DE"), event(1, card=...), event(2, amount=12.345), event(-100)]
    for fields, (decision, sample) in zip(events, both(sampled(1.0), events), strict=True):
        assert sample == {
            "schema": "tidegate.decision-sample.v1",
            "decision_id": decision["decision_id"],
            "event_id": decision["event_id"],
            "event_time_ms": decision["event_time"],
            "decided_at_ms": decision["decided_at"],
            "source": decision["source"],
            "decision": decision["decision"],
            "score": decision["probability"],
            "risk_score": decision["risk_score"],
            "weight": 1.0,
            "amount_minor": 1234 if fields["amount"] == 12.345 else 1050,
            "currency": "EUR",
            "channel": fields.get("channel"),
            "country": fields.get("country"),
            "versions": {"model": "demo/1", "policy": "demo/1"},
            "card": fields.get("card"),
            "flags": decision["degraded"],
        }
    assert [sample["flags"] for _, sample in both(sampled(1.0), events)] == [
        [],
        ["missing_entity"],
        [],
        ["late_event"],
    ]


def test_a_decision_without_a_score_says_so() -> None:
    pipeline = sampled(1.0)
    sampler = pipeline.sampler
    assert sampler is not None
    batch = replace(
        blank_batch(2), values=[b"{}", None], late=np.zeros(2, np.bool_), partition_keys=['4"\\\n\u00e9', None]
    )
    scores = np.array([np.nan, 0.1], np.float32)
    decisions = Decisions(np.zeros(2, np.int64), np.zeros(2, np.int64), scores, np.zeros(0, np.intp), [], [])
    flags = np.zeros((2, 4), np.uint8)
    matrix = FeatureMatrix(np.zeros((2, 1)), flags, flags, np.zeros(2, np.bool_))
    found = [
        decode_sample(message["value"])
        for message in sampler.encode(batch, matrix, decisions, Versions("a/1", "b/2"), 5, np.arange(2))
    ]
    assert [(sample.score, sample.flags, sample.card) for sample in found] == [
        (None, ["rules_only"], '4"\\\n\u00e9'),
        (0.1, [], None),
    ]


def test_decided_at_is_that_of_the_decision() -> None:
    pipeline, ticks = sampled(1.0), iter(range(START_MS, START_MS + 100))
    pipeline.champion.encoder.clock_ms = lambda: next(ticks)
    for _ in range(2):
        for decision, sample in both(pipeline, [event(1), event(2)]):
            assert sample["decided_at_ms"] == decision["decided_at"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("ecom", "ecom"),
        ('a "b"\n', 'a "b"\n'),
        (5411, "5411"),
        ("", None),
        (None, None),
        (1.5, None),
        ({"a": [1]}, None),
        ([True], None),
        (..., None),
    ],
)
def test_a_segment_is_text_and_whatever_it_holds_the_event_is_decided(value: Any, text: str | None) -> None:
    (sample,) = samples_of(sampled(1.0), [event(0, channel=value, country=value)])
    assert (sample.channel, sample.country) == (text, text)


def test_a_segment_that_is_nested_as_deep_as_can_be_read_is_sampled_all_the_same() -> None:
    """How deep that is depends on who reads: what the decoder takes may be too deep for the sampler, which goes on."""
    pipeline, limit = sampled(1.0), sys.getrecursionlimit()
    nested = [b"[" * depth + b"]" * depth for depth in range(limit - 200, limit + 20)]
    values = [json_of(event(number))[:-1] + b',"channel":' + deep + b"}" for number, deep in enumerate(nested)]
    decided = 0
    for number, value in enumerate(values):
        outputs = pipeline.process(records_of([value], offsets=[number]))
        assert len(outputs.samples) == len(outputs.decisions)
        decided += len(outputs.decisions)
    assert 0 < decided < len(values)


def test_segments_are_fields_by_our_names() -> None:
    extra = 'channel = "merchant"\ncountry = "land"\n[mapping.fields]\nland = "iso_country"\n'
    (sample,) = samples_of(sampled(1.0, extra), [event(0, iso_country="FR", merchant="m-7", channel="ecom")])
    assert (sample.channel, sample.country) == ("m-7", "FR")
    (sample,) = samples_of(sampled(1.0, 'channel = ""\ncountry = ""'), [event(0, channel="ecom")])
    assert (sample.channel, sample.country) == (None, None)


def test_one_field_may_be_both() -> None:
    (sample,) = samples_of(sampled(1.0, 'channel = "merchant"\ncountry = "merchant"'), [event(0)])
    assert (sample.channel, sample.country) == ("m-1", "m-1")


def test_segments_stay_with_their_events() -> None:
    """Where some records become dead letters and some are duplicates."""
    values = [json_of(event(number, channel=f"c-{number}")) for number in (0, 1, 1, 2, 3)]
    values[3:3] = [b"{", b"", None]  # type: ignore[list-item]
    found = [decode_sample(message["value"]) for message in sampled(1.0).process(records_of(values)).samples]
    assert [(sample.event_id, sample.channel) for sample in found] == [(f"e{n}", f"c-{n}") for n in range(4)]


def test_a_canary_is_named_in_the_samples_of_its_decisions() -> None:
    pipeline = sampled(1.0)
    other = replace(pipeline.champion.model, version=2)  # type: ignore[type-var]
    encoder = pipeline.champion.encoder
    pipeline.set_canary(Canary(replace(pipeline.champion, model=other, encoder=encoder), 0.4, 0))
    events = [event(number, card=f"4000{number:012d}", amount=3.0 + number) for number in range(50)]
    found = samples_of(pipeline, events)
    assert [sample.event_id for sample in found] == [fields["event_id"] for fields in events]
    by_canary = [sample.versions.model == "demo/2" for sample in found]
    batch, _ = pipeline.decoder.decode(records_of([json_of(fields) for fields in events]))
    assert pipeline.canary is not None
    assert by_canary == pipeline.canary.rows(batch).tolist()
    assert 0 < sum(by_canary) < 50
