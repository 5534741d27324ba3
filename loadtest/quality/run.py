"""One measurement: a stream with attacks and a planted shift is sent and labelled, and what is said is compared.

|--------------- as ever ---------------|------ prices risen ------|  all is read  |
| no alarm should be raised              | one must be               |               | figures compared
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from loadtest.attacks import KINDS
from loadtest.columns import ATTACK_KINDS, id_prefix
from loadtest.driver import Driver, Load
from loadtest.errors import LoadTestError
from loadtest.plan import steady
from loadtest.quality.labels import Labels
from loadtest.quality.offline import Decided, Known, Rates, Topics, attacks_in_cases, decided
from loadtest.quality.said import Alarm, Plane
from loadtest.settings import TrafficSettings

TURN_S = 0.2
# Where in the stream prices rise, and by how much.
SHIFT_AT = 0.6
SHIFT_FACTOR = 3.0
# Longer than an attack lasts at most.
ATTACK_S_MAX = 15.0
DECIDED_DEADLINE_S = 60.0
COUNTED_DEADLINE_S = 120.0
SAY_EVERY_S = 30.0
MS_PER_MINUTE = 60_000


@dataclass(frozen=True, slots=True)
class Asked:
    """What is sent: so many events per second for so long, with so many attacks of each kind a minute."""

    minutes: float
    events_per_second: float
    attacks_per_minute: float
    labels: bool
    seed: int


@dataclass(frozen=True, slots=True)
class Target:
    """What is measured. `topics` by their names in the configuration; `control` is HOST:PORT."""

    bootstrap: str
    input: str
    topics: dict[str, str]
    partitions: dict[str, int]
    control: str


class Outcome(msgspec.Struct, frozen=True):
    """What came of it. Rates without suffix are what the control plane says, `_sampled` what its samples say when they
    are counted here, `_truth` what all decisions say. Rates are None without labels.

    `labelled`: decisions that its figures rest on; `sampled`: those that were sampled, each once. `drift_alarm_s`: from
    the planted shift to the first alarm that somebody could see, None where there was none; `false_drift_alarms`: those
    raised before it.
    """

    minutes: float
    events_per_second: float
    sent: int
    decided: int
    missing: int
    sampled: int
    labelled: int
    precision: float | None
    precision_sampled: float | None
    precision_truth: float | None
    recall: float | None
    recall_sampled: float | None
    recall_truth: float | None
    attacks: int
    attacks_in_cases: int
    drift_alarm_s: float | None
    false_drift_alarms: int
    alarms: list[Alarm]
    control_lag_events_max: int


def traffic_of(asked: Asked, start_time_ms: int) -> TrafficSettings:
    """The demo's traffic, whose model ships, at another pace: as often a card, a merchant and an address as there."""
    demo = TrafficSettings()
    size = asked.events_per_second / demo.events_per_second
    shares = {
        f"{ATTACK_KINDS[kind.code]}_share": asked.attacks_per_minute * kind.mean_events / (60 * asked.events_per_second)
        for kind in KINDS
    }
    return replace(
        demo,
        seed=asked.seed,
        start_time_ms=start_time_ms,
        events_per_second=asked.events_per_second,
        cards=max(1, round(demo.cards * size)),
        merchants=max(1, round(demo.merchants * size)),
        devices=max(1, round(demo.devices * size)),
        ips=max(1, round(demo.ips * size)),
        shift_after_s=asked.minutes * 60 * SHIFT_AT,
        shift_amount_factor=SHIFT_FACTOR,
        **shares,
    )


def measure(asked: Asked, target: Target, turn: Callable[[], object], say: Callable[[str], object]) -> Outcome:
    """Sends, labels and compares. `turn` is called several times a second while events are sent.

    LoadTestError where it cannot be measured; what `turn` raises ends it.
    """
    traffic = traffic_of(asked, time.time_ns() // 1_000_000)
    ids = id_prefix(traffic.run)
    known, plane = Known(ids), Plane(target.control)
    labels = Labels(target.bootstrap, target.topics["labels"], ids, asked.seed) if asked.labels else None
    plan = steady(asked.events_per_second, asked.minutes * 60)
    with Driver(Load(traffic, plan, target.input, {"bootstrap.servers": target.bootstrap})) as driver:
        driver.begin()
        began_ms = _send(driver, known, labels, plane, turn, say)
        sent = driver.progress.events
    topics = Topics(target.bootstrap, target.partitions)
    all_of_them = _all_decided(topics, target.topics["decisions"], known, turn)
    sampled = decided(topics, target.topics["decisions_sample"], known)
    say(f"{len(all_of_them):,} decided, {len(sampled):,} sampled; the control plane counts them ...")
    said = _counted(plane, target.partitions, len(sampled), turn) if asked.labels else None
    begun = known.begun(began_ms + round((asked.minutes * 60 - ATTACK_S_MAX) * 1_000))
    in_cases = attacks_in_cases(topics, target.topics["alerts"], target.topics["cases"], known) & begun
    shift_ms = began_ms + round(traffic.shift_after_s * 1_000) if traffic.shift_after_s is not None else 0
    alarms = sorted(plane.alarms.values(), key=lambda alarm: alarm.seen_ms)
    after = [alarm.seen_ms - shift_ms for alarm in alarms if alarm.raised_at_ms > shift_ms]
    return Outcome(
        minutes=asked.minutes,
        events_per_second=asked.events_per_second,
        sent=sent,
        decided=len(all_of_them),
        missing=known.to_decide - len(all_of_them),
        sampled=len(sampled),
        labelled=0 if said is None else int(said["labelled"]),
        **_rates(said, sampled, all_of_them, known),
        attacks=len(begun),
        attacks_in_cases=len(in_cases),
        drift_alarm_s=after[0] / 1_000 if after else None,
        false_drift_alarms=len(alarms) - len(after),
        alarms=alarms,
        control_lag_events_max=plane.lag_events_max,
    )


def _send(
    driver: Driver,
    known: Known,
    labels: Labels | None,
    plane: Plane,
    turn: Callable[[], object],
    say: Callable[[str], object],
) -> int:
    """Until the plan is over and every label is given; returns when the first event was due."""
    began_ms, never, say_at = 0, threading.Event(), time.monotonic() + SAY_EVERY_S
    while True:
        done = driver.progress.done
        for truth in driver.truths():
            began_ms = began_ms or int(truth.send_times_ms[0])
            known.expect(truth)
            if labels is not None:
                labels.expect(truth)
        if labels is not None:
            labels.give(time.time_ns() // 1_000_000)
        plane.look()
        turn()
        if done:
            break
        if time.monotonic() > say_at:
            say_at += SAY_EVERY_S
            lag = sum((plane.lags() or {}).values())
            say(f"{driver.progress.events:,} sent, alarms: {len(plane.alarms)}, lag of control: {lag:,}")
        never.wait(TURN_S)
    if labels is not None:
        labels.give_all()
    return began_ms


def _all_decided(topics: Topics, topic: str, known: Known, turn: Callable[[], object]) -> Decided:
    """Once every event has a decision, or too late."""
    give_up_at, never = time.monotonic() + DECIDED_DEADLINE_S, threading.Event()
    while True:
        found = decided(topics, topic, known)
        if len(found) >= known.to_decide or time.monotonic() > give_up_at:
            return found
        turn()
        never.wait(1.0)


def _counted(plane: Plane, partitions: dict[str, int], sampled: int, turn: Callable[[], object]) -> dict[str, Any]:
    """What is said of quality once everything is read; LoadTestError where that takes too long."""
    give_up_at, never, before = time.monotonic() + COUNTED_DEADLINE_S, threading.Event(), None
    while True:
        said, lags = plane.quality(), plane.lags()
        # The last marker of a transaction stays behind what is committed.
        read = lags is not None and all(lag <= partitions.get(topic, 0) for topic, lag in lags.items())
        # Twice the same, for the lag that it knows of is as old as its last fetch.
        if said is not None and read and said["labelled"] >= sampled and said == before:
            return said
        if time.monotonic() > give_up_at:
            raise LoadTestError(f"the control plane has not counted {sampled:,} decisions: {said}, lags {lags}")
        before = said
        turn()
        never.wait(3.0)


def _rates(
    said: dict[str, Any] | None, sampled: Decided, all_of_them: Decided, known: Known
) -> dict[str, float | None]:
    if said is None:
        names = ("precision", "recall")
        return {f"{name}{suffix}": None for name in names for suffix in ("", "_sampled", "_truth")}
    attacks = known.attacks()
    by_samples: Rates = sampled.rates(attacks)
    truth: Rates = all_of_them.rates(attacks)
    return {
        "precision": said["precision"]["value"],
        "precision_sampled": by_samples.precision,
        "precision_truth": truth.precision,
        "recall": said["recall"]["value"],
        "recall_sampled": by_samples.recall,
        "recall_truth": truth.recall,
    }
