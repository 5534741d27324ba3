"""The same figures from all that was decided, and from the samples alone: read after the run, by nobody's tables."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np

from loadtest.columns import Bool, Float64, Int64
from loadtest.reading import read_topic
from loadtest.truth import Truth


class _Decision(msgspec.Struct):
    event_id: str
    decision: str
    weight: float = 1.0


class _GroupKey(msgspec.Struct, frozen=True):
    type: str
    value: str


class _Alert(msgspec.Struct):
    event_id: str
    event_time: int
    typology: str
    group_key: _GroupKey | None


class _Case(msgspec.Struct):
    schema: Literal["tidegate.case.v1"]
    entity: str
    entity_key: str
    typology: str
    first_seen_ms: int
    last_seen_ms: int


class Rates(msgspec.Struct, frozen=True):
    """None where there is nothing to tell it by."""

    precision: float | None
    recall: float | None


@dataclass(frozen=True, slots=True)
class Topics:
    """Where outputs are read; each with its number of partitions."""

    bootstrap: str
    partitions: dict[str, int]

    def values(self, topic: str) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values of every committed record."""
        for message in read_topic(self.bootstrap, topic, self.partitions[topic]):
            yield message.key() or b"", message.value() or b""


class Known:
    """The events of a stream, by their numbers: which were fraud, and of which attack."""

    def __init__(self, ids: str) -> None:
        self._ids = ids
        self._attacks: list[Int64] = []
        self._times_ms: list[Int64] = []
        self.to_decide = 0

    def expect(self, truth: Truth) -> None:
        """Takes in events; their numbers go on where the last ones ended."""
        new = ~truth.duplicates
        self._attacks.append(truth.attack_ids[new])
        self._times_ms.append(truth.send_times_ms[new])
        self.to_decide += int((new & ~truth.poison).sum())

    def attacks(self) -> Int64:
        """Of each event the attack that it belongs to, or -1."""
        return np.concatenate(self._attacks)

    def begun(self, until_ms: int) -> set[int]:
        """Attacks of which an event was sent by then."""
        attacks, times_ms = self.attacks(), np.concatenate(self._times_ms)
        return set(attacks[(attacks >= 0) & (times_ms <= until_ms)].tolist())

    def number(self, event_id: str) -> int | None:
        """Of an event of the stream; None for others."""
        return int(event_id[len(self._ids) :]) if event_id.startswith(self._ids) else None


@dataclass(frozen=True, slots=True)
class Decided:
    """Of n decided events, each once: their numbers, whether they were flagged, and what each stands for."""

    numbers: Int64
    flagged: Bool
    weights: Float64

    def __len__(self) -> int:
        return len(self.numbers)

    def rates(self, attacks: Int64) -> Rates:
        """Sums of weights, as docs/control.md has it."""
        fraud = attacks[self.numbers] >= 0
        caught = float(self.weights[self.flagged & fraud].sum())
        flagged, frauds = float(self.weights[self.flagged].sum()), float(self.weights[fraud].sum())
        return Rates(caught / flagged if flagged else None, caught / frauds if frauds else None)


def decided(topics: Topics, topic: str, known: Known) -> Decided:
    """What a topic of decisions, or of samples of them, says of the stream. Of two of one event the first counts."""
    decode = msgspec.json.Decoder(_Decision).decode
    found: dict[int, tuple[bool, float]] = {}
    for _, value in topics.values(topic):
        decision = decode(value)
        number = known.number(decision.event_id)
        if number is not None:
            found.setdefault(number, (decision.decision != "approve", decision.weight))
    numbers = np.array(list(found), np.int64)
    flagged = np.array([flag for flag, _ in found.values()], np.bool_)
    return Decided(numbers, flagged, np.array([weight for _, weight in found.values()], np.float64))


def attacks_in_cases(topics: Topics, alerts: str, cases: str, known: Known) -> set[int]:
    """Attacks of which an alert is in a case: of its entity and typology, and within its time."""
    standing: dict[bytes, _Case] = {}
    decode_case, decode_alert = msgspec.json.Decoder(_Case).decode, msgspec.json.Decoder(_Alert).decode
    for key, value in topics.values(cases):
        if not key.endswith(b"@status"):
            standing[key] = decode_case(value)
    spans: dict[tuple[str, str, str], list[tuple[int, int]]] = {}
    for case in standing.values():
        group = case.entity, case.entity_key, case.typology
        spans.setdefault(group, []).append((case.first_seen_ms, case.last_seen_ms))
    attacks, found = known.attacks(), set()
    for _, value in topics.values(alerts):
        alert = decode_alert(value)
        number = known.number(alert.event_id)
        if number is None or attacks[number] < 0:
            continue
        about = alert.group_key or _GroupKey("event", alert.event_id)
        group = about.type, about.value, alert.typology
        if any(first <= alert.event_time <= last for first, last in spans.get(group, [])):
            found.add(int(attacks[number]))
    return found
