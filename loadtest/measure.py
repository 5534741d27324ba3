"""What became of the events that were sent: which were decided, how soon, and which attacks were found."""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import msgspec
import numpy as np
from hdrh.histogram import HdrHistogram

from loadtest.columns import ATTACK_KINDS, Bool, Int64
from loadtest.figures import AlertLine, AttackCount, Latency
from loadtest.truth import Truth

LATENCY_US_MAX = 600_000_000
SIGNIFICANT_DIGITS = 3
PERCENTILES = (50.0, 99.0, 99.9, 100.0)
ALERTS_KEPT = 30


class Decision(msgspec.Struct):
    """What is read of a decision."""

    event_id: str
    decision: str


class Reason(msgspec.Struct):
    """What is read of a reason."""

    text: str


class Alert(msgspec.Struct):
    """What is read of an alert."""

    event_id: str
    decision: str
    risk_score: int
    amount_minor: int
    currency: str
    reasons: list[Reason]


@dataclass(slots=True)
class _Attack:
    """From the intended send time of its first event to the arrival of the first alert about it."""

    kind: str
    started_ms: int
    alerted_ms: float | None = None


class Tally:
    """Counts what comes back. One thread adds; others may read meanwhile, and are off by a batch at most."""

    def __init__(self, mask: Callable[[str], str], ours: str = "") -> None:
        """`mask` makes a key field fit for people's eyes; event ids that do not begin with `ours` are not looked at."""
        self._mask = mask
        self._ours = ours
        self._known = 0
        self._send_times_ms: Int64 = np.zeros(0, np.int64)
        self._attack_ids: Int64 = np.zeros(0, np.int64)
        self._broken: Bool = np.zeros(0, np.bool_)
        # 0 for those that are not decided.
        self._arrived_us: Int64 = np.zeros(0, np.int64)
        self._attacks: dict[int, _Attack] = {}
        self._latencies_us = HdrHistogram(1, LATENCY_US_MAX, SIGNIFICANT_DIGITS)
        self._recent_us: list[Int64] = []
        self.kinds: Counter[str] = Counter()
        self.decided = 0
        self.decided_again = 0
        self.unknown = 0
        self.alerts = 0
        self.alerts_on_attacks = 0
        self.dead_letters = 0
        self.last_alerts: deque[AlertLine] = deque(maxlen=ALERTS_KEPT)
        self.last_arrival_us = 0

    def expect(self, truth: Truth) -> None:
        """Takes in the records that are about to be sent; their numbers go on where the last ones ended."""
        new = ~truth.duplicates
        first, self._known = self._known, self._known + int(new.sum())
        self._reserve(self._known)
        self._send_times_ms[first : self._known] = truth.send_times_ms[new]
        self._attack_ids[first : self._known] = truth.attack_ids[new]
        self._broken[first : self._known] = truth.poison[new]
        ids, rows = np.unique(truth.attack_ids, return_index=True)
        for attack_id, row in zip(ids.tolist(), rows.tolist(), strict=True):
            if attack_id >= 0 and attack_id not in self._attacks:
                kind = ATTACK_KINDS[truth.attack_kinds[row]]
                self._attacks[attack_id] = _Attack(kind, int(truth.send_times_ms[row]))

    def _reserve(self, events: int) -> None:
        if events > len(self._send_times_ms):
            more = (0, max(events, 2 * len(self._send_times_ms)) - len(self._send_times_ms))
            self._send_times_ms = np.pad(self._send_times_ms, more)
            self._attack_ids = np.pad(self._attack_ids, more)
            self._broken = np.pad(self._broken, more)
            self._arrived_us = np.pad(self._arrived_us, more)

    def add_decisions(self, decisions: Sequence[Decision], arrived_us: int) -> None:
        """Decisions that arrived together. Only the first one of an event counts."""
        numbers = self._numbers([decision.event_id for decision in decisions])
        first = np.unique(numbers[self._arrived_us[numbers] == 0])
        self._arrived_us[first] = arrived_us
        self.decided_again += len(numbers) - len(first)
        self.decided += len(first)
        self.kinds.update(decision.decision for decision in decisions)
        latencies_us = np.clip(arrived_us - self._send_times_ms[first] * 1_000, 1, LATENCY_US_MAX)
        record(self._latencies_us, latencies_us)
        self._recent_us.append(latencies_us)
        self.last_arrival_us = arrived_us

    def add_alert(self, alert: Alert, key: str, arrived_us: int) -> None:
        """One alert; `key` is its Kafka key."""
        if not alert.event_id.startswith(self._ours):
            return
        numbers = self._numbers([alert.event_id])
        attack = self._attacks.get(int(self._attack_ids[numbers[0]])) if len(numbers) else None
        self.alerts += 1
        if attack is not None:
            self.alerts_on_attacks += 1
            if attack.alerted_ms is None:
                attack.alerted_ms = arrived_us / 1e3
        line = AlertLine(
            arrived_s=arrived_us / 1e6,
            decision=alert.decision,
            risk_score=alert.risk_score,
            key=self._mask(key),
            amount=f"{alert.amount_minor / 100:,.2f} {alert.currency}",
            reason=alert.reasons[0].text if alert.reasons else "",
            attack=attack.kind if attack is not None else None,
        )
        self.last_alerts.appendleft(line)

    def _numbers(self, event_ids: list[str]) -> Int64:
        """The numbers in the ids; those of events that were never sent are counted and left out."""
        ours = [event_id for event_id in event_ids if event_id.startswith(self._ours)]
        numbers = np.array([int(event_id.rpartition("-")[2]) for event_id in ours], np.int64)
        known = numbers < self._known
        self.unknown += int((~known).sum())
        return numbers[known]

    @property
    def first_due_ms(self) -> int:
        """Intended send time of the first event, 0 before it is known."""
        return int(self._send_times_ms[0]) if self._known else 0

    def due_ms(self) -> Int64:
        """Intended send times of all events that a decision is due for."""
        return self._send_times_ms[: self._known][~self._broken[: self._known]]

    def timed(self) -> tuple[Int64, Int64]:
        """Of each decided event, in the order of sending: its intended send time, and its latency in us."""
        decided = np.flatnonzero(self._arrived_us[: self._known])
        due_ms = self._send_times_ms[decided]
        return due_ms, np.clip(self._arrived_us[decided] - due_ms * 1_000, 1, LATENCY_US_MAX)

    def latency(self) -> Latency:
        """Over all events decided so far; zeros before the first one."""
        values_us = self._latencies_us.get_percentile_to_value_dict(PERCENTILES)
        return Latency(*(values_us.get(percentile, 0) / 1e3 for percentile in PERCENTILES))

    def recent_p99_ms(self) -> float:
        """p99 of what arrived since the last call, 0 where nothing did."""
        recent_us, self._recent_us = self._recent_us, []
        return float(np.percentile(np.concatenate(recent_us), 99)) / 1e3 if recent_us else 0.0

    def attacks(self, until_ms: int) -> list[AttackCount]:
        """Per kind, the attacks that began by then."""
        begun = [attack for attack in list(self._attacks.values()) if attack.started_ms <= until_ms]
        return [_count(kind, [attack for attack in begun if attack.kind == kind]) for kind in ATTACK_KINDS[1:]]


def record(histogram: HdrHistogram, latencies_us: Int64) -> None:
    """Adds all of them, each value once."""
    for value, count in zip(*np.unique(latencies_us, return_counts=True), strict=True):
        histogram.record_value(int(value), int(count))


def _count(kind: str, attacks: list[_Attack]) -> AttackCount:
    waits_ms = [attack.alerted_ms - attack.started_ms for attack in attacks if attack.alerted_ms is not None]
    return AttackCount(kind, len(attacks), len(waits_ms), median(waits_ms) / 1e3 if waits_ms else None)
