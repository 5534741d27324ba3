"""The tally and the report: every event counted once, from the time it was meant to be sent."""

from dataclasses import replace

import numpy as np
import pytest

from loadtest.columns import ATTACK_KINDS
from loadtest.figures import AttackCount, Latency
from loadtest.measure import Alert, Decision, Reason, Tally
from loadtest.report import Received, Report, Sent
from loadtest.settings import TrafficSettings
from loadtest.traffic import generate
from loadtest.truth import Truth, truth_of

TAKEOVER = ATTACK_KINDS.index("account_takeover")


def truth(first: int, send_times_ms: list[int], attack_ids: list[int], duplicates: list[bool]) -> Truth:
    """New events are numbered from `first`; a duplicate repeats number 0."""
    new = ~np.array(duplicates)
    return Truth(
        numbers=np.where(new, first + np.cumsum(new) - 1, 0),
        send_times_ms=np.array(send_times_ms),
        attack_kinds=np.where(np.array(attack_ids) >= 0, TAKEOVER, 0).astype(np.int8),
        attack_ids=np.array(attack_ids),
        duplicates=np.array(duplicates),
        poison=np.zeros(len(duplicates), np.bool_),
    )


def decisions(*numbers: int) -> list[Decision]:
    return [Decision(f"t00c0ffee-{number:010d}", "approve") for number in numbers]


def alert(number: int) -> Alert:
    return Alert(f"t00c0ffee-{number:010d}", "decline", 990, 123_456, "EUR", [Reason("much"), Reason("more")])


@pytest.fixture
def tally() -> Tally:
    r"""
    number        0     1     2    (0)    3
    due at ms  1000  1010  1020  1020  1030
    attack              7     7           7
    """
    tally = Tally(lambda key: "*" + key[-1:])
    tally.expect(truth(0, [1000, 1010, 1020, 1020], [-1, 7, 7, -1], [False, False, False, True]))
    tally.expect(truth(3, [1030], [7], [False]))
    return tally


def test_latency_counts_from_the_intended_send_time(tally: Tally) -> None:
    tally.add_decisions(decisions(0, 1), arrived_us=1_015_000)
    tally.add_decisions(decisions(2, 3), arrived_us=1_130_000)
    latency = tally.latency()
    assert latency.p50_ms == pytest.approx(15, rel=2e-3)
    assert latency.max_ms == pytest.approx(110, rel=2e-3)
    assert (tally.decided, tally.decided_again, tally.unknown) == (4, 0, 0)
    assert tally.kinds == {"approve": 4}
    assert tally.recent_p99_ms() == pytest.approx(110, rel=0.02)
    assert tally.recent_p99_ms() == 0.0


def test_a_second_decision_counts_apart(tally: Tally) -> None:
    tally.add_decisions(decisions(1, 2, 1), arrived_us=1_100_000)
    tally.add_decisions(decisions(2), arrived_us=1_900_000)
    assert (tally.decided, tally.decided_again) == (2, 2)
    assert tally.latency().max_ms < 100


def test_what_was_never_sent_is_no_decision(tally: Tally) -> None:
    tally.add_decisions(decisions(3, 4), arrived_us=1_100_000)
    tally.add_alert(alert(99), "4242", arrived_us=1_100_000)
    assert (tally.decided, tally.unknown, tally.alerts, tally.alerts_on_attacks) == (1, 2, 1, 0)


def test_an_attack_is_found_with_its_first_alert(tally: Tally) -> None:
    takeover = ATTACK_KINDS.index("account_takeover") - 1
    assert tally.attacks(until_ms=1009)[takeover] == AttackCount("account_takeover", 0, 0, None)
    tally.add_alert(alert(0), "4242", arrived_us=1_020_000)
    assert tally.attacks(until_ms=1010)[takeover] == AttackCount("account_takeover", 1, 0, None)
    tally.add_alert(alert(2), "4243", arrived_us=1_050_000)
    tally.add_alert(alert(3), "4244", arrived_us=1_090_000)
    assert tally.attacks(until_ms=1010)[takeover] == AttackCount("account_takeover", 1, 1, 0.04)
    assert [count.started for count in tally.attacks(until_ms=2000)] == [0, 1, 0]
    assert (tally.alerts, tally.alerts_on_attacks) == (3, 2)
    shown = tally.last_alerts[0]
    assert (shown.key, shown.amount, shown.reason, shown.attack) == ("*4", "1,234.56 EUR", "much", "account_takeover")
    assert tally.last_alerts[2].attack is None


def test_it_takes_a_stream_in_pieces() -> None:
    traffic = generate(TrafficSettings(seed=3, duplicate_share=0.05, poison_share=0.01), 30_000)
    tally = Tally(str)
    for first in range(0, 30_000, 777):
        tally.expect(truth_of(traffic.take(slice(first, first + 777))))
    new = traffic.numbers[~traffic.duplicates]
    tally.add_decisions(decisions(*new.tolist()), arrived_us=int(traffic.send_times_ms[-1]) * 1_000)
    assert (tally.decided, tally.unknown, tally.decided_again) == (len(new), 0, 0)
    begun = sum(count.started for count in tally.attacks(int(traffic.send_times_ms[-1])))
    assert begun == len(np.unique(traffic.attack_ids[traffic.attack_ids >= 0]))


GOOD = Report(
    target="the embedded broker",
    rate=100.0,
    seconds=10.0,
    sent=Sent(events=1_000, duplicates=3, poison=2, delay_ms_max=4.0, behind=False),
    received=Received(
        decisions=995, decided_again=0, unknown=0, dead_letters=2, duplicates=3, alerts=10, alerts_on_attacks=9
    ),
    kinds={"approve": 985, "decline": 10},
    latency=Latency(10.0, 20.0, 30.0, 40.0),
    attacks=[AttackCount("card_testing", 4, 3, 0.25)],
    interrupted=False,
    overrun="",
)


def test_a_good_run_has_no_failures_and_the_promised_keys() -> None:
    assert GOOD.failures() == []
    assert GOOD.as_json() == {
        "events": 1_000,
        "decisions": 995,
        "alerts": 10,
        "dead_letters": 2,
        "duplicates": 3,
        "p50_ms": 10.0,
        "p99_ms": 20.0,
        "p999_ms": 30.0,
        "events_per_second": 100.0,
        "attacks_detected": {"card_testing": 3},
        "attacks_total": {"card_testing": 4},
        "alert_precision": 0.9,
        "behind": False,
        "send_delay_ms_max": 4.0,
        "interrupted": False,
        "failures": [],
    }


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"decisions": 994}, "1,000 events were sent, but 999 are accounted for"),
        ({"decided_again": 1}, "1 events were decided twice"),
        ({"unknown": 1}, "1 decisions or alerts are about events that were never sent"),
        ({"decisions": 996, "dead_letters": 1}, "1 of 2 dead letters came"),
        ({"decisions": 994, "duplicates": 4}, "4 of 3 duplicates seen"),
    ],
)
def test_each_broken_promise_is_told(changed: dict[str, int], says: str) -> None:
    assert replace(GOOD, received=replace(GOOD.received, **changed)).failures() == [says]


def test_without_alerts_there_is_no_precision() -> None:
    assert replace(GOOD, received=replace(GOOD.received, alerts=0)).alert_precision is None
