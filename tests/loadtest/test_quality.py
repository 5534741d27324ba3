"""What control planes are measured by: labels that come as they come, and figures counted without tables."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest

from loadtest.quality import labels as labels_module
from loadtest.quality.labels import DELAY_MEAN_S, Labels
from loadtest.quality.offline import Known, Rates, attacks_in_cases, decided
from loadtest.quality.run import Asked, traffic_of
from loadtest.settings import TrafficSettings
from loadtest.traffic import generate
from loadtest.truth import Truth, truth_of

IDS = "t00000000-"
START_MS = 1_000_000


class Kept:
    """A producer that keeps what it is given."""

    def __init__(self, _settings: dict[str, Any]) -> None:
        self.values: list[dict[str, Any]] = []

    def produce(self, _topic: str, value: bytes, key: str, on_delivery: Any) -> None:
        label = orjson.loads(value)
        assert label["event_id"] == key
        self.values.append(label)

    def poll(self, _timeout_s: float) -> int:
        return 0

    def flush(self, _timeout_s: float) -> int:
        return 0


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[Kept]:
    made: list[Kept] = []

    def make(settings: dict[str, Any]) -> Kept:
        made.append(Kept(settings))
        return made[-1]

    monkeypatch.setattr(labels_module, "Producer", make)
    return made


def truth(attacks: list[int], first: int = 0, **columns: list[bool]) -> Truth:
    """Events a millisecond apart."""
    n = len(attacks)
    flags = {name: np.array(columns.get(name, [False] * n)) for name in ("duplicates", "poison")}
    numbers = first + np.cumsum(~flags["duplicates"]) - 1
    ids = np.array(attacks, np.int64)
    return Truth(numbers, START_MS + np.arange(n), (ids >= 0).astype(np.int8), ids, **flags)


def test_labels_come_as_they_come_and_the_last_one_given_is_right(kept: list[Kept]) -> None:
    n = 20_000
    labels = Labels("nowhere", "labels", IDS, 1)
    labels.expect(truth([3 if row % 7 == 0 else -1 for row in range(n)]))
    labels.give(START_MS)
    assert all(label["labelled_at"] <= START_MS for label in kept[0].values)
    labels.give_all()
    values = kept[0].values
    early = [one for one in values if one["labelled_at"] < START_MS + int(one["event_id"][len(IDS) :])]
    assert 0.01 * n < len(early) < 0.03 * n
    last = {label["event_id"]: label for label in values}
    assert len(last) == n
    for event_id, label in last.items():
        assert label["label"] == int(int(event_id[len(IDS) :]) % 7 == 0)
    assert [label["labelled_at"] for label in values] == sorted(label["labelled_at"] for label in values)
    given = Counter(label["event_id"] for label in values)
    assert set(given.values()) == {1, 2}
    first = {label["event_id"]: label for label in reversed(values)}
    wrong = [event_id for event_id in first if first[event_id]["label"] != last[event_id]["label"]]
    assert 0.01 * n < len(wrong) < 0.03 * n
    assert all(given[event_id] == 2 for event_id in wrong)
    delays_ms = np.array([label["labelled_at"] for label in values]) - START_MS - n / 2
    assert abs(delays_ms.mean() / 1_000 - DELAY_MEAN_S) < 2


def test_neither_poison_nor_what_is_sent_again_is_labelled(kept: list[Kept]) -> None:
    labels = Labels("nowhere", "labels", IDS, 1)
    labels.expect(truth([-1, 5, 5, -1], duplicates=[False, False, True, False], poison=[False, False, False, True]))
    labels.give_all()
    assert {label["event_id"] for label in kept[0].values} == {f"{IDS}0000000000", f"{IDS}0000000001"}


class Records:
    """Topics that are lists."""

    def __init__(self, **topics: list[tuple[bytes, dict[str, Any]]]) -> None:
        self._topics = topics

    def values(self, topic: str) -> Iterator[tuple[bytes, bytes]]:
        return ((key, orjson.dumps(value)) for key, value in self._topics[topic])


def decision(number: int, what: str, ids: str = IDS, **more: Any) -> tuple[bytes, dict[str, Any]]:
    return b"", {"event_id": f"{ids}{number:010d}", "decision": what, **more}


def known_of(*truths: Truth) -> Known:
    known = Known(IDS)
    for one in truths:
        known.expect(one)
    return known


def test_rates_are_sums_of_weights_each_event_once() -> None:
    known = known_of(truth([-1, 4, 4]), truth([-1, 4, -1], first=3))
    assert known.to_decide == 6
    records = [
        decision(0, "decline"),
        decision(1, "decline"),
        decision(2, "approve", weight=4.0),
        decision(2, "decline"),
        decision(3, "approve", weight=4.0),
        decision(4, "review"),
        decision(9, "decline", ids="another-"),
    ]
    found = decided(Records(samples=records), "samples", known)  # type: ignore[arg-type]
    assert len(found) == 5
    rates = found.rates(known.attacks())
    assert rates.precision == pytest.approx(2 / 3)
    assert rates.recall == pytest.approx(2 / 6)


def test_nothing_decided_has_no_rates() -> None:
    found = decided(Records(samples=[]), "samples", known_of(truth([-1])))  # type: ignore[arg-type]
    assert found.rates(known_of(truth([-1])).attacks()) == Rates(None, None)


def alert(number: int, card: str | None, time_ms: int, typology: str = "card_testing") -> tuple[bytes, dict[str, Any]]:
    group = None if card is None else {"type": "card", "value": card}
    said = {"event_time": time_ms, "typology": typology, "group_key": group}
    return b"", {"event_id": f"{IDS}{number:010d}", **said}


def case(entity: str, key: str, first_ms: int, last_ms: int) -> tuple[bytes, dict[str, Any]]:
    record = {"entity": entity, "entity_key": key, "typology": "card_testing", "status": "open"}
    times = {"first_seen_ms": first_ms, "last_seen_ms": last_ms}
    return f"{entity}{key}".encode(), {"schema": "tidegate.case.v1", **record, **times}


def test_an_attack_is_in_a_case_that_has_one_of_its_alerts() -> None:
    known = known_of(truth([7, 8, 9, 10, -1]))
    alerts = [
        alert(0, "41", 100),
        alert(1, "41", 300),
        alert(2, "42", 100),
        alert(2, "41", 100, "takeover"),
        alert(3, None, 100),
        alert(4, "41", 100),
    ]
    cases = [
        case("card", "41", 50, 60),
        case("card", "41", 50, 150),
        case("event", f"{IDS}0000000003", 100, 100),
        (b"x@status", {"schema": "tidegate.case-status.v1"}),
    ]
    found = attacks_in_cases(Records(alerts=alerts, cases=cases), "alerts", "cases", known)  # type: ignore[arg-type]
    assert found == {7, 10}


def test_attacks_that_begin_too_late_do_not_count() -> None:
    known = known_of(truth([-1] * 5 + [3] + [-1] * 4 + [4]))
    assert known.begun(START_MS + 9) == {3}
    assert known.begun(START_MS + 10) == {3, 4}


def test_prices_rise_when_they_are_to_and_nothing_else_changes() -> None:
    asked = Asked(minutes=1.0, events_per_second=500.0, attacks_per_minute=3.0, labels=True, seed=2)
    settings = traffic_of(asked, START_MS)
    risen = generate(settings, 30_000)
    assert settings.shift_after_s == 36
    usual = generate(replace(settings, shift_after_s=None), 30_000)
    assert (risen.card_numbers == usual.card_numbers).all()
    late = (usual.send_times_ms >= START_MS + 46_000) & (usual.attack_kinds == 0)
    early = usual.send_times_ms < START_MS + 36_000
    assert (risen.amounts_minor[early] == usual.amounts_minor[early]).all()
    ratio = risen.amounts_minor[late] / usual.amounts_minor[late]
    assert np.quantile(ratio, 0.05) == 3
    assert (risen.amounts_minor == usual.amounts_minor)[usual.attack_kinds > 0].all()


def test_there_are_about_as_many_attacks_as_asked_for() -> None:
    asked = Asked(minutes=10.0, events_per_second=500.0, attacks_per_minute=3.0, labels=True, seed=2)
    truths = truth_of(generate(traffic_of(asked, START_MS), 300_000))
    kinds = truths.attack_kinds[np.unique(truths.attack_ids, return_index=True)[1]]
    counts = np.bincount(kinds, minlength=4)[1:]
    assert (abs(counts - 30) < 20).all()


def test_a_factor_must_be_positive() -> None:
    with pytest.raises(ValueError, match="shift_amount_factor: 0 must be positive"):
        TrafficSettings(shift_amount_factor=0)
