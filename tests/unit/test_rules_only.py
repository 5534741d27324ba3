"""Where the model has no answer: nothing is decided, or what the policy says, for those events and no others."""

import json
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from engine.assemble import policy_program
from engine.decide import Decider
from engine.errors import FatalError
from engine.pipeline import Pipeline
from engine.policy.lists import Lists
from models.absent import NoModel
from models.errors import ModelError
from models.runtime import Model
from tests.pipelines import demo_model, event, json_of, pipeline_of, profile, records_of

FAILING = 666.5
RULE = '[[policy.rules]]\nid = "large"\nwhen = "amount > 1000"\naction = "decline"\n'
SCORED = '[[policy.rules]]\nid = "scored"\nwhen = "known(score)"\nweight = 1\n'


class Fragile(Model):
    """Fails on an amount."""

    def score(self, features: np.ndarray) -> np.ndarray:
        names = profile().feature_spec().names
        if (features[:, names.index("event.amount")] == FAILING).any():
            raise ModelError("it cannot read this")
        return demo_model().score(features)


def pipeline(without_model: str | None, model: Any) -> Pipeline:
    config = profile(policy={"challenge": 1001, "review": 1001, "decline": 1001}, extra=RULE + SCORED)
    if without_model is not None:
        policy = msgspec.structs.replace(config.policy, without_model=without_model)
        config = msgspec.structs.replace(config, policy=policy)
    made = pipeline_of(config)
    program = policy_program(config, config.feature_spec())
    made.champion = replace(made.champion, model=model, decider=Decider(program, model, Lists(())))
    return made


def fragile() -> Fragile:
    model = demo_model()
    return Fragile(model.name, model.version, model.sha256, model.manifest, model.columns, model.session)


def decided(made: Pipeline, amounts: list[float], cuts: list[int]) -> list[dict[str, Any]]:
    """Decisions of events with these amounts, in batches cut there."""
    values = [json_of(event(number, amount=amount)) for number, amount in enumerate(amounts)]
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(values)], strict=True):
        outputs = made.process(records_of(values[start:end], offsets=list(range(start, end))))
        found += [json.loads(message["value"]) for message in outputs.decisions]
    return found


AMOUNTS = [10.0, FAILING, 20.0, 2000.0, FAILING, 30.0]


def test_unless_the_policy_says_otherwise_nothing_is_decided() -> None:
    with pytest.raises(FatalError, match="it cannot read this"):
        decided(pipeline(None, fragile()), AMOUNTS, [])


@pytest.mark.parametrize("without_model", ["approve", "review", "decline"])
def test_events_without_a_score_are_decided_as_the_policy_says(without_model: str) -> None:
    made = pipeline(without_model, fragile())
    found = decided(made, AMOUNTS, [])
    failing = [amount == FAILING for amount in AMOUNTS]
    assert [decision["degraded"] == ["rules_only"] for decision in found] == failing
    assert [decision["probability"] is None for decision in found] == failing
    expected = ["approve", without_model, "approve", "decline", without_model, "approve"]
    assert [decision["decision"] for decision in found] == expected
    assert [[rule["id"] for rule in decision["rules"]] for decision in found] == [
        [] if fails else (["large", "scored"] if amount > 1000 else ["scored"])
        for amount, fails in zip(AMOUNTS, failing, strict=True)
    ]
    assert made.metrics.rules_only == 2
    assert made.metrics.score.count == 4


@pytest.mark.parametrize("cuts", [[1], [2, 4], [1, 2, 3, 4, 5]])
def test_it_is_the_same_events_however_batches_are_cut(cuts: list[int]) -> None:
    whole = decided(pipeline("review", fragile()), AMOUNTS, [])
    assert decided(pipeline("review", fragile()), AMOUNTS, cuts) == whole


def test_without_any_model_rules_decide_all() -> None:
    found = decided(pipeline("challenge", NoModel()), AMOUNTS, [3])
    assert [decision["decision"] for decision in found] == ["challenge"] * 3 + ["decline"] + ["challenge"] * 2
    assert {tuple(decision["degraded"]) for decision in found} == {("rules_only",)}
    assert found[3]["reasons"] == [
        {"code": "rule", "feature": "amount", "value": 2000.0, "text": "large: amount > 1000"}
    ]
