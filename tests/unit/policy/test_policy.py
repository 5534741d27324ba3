"""A policy in the pipeline: what it may say, what of events its rules read, and what decisions tell of it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.assemble import policy_program
from engine.config import Config, parse_config, read_policy
from engine.errors import ConfigError
from engine.policy.lists import FOREVER_MS, Note
from engine.policy.program import Program
from tests.pipelines import event, json_of, pipeline_of, profile, records_of

NEVER = {"challenge": 1001, "review": 1001, "decline": 1001}


def rules_of(*rules: dict[str, Any]) -> str:
    """Rules as they stand in a configuration; JSON's strings and numbers are TOML's."""
    written = [
        "[[policy.rules]]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in rule.items())
        for rule in rules
    ]
    return "\n".join(written)


def configured(*rules: dict[str, Any]) -> Config:
    """Where no score decides anything."""
    return profile(policy=NEVER, extra=rules_of(*rules))


def with_fields(config: Config, *, texts: Sequence[str] = (), numbers: Sequence[str] = ()) -> Config:
    policy = msgspec.structs.replace(config.policy, texts=list(texts), numbers=list(numbers))
    return msgspec.structs.replace(config, policy=policy)


def program_of(config: Config) -> Program:
    return policy_program(config, config.feature_spec())


def decided(config: Config, events: list[dict[str, Any]], lists: Any = None) -> list[dict[str, Any]]:
    pipeline = pipeline_of(config)
    if lists is not None:
        lists(pipeline.lists)
    outputs = pipeline.process(records_of([json_of(fields) for fields in events]))
    assert not outputs.dead_letters
    return [json.loads(message["value"]) for message in outputs.decisions]


def test_a_rule_over_features_and_amount_decides_and_says_so() -> None:
    rule = {
        "id": "burst", "when": "card.count.1m >= 3 and amount > 10", "action": "review", "typology": "card_testing",
        "reason": "{card.count.1m} payments by card {card} in a minute, now {amount} (score {score})",
    }  # fmt: skip
    found = decided(configured(rule), [event(number) for number in range(4)])
    assert [decision["decision"] for decision in found] == ["approve", "approve", "review", "review"]
    assert [decision["rules"] for decision in found] == [[], [], *[[{"id": "burst", "action": "review"}]] * 2]
    reason = found[2]["reasons"][0]
    assert (reason["code"], reason["feature"]) == ("rule", "amount")
    assert reason["text"].startswith("3 payments by card ************1234 in a minute, now 10.5 (score ")
    assert found[0]["reasons"] == []


def test_an_alert_has_the_typology_of_the_strictest_rule_that_names_one() -> None:
    rules = [
        {"id": "a", "when": "amount > 0", "action": "challenge", "typology": "mild"},
        {"id": "b", "when": "amount > 0", "action": "decline"},
        {"id": "c", "when": "amount > 0", "action": "review", "typology": "strict"},
    ]
    pipeline = pipeline_of(configured(*rules))
    (alert,) = pipeline.process(records_of([json_of(event(0))])).alerts
    assert json.loads(alert["value"])["typology"] == "strict"
    assert [rule["id"] for rule in json.loads(alert["value"])["rules"]] == ["b", "c", "a"]
    assert pipeline.metrics.rule_hits == {"a": 1, "b": 1, "c": 1}


def test_rules_read_fields_that_features_do_not() -> None:
    rules = [
        {"id": "country", "when": "country in ('KP', '408')", "action": "decline"},
        {"id": "items", "when": "items >= 3", "action": "review"},
        {"id": "none", "when": "not known(country)", "action": "challenge"},
    ]
    config = with_fields(configured(*rules), texts=["country"], numbers=["items"])
    values: list[tuple[Any, Any, str]] = [
        ("KP", 1, "decline"), (408, 1, "decline"), ("FR", 3, "review"), ("FR", "3.5", "review"), ("FR", 2, "approve"),
        # What a rule cannot read is absent, and no reason to refuse the event.
        ({"code": "KP"}, 1, "challenge"), (["KP"], [3], "challenge"), ("", "many", "challenge"),
        (..., ..., "challenge"), (1.5, True, "challenge"), ("FR", "1e999", "approve"), ("FR", None, "approve"),
    ]  # fmt: skip
    found = decided(config, [event(at, country=c, items=i) for at, (c, i, _) in enumerate(values)])
    assert [decision["decision"] for decision in found] == [expected for _, _, expected in values]


def test_what_a_rule_reads_does_not_change_what_is_an_event() -> None:
    plain = pipeline_of(profile())
    ruled = pipeline_of(with_fields(configured({"id": "a", "when": "x == 'a'", "weight": 1}), texts=["x"]))
    bodies = ['"x": 1e999', '"x": {"a": [1, {}]}', '"x": 123456789012345678901234567890', '"x": "\\ud800"', '"x": nul']
    records = records_of([json_of(event(at))[:-1] + b", " + body.encode() + b"}" for at, body in enumerate(bodies)])
    before, after = (pipeline.decoder.decode(records) for pipeline in (plain, ruled))
    assert before[0].event_ids == after[0].event_ids
    assert [letter.offset for letter in before[1]] == [letter.offset for letter in after[1]]


def test_a_blocked_card_is_declined_with_who_and_why() -> None:
    def block(lists: Any) -> None:
        lists.put("block", "card", ["4000123412341234"], FOREVER_MS, Note("ana", "reported stolen"))
        lists.put("allow", "merchant", ["m-2"], FOREVER_MS, Note("bo", "own shop"))

    rule = {"id": "all", "when": "amount > 0", "action": "review"}
    events = [event(0), event(1, card="4000999999999999"), event(2, card="4000999999999999", merchant="m-2")]
    found = decided(configured(rule), events, block)
    assert [decision["decision"] for decision in found] == ["decline", "review", "approve"]
    assert found[0]["rules"][0] == {"id": "list.block.card", "action": "decline"}
    assert found[0]["reasons"][0] == {
        "code": "block_list",
        "feature": "card",
        "value": None,
        "text": "card ************1234 is blocked: reported stolen (ana)",
    }
    assert found[2]["rules"] == [
        {"id": "list.allow.merchant", "action": "approve"},
        {"id": "all", "action": "review"},
    ]


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ({"id": "a", "when": "card.cuont.1m > 2", "weight": 1}, ["rules.a.when: line 1, column 1", "card.count.1m"]),
        ({"id": "a", "when": "amount >\n\n  'x'", "weight": 1}, ["rules.a.when: line 3, column 3"]),
        (
            {"id": "a", "when": "amount > 1", "weight": 1, "reason": "{nothing}"},
            ["rules.a.reason: column 1", "nothing"],
        ),
        ({"id": "a", "when": "amount > 1", "weight": 1, "reason": "so {amount"}, ["rules.a.reason: column 4", "brace"]),
        ({"id": "a", "when": "amount > 1"}, ["'a'", "does nothing"]),
        ({"id": "A b", "when": "amount > 1", "weight": 1}, ["'A b'"]),
        ({"id": "a", "when": "amount > 1", "action": "block"}, ["action", "block"]),
        ({"id": "a", "when": "amount > 1", "override": True, "weight": 1}, ["override needs an action"]),
        ({"id": "a", "when": "amount > 1", "weight": 1001}, ["1001", "-1000..1000"]),
        ({"id": "a", "when": "amount > 1", "weihgt": 3}, ["weihgt", "weight"]),
    ],
)
def test_what_is_wrong_is_said_with_its_place(rule: dict[str, Any], says: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        program_of(configured(rule))
    for words in says:
        assert words in str(refused.value)


def test_two_rules_have_two_names() -> None:
    with pytest.raises(ConfigError, match="'a' is given twice"):
        configured({"id": "a", "when": "amount > 1", "weight": 1}, {"id": "a", "when": "amount > 2", "weight": 1})


def test_a_field_is_one_thing() -> None:
    with pytest.raises(ConfigError, match=r"numbers: 'merchant' is a text already"):
        program_of(with_fields(profile(), numbers=["merchant"]))


# --- files -----------------------------------------------------------------------------------------------------


def test_a_policy_may_be_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text('name = "cards"\nversion = "7"\nchallenge = 300\n')
    config = parse_config('[policy]\nfile = "policy.toml"\n', tmp_path, {})
    assert (config.policy.label, config.policy.thresholds) == ("cards/7", (300, 800, 950))
    with pytest.raises(ConfigError, match="name cannot stand beside it"):
        parse_config('[policy]\nfile = "policy.toml"\nname = "b"\n', tmp_path, {})
    with pytest.raises(ConfigError, match=r"other\.toml cannot be read"):
        parse_config('[policy]\nfile = "other.toml"\n', tmp_path, {})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("challenge = ", "not valid TOML"),
        ("challenge = 'x'", "challenge 'x': Expected `int`"),
        ("file = 'b.toml'", "names no other file"),
        ("[[rules]]\nid = 'a'\nwhen = 3\nweight = 1", "rules.0.when 3: Expected `str`"),
        ("challange = 3", "allowed: name, version, challenge"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_name(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        read_policy(path)
    assert str(path) in str(refused.value)
    assert says in str(refused.value)
