"""From telemetry to alarms: none on traffic that has not changed, one within a minute of a change, each look once."""

from random import Random

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.control.buckets import decode_bucket
from engine.control.drift import Expected
from engine.control.records import RetrainRequest
from engine.control.settings import Control, Drift, Retraining
from engine.control.watch import Watch
from engine.telemetry import FeatureCounts, FieldCounts, Histogram, Telemetry, Versions
from models.manifest import Manifest, read_manifest
from models.store import MANIFEST_FILE, resolve, shipped_store
from tests.control.world import NOW_MS, telemetry

EVERY_MS = 5_000
EVENTS = 2_500
SCORE_EDGES = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5]
SETTINGS = Control(drift=Drift(windows=["30s", "5m"]), retraining=Retraining(after="1m", pause="1h"))


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return read_manifest(resolve(shipped_store(), "demo/1").directory / MANIFEST_FILE)


class Traffic:
    """Telemetry as the manifest expects it, until its features shift or its fields go bad."""

    def __init__(self, manifest: Manifest, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._shares = {
            name: (np.diff([0.0, *one.up_to, 1.0]) * (1 - one.null_share), one.null_share)
            for name, one in manifest.reference.items()
        }

    def record(self, number: int, shifted: str = "", **changes: object) -> Telemetry:
        """`shifted`: a feature whose values all fall into its highest bins."""
        features = {}
        for name, (shares, nulls) in self._shares.items():
            drawn = self._rng.multinomial(EVENTS, np.append(shares, nulls) / (shares.sum() + nulls))
            counts = drawn[:-1]
            if name == shifted:
                counts = np.append(np.zeros(len(counts) - 1, np.int64), counts.sum())
            features[name] = FeatureCounts(counts.tolist(), int(drawn[-1]), 0)
        scores = self._rng.multinomial(EVENTS, np.full(len(SCORE_EDGES) + 1, 1 / (len(SCORE_EDGES) + 1)))
        score = Histogram(SCORE_EDGES, scores.tolist())
        made = telemetry(number, [EVENTS], EVERY_MS, features=features, score=score)
        return msgspec.structs.replace(made, **changes)


def new_watch(manifest: Manifest | None, settings: Control = SETTINGS) -> Watch:
    expected = None if manifest is None else Expected(manifest)
    return Watch(settings, {}, {}, lambda model: expected)


def feed(watch: Watch, records: list[Telemetry]) -> list[RetrainRequest]:
    found = []
    for record in records:
        watch.take(record)
        for looked in watch.looks(record):
            if looked.request is not None:
                found.append(looked.request)
            watch.keep(looked)
    return found


def raised(watch: Watch) -> set[str]:
    return {name.partition("@")[0] for name in watch.alarms["tidegate"].raised}


def test_traffic_that_has_not_changed_raises_nothing(manifest: Manifest) -> None:
    watch, traffic = new_watch(manifest), Traffic(manifest, 1)
    for number in range(240):
        feed(watch, [traffic.record(number)])
        assert not watch.alarms.get("tidegate", None) or not raised(watch)
    readings = [one for one in watch.readings["tidegate"] if one.signal.startswith("psi:")]
    assert len(readings) == 2 * len(manifest.features)


def test_a_shift_is_told_within_a_minute_and_asks_for_a_model(manifest: Manifest) -> None:
    watch, traffic = new_watch(manifest), Traffic(manifest, 2)
    feature = next(iter(manifest.reference))
    feed(watch, [traffic.record(number) for number in range(60)])
    assert not raised(watch)
    told_at = next(
        number for number in range(60, 120) if not feed(watch, [traffic.record(number, feature)]) and raised(watch)
    )
    assert (told_at + 1 - 60) * EVERY_MS <= 60_000
    assert raised(watch) == {f"psi:{feature}"}
    requests = feed(watch, [traffic.record(number, feature) for number in range(told_at + 1, 200)])
    assert [request.model for request in requests] == ["fraud/1"]
    assert f"psi:{feature}@30s" in requests[0].evidence


@pytest.mark.parametrize(
    ("changes", "signal"),
    [
        ({"fields": {"channel": FieldCounts(0, EVENTS // 5)}}, "unseen:channel"),
        ({"fields": {"channel": FieldCounts(EVENTS // 5, 0)}}, "field_nulls:channel"),
        ({"event_time_ms_max": NOW_MS - 1_000_000}, "freshness"),
        ({"score": Histogram(SCORE_EDGES, [0] * 8 + [EVENTS])}, "psi_score"),
    ],
)
def test_bad_data_is_told(manifest: Manifest, changes: dict[str, object], signal: str) -> None:
    watch, traffic = new_watch(manifest), Traffic(manifest, 3)
    feed(watch, [traffic.record(number) for number in range(30)])
    assert not raised(watch)
    feed(watch, [traffic.record(number, **changes) for number in range(30, 50)])
    assert signal in raised(watch)


def test_what_is_ignored_raises_nothing(manifest: Manifest) -> None:
    feature = next(iter(manifest.reference))
    drift = Drift(windows=["30s"], ignore=[f"{feature[:-1]}*"])
    watch, traffic = new_watch(manifest, Control(drift=drift)), Traffic(manifest, 4)
    feed(watch, [traffic.record(number, feature) for number in range(30)])
    assert not raised(watch)
    assert any(one.over for one in watch.readings["tidegate"])


def test_without_a_manifest_there_is_data_quality_alone(manifest: Manifest) -> None:
    watch, traffic = new_watch(None), Traffic(manifest, 5)
    feed(watch, [traffic.record(number, next(iter(manifest.reference))) for number in range(20)])
    assert {one.signal.partition(":")[0] for one in watch.readings["tidegate"]} == {
        "field_nulls",
        "unseen",
        "freshness",
        "psi_score",
    }


@settings(max_examples=30)
@given(st.randoms(use_true_random=False), st.lists(st.integers(0, 79), min_size=1, max_size=10))
def test_crashes_change_neither_alarms_nor_requests(random: Random, crashes: list[int]) -> None:
    """After each crash, what was read since some earlier record is read again, over the same tables."""
    made = read_manifest(resolve(shipped_store(), "demo/1").directory / MANIFEST_FILE)
    one_feature = next(iter(made.reference))
    small = msgspec.structs.replace(
        made,
        reference={one_feature: made.reference[one_feature]},
        features=[feature for feature in made.features if feature.name == one_feature],
        golden=msgspec.structs.replace(made.golden, inputs=[row[:1] for row in made.golden.inputs]),
    )
    traffic = Traffic(small, 6)
    records = [traffic.record(number, one_feature if number > 30 else "") for number in range(80)]
    undisturbed = new_watch(small)
    requests = feed(undisturbed, records)

    watch, again, expected = new_watch(small), [], Expected(small)
    tables = watch._bucket_table, watch._alarm_table
    at = 0
    for crash in [*sorted(crashes), 80]:
        again += feed(watch, records[at:crash])
        watch = Watch(SETTINGS, *tables, lambda model: expected)
        watch.rebuild(tables[0].items(), tables[1].items())
        at = random.randint(max(0, crash - 12), crash)
    assert watch.alarms == undisturbed.alarms
    assert watch.readings == undisturbed.readings
    assert {request.request_id for request in again} == {request.request_id for request in requests}
    assert len(requests) == 1


@pytest.mark.parametrize(("before", "after"), [("10s", "30s"), ("30s", "10s"), ("10s", "15s")])
def test_the_length_of_buckets_may_be_another_after_a_restart(manifest: Manifest, before: str, after: str) -> None:
    traffic, buckets, alarms, expected = Traffic(manifest, 8), {}, {}, Expected(manifest)
    records = [traffic.record(number, "event.amount" if number > 40 else "") for number in range(60)]
    for bucket, part in ((before, records[:25]), (after, records[25:])):
        drift = Drift(windows=["30s"], bucket=bucket)
        watch = Watch(Control(drift=drift), buckets, alarms, lambda model: expected)
        watch.rebuild(buckets.items(), alarms.items())
        feed(watch, part)
    assert raised(watch) == {"psi:event.amount"}
    assert {decode_bucket(value).wide_ms for value in buckets.values()} == {drift.bucket_ms}


def test_a_canary_that_decides_for_a_few_is_not_the_model(manifest: Manifest) -> None:
    """Both send telemetry of the same seconds; alarms are those of the model that decides for most."""
    watch, traffic = new_watch(manifest), Traffic(manifest, 7)
    feature = next(iter(manifest.reference))
    for number in range(30):
        canary = traffic.record(number, feature, versions=Versions("fraud/9", "p/1"), events=EVENTS // 10)
        feed(watch, [canary, traffic.record(number)])
    assert watch.alarms["tidegate"].model == "fraud/1"
    assert not raised(watch)


def test_records_of_one_time_and_several_workers_or_policies_all_count(manifest: Manifest) -> None:
    watch, traffic = new_watch(manifest), Traffic(manifest, 8)
    one = traffic.record(0)
    feed(watch, [one, one, traffic.record(0, worker_id="b"), traffic.record(0, versions=Versions("fraud/1", "p/2"))])
    ((bucket,),) = [list(models.values()) for models in watch.buckets["tidegate"].values()]
    assert bucket.events == 3 * EVENTS


def test_fields_without_categories_have_none_unseen(manifest: Manifest) -> None:
    watch, traffic = new_watch(manifest), Traffic(manifest, 9)
    feed(watch, [traffic.record(number, fields={"ip": FieldCounts(0)}) for number in range(10)])
    assert {one.signal for one in watch.readings["tidegate"] if one.signal.endswith(":ip")} == {"field_nulls:ip"}
