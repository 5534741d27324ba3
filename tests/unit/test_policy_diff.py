"""`tidegate policy test`: what a policy would change, against hand counts and against two replays."""

from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

from engine.config import default_profile
from engine.policy.precedence import DECISIONS
from loadtest.render import render
from loadtest.settings import TrafficSettings
from loadtest.traffic import generate
from tests.commands import STATE, Run, lines, refused
from tests.pipelines import START_MS, event, json_of

EVENTS = 700
# The model decides nothing: rules alone do.
MODEL_OUT = 'name = "cards"\nversion = "{}"\nchallenge = 1001\nreview = 1001\ndecline = 1001\n'
# The model decides some, and rules read fields that nothing else reads.
RUNNING = """
name = "cards"
version = "1"
challenge = 2
review = 5
decline = 900
[[rules]]
id = "busy"
when = "card.count.1h > 3 and amount > 20"
action = "review"
"""
CANDIDATE = """
name = "cards"
version = "2"
challenge = 3
review = 5
decline = 800
texts = ["channel", "currency"]
[[rules]]
id = "busy"
when = "card.count.1h > 3 and amount > 50"
action = "review"
weight = 1
[[rules]]
id = "euros"
when = "currency == 'EUR' and amount < 5 or channel == 'phone'"
action = "approve"
override = true
"""


def rule(name: str, when: str, action: str) -> str:
    return f'[[rules]]\nid = "{name}"\nwhen = "{when}"\naction = "{action}"\n'


def write_policies(running: str, candidate: str, extra: str = "") -> None:
    Path("running.toml").write_text(running)
    Path("candidate.toml").write_text(candidate)
    for name in ("running", "candidate"):
        text = default_profile().partition("[policy]")[0]
        config = "tidegate.toml" if name == "running" else "other.toml"
        Path(config).write_text(f'{text}\n[policy]\nfile = "{name}.toml"\n{STATE}{extra}')


def write_events(*amounts: float, **fields: Any) -> Path:
    events = [event(number, amount=amount, **fields) for number, amount in enumerate(amounts)]
    Path("e.jsonl").write_bytes(b"\n".join(map(json_of, events)))
    return Path("e.jsonl")


def diff(run: Run, *arguments: str | Path) -> Any:
    ended = run("policy", "test", "candidate.toml", *arguments, "--json")
    assert ended.exit_code == 0, ended.err
    return orjson.loads(ended.out)


def cells(found: Any) -> dict[tuple[str, str], int]:
    """The cells of the matrix that have events."""
    assert list(found["matrix"]) == list(DECISIONS)
    assert all(list(row) == list(DECISIONS) for row in found["matrix"].values())
    return {(was, now): count for was, row in found["matrix"].items() for now, count in row.items() if count}


def test_the_matrix_is_what_counting_by_hand_gives(run: Run) -> None:
    """Amounts           5        30        60        120        500
    running           approve  challenge challenge  review     review
    candidate         approve  approve   challenge  challenge  decline
    """
    write_policies(
        MODEL_OUT.format(1) + rule("over-20", "amount > 20", "challenge") + rule("over-100", "amount > 100", "review"),
        MODEL_OUT.format(2) + rule("over-50", "amount > 50", "challenge") + rule("over-200", "amount > 200", "decline"),
    )
    found = diff(run, write_events(5, 30, 60, 120, 500, 30, 30, 500), "--examples", "2")
    assert cells(found) == {
        ("approve", "approve"): 1,
        ("challenge", "approve"): 3,
        ("challenge", "challenge"): 1,
        ("review", "challenge"): 1,
        ("review", "decline"): 2,
    }
    assert (found["events"], found["decided"], found["changed"]) == (8, 8, 6)
    assert found["rules"] == {"running": {"over-20": 7, "over-100": 3}, "candidate": {"over-50": 4, "over-200": 2}}
    changes = {(change["running"], change["candidate"]): change for change in found["changes"]}
    assert {cell: change["events"] for cell, change in changes.items()} == {
        cell: count for cell, count in cells(found).items() if cell[0] != cell[1]
    }
    shown = {cell: [example["event_id"] for example in change["examples"]] for cell, change in changes.items()}
    assert shown == {
        ("challenge", "approve"): ["e1", "e5"],
        ("review", "challenge"): ["e3"],
        ("review", "decline"): ["e4", "e7"],
    }


def test_an_example_says_what_both_policies_say_of_the_event_and_hides_its_keys(run: Run) -> None:
    weighty = rule("small", "amount < 50", "review") + "weight = 1000\n"
    write_policies(MODEL_OUT.format(1) + rule("any", "amount > 0", "challenge"), MODEL_OUT.format(2) + weighty)
    (change,) = diff(run, write_events(30, device=...))["changes"]
    (example,) = change["examples"]
    assert example == {
        "event_id": "e0",
        "event_time": START_MS,
        "amount": 30.0,
        "currency": "EUR",
        "keys": {"card": "************1234", "merchant": "***", "ip": "****.0.1"},
        "running": {"decision": "challenge", "risk_score": example["running"]["risk_score"], "rules": ["any"]},
        "candidate": {"decision": "review", "risk_score": 1_000, "rules": ["small"]},
    }
    assert example["running"]["risk_score"] < 1_000


def test_the_matrix_is_that_of_two_replays(run: Run) -> None:
    """Decisions by the model, windows, poison, duplicates, and over several batches."""
    values = render(generate(TrafficSettings(cards=20, merchants=5, late_share=0.05, poison_share=0.03), EVENTS))
    values[50::97] = values[13::97][: len(values[50::97])]
    Path("e.jsonl").write_bytes(b"\n".join(values))
    write_policies(RUNNING, CANDIDATE)
    for config, out in (("tidegate.toml", "running.jsonl"), ("other.toml", "candidate.jsonl")):
        assert run("replay", "e.jsonl", "--config", config, "--out", out).exit_code == 0
    was, now = lines("running.jsonl"), lines("candidate.jsonl")
    found = diff(run, "e.jsonl", "--examples", "1000")
    pairs = [(one["decision"], other["decision"]) for one, other in zip(was, now, strict=True)]
    assert cells(found) == Counter(pairs)
    assert len(cells(found)) > 4
    for name, decisions in (("running", was), ("candidate", now)):
        hits = Counter(hit["id"] for decision in decisions for hit in decision["rules"])
        assert {rule: count for rule, count in found["rules"][name].items() if count} == hits
    assert found["dead_letters"] > 0
    assert found["duplicates"] > 0
    assert found["events"] == found["decided"] + found["dead_letters"] + found["duplicates"]
    examples = [example for change in found["changes"] for example in change["examples"]]
    assert len(examples) == found["changed"] == sum(one != other for one, other in pairs)
    by_id = {decision["event_id"]: (decision, other) for decision, other in zip(was, now, strict=True)}
    for example in examples:
        for name, decision in zip(("running", "candidate"), by_id[example["event_id"]], strict=True):
            assert example[name] == {
                "decision": decision["decision"],
                "risk_score": decision["risk_score"],
                "rules": [hit["id"] for hit in decision["rules"]],
            }


def test_a_policy_equal_to_the_running_one_changes_nothing(run: Run) -> None:
    write_policies(CANDIDATE, CANDIDATE)
    found = diff(run, write_events(*range(1, 100)))
    assert found["changed"] == 0
    assert found["changes"] == []
    assert {was == now for was, now in cells(found)} == {True}
    assert found["rules"]["running"] == found["rules"]["candidate"]


def test_one_field_may_be_text_to_one_policy_and_a_number_to_the_other(run: Run) -> None:
    write_policies(
        'texts = ["mcc"]\n' + MODEL_OUT.format(1) + rule("a", "mcc == '5999'", "review"),
        'numbers = ["mcc"]\n' + MODEL_OUT.format(2) + rule("a", "mcc > 6000", "review"),
    )
    events = [event(0, mcc="5999"), event(1, mcc="6011"), event(2, mcc=6011), event(3, mcc=[1])]
    Path("e.jsonl").write_bytes(b"\n".join(map(json_of, events)))
    assert cells(diff(run, "e.jsonl")) == {
        ("review", "approve"): 1,
        ("approve", "review"): 2,
        ("approve", "approve"): 1,
    }


def test_people_read_tables(run: Run) -> None:
    write_policies(MODEL_OUT.format(1), MODEL_OUT.format(2) + rule("over-50", "amount > 50", "decline"))
    ended = run("policy", "test", "candidate.toml", write_events(5, 60, 1_234.5))
    assert ended.exit_code == 0
    assert "3 events: 3 decided, 0 dead letters, 0 duplicates" in ended.out
    assert "2 of 3 would be decided otherwise" in ended.out
    rows = [line.split() for line in ended.out.splitlines() if line.startswith(("approve  ", "all", "over-50"))]
    assert rows == [
        ["approve", "1", "0", "0", "2", "3"],
        ["all", "1", "0", "0", "2", "3"],
        ["over-50", "-", "2"],
    ]
    assert "approve -> decline: 2 events" in ended.out
    assert "1,234.5 EUR" in ended.out
    assert "4000123412341234" not in ended.out


@pytest.mark.parametrize("when", ["amount > 10 and speed > 3", "amount >"])
def test_a_rule_that_cannot_be_read_is_refused_with_its_place(run: Run, when: str) -> None:
    write_policies(MODEL_OUT.format(1), MODEL_OUT.format(2) + rule("bad", when, "review"))
    ended = run("policy", "test", "candidate.toml", write_events(5))
    assert ended.exit_code == 2
    assert "policy file candidate.toml: rules.bad.when: line 1, column " in refused(ended)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("no.toml", "e.jsonl"), "policy file no.toml cannot be read"),
        (("candidate.toml", "no.jsonl"), "no.jsonl: there is no such file"),
        (("candidate.toml", "e.jsonl", "--offset-field", "o"), "--partition-field and --offset-field go together"),
    ],
)
def test_what_is_not_there_is_named(run: Run, arguments: tuple[str, ...], said: str) -> None:
    write_policies(MODEL_OUT.format(1), MODEL_OUT.format(2))
    write_events(5)
    ended = run("policy", "test", *arguments)
    assert ended.exit_code == 2
    assert said in refused(ended)
