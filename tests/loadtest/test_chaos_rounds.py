"""The plan of a run, and the pace of its input."""

from collections import Counter

import pytest

from loadtest.chaos.application import Application
from loadtest.chaos.feed import paced
from loadtest.chaos.report import percentile
from loadtest.chaos.rounds import NODES, plan, rate_for


def test_the_plan_has_what_was_asked_for_most_of_it_inside_transactions() -> None:
    rounds = plan(100, 50, 10, seed=1)
    assert Counter(round_.kind for round_ in rounds) == {"kill": 100, "freeze": 50, "kill_broker": 10}
    for kind in ("kill", "freeze", "kill_broker"):
        assert Counter(round_.inside for round_ in rounds if round_.kind == kind)[True] / Counter(
            round_.kind for round_ in rounds
        )[kind] == pytest.approx(0.8)
    assert {round_.node for round_ in rounds} == set(range(1, NODES + 1))
    assert 0.3 < sum(round_.at_once for round_ in rounds) / len(rounds) < 0.7


def test_a_seed_is_a_plan() -> None:
    assert plan(10, 5, 2, seed=3) == plan(10, 5, 2, seed=3) != plan(10, 5, 2, seed=4)


def test_without_transactions_nothing_is_inside_one() -> None:
    assert not any(round_.inside for round_ in plan(10, 5, 0, seed=1, transactions=False))


def test_events_last_as_long_as_the_rounds() -> None:
    assert rate_for(plan(10, 0, 0, seed=1), 100_000) == pytest.approx(1_000)
    assert rate_for([], 1_000) == pytest.approx(100)


def test_the_last_fifth_is_held_back_until_it_is_released() -> None:
    assert [paced(1_000, left, 100, released=False) for left in (100, 20, 10, 1)] == [1_000, 1_000, 500, 50]
    assert paced(1_000, 1, 100, released=True) == 1_000


def test_a_percentile_is_a_value_that_was_there() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert [percentile(values, percent) for percent in (1, 50, 99, 100)] == [1, 50, 99, 100]
    assert percentile([], 99) is None


def test_a_configuration_is_the_profile_s_in_the_application() -> None:
    application = Application("localhost:1", "app", 6, "exactly_once")
    profile = {"kafka": {"commit_interval_ms": 50, "client": {"compression.type": "lz4"}}, "policy": {"review": 5}}
    text = application.config_text(profile, kafka={"decision_features": True}, observe={"listen": "localhost:2"})
    assert text == (
        "[kafka]\n"
        '"commit_interval_ms" = 50\n'
        '"decision_features" = true\n'
        '"input" = "app.transactions"\n'
        '"application_id" = "app"\n'
        '"delivery" = "exactly_once"\n'
        '"partitions" = 6\n'
        "[kafka.client]\n"
        '"compression.type" = "lz4"\n'
        "[kafka.topics]\n"
        '"decisions" = "app.decisions"\n'
        '"alerts" = "app.alerts"\n'
        '"dead_letters" = "app.dead-letters"\n'
        '"progress" = "app.progress"\n'
        '"lease" = "app.lease"\n'
        '"control" = "app.control"\n'
        '"decisions_sample" = "app.decisions-sample"\n'
        '"telemetry" = "app.telemetry"\n'
        "[policy]\n"
        '"review" = 5\n'
        "[observe]\n"
        '"listen" = "localhost:2"\n'
    )
