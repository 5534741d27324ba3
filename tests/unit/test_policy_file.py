"""The policy's file, read again while the stream runs: a good one decides from the next batch on, a bad one never."""

import json
import logging
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import pytest

from engine.config import default_profile, parse_config
from engine.errors import ConfigError
from engine.pipeline import Pipeline
from engine.policy_file import PolicyFile
from tests.pipelines import event, json_of, pipeline_of, records_of


class Held(Executor):
    """Does what was submitted when it is told to."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Future[Any], Any, Any]] = []

    def submit(self, fn: Any, /, *args: Any, **_kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        self.waiting.append((done, fn, args))
        return done

    def work(self) -> None:
        for done, fn, args in self.waiting:
            try:
                done.set_result(fn(*args))
            except (ConfigError, OSError) as error:
                done.set_exception(error)
        self.waiting = []


class Scene:
    """A pipeline whose policy is in a file, and what follows that file."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "policy.toml"
        self.write(1, "amount > 1000")
        text = default_profile().partition("[policy]")[0] + '[policy]\nfile = "policy.toml"\n'
        self.config = parse_config(text, folder, {})
        self.pipeline: Pipeline = pipeline_of(self.config)
        self.loader, self.offset = Held(), 0
        self.file = PolicyFile(self.config, self.config.feature_spec(), self.loader)

    def write(self, version: int, when: str) -> None:
        thresholds = "challenge = 1001\nreview = 1001\ndecline = 1001\n"
        rule = f'[[rules]]\nid = "a"\nwhen = "{when}"\naction = "decline"\n'
        self.path.write_text(f'name = "p"\nversion = "{version}"\ntexts = ["country"]\n{thresholds}{rule}')

    def turn(self) -> bool:
        """Looks, loads and puts in place; whether another policy decides."""
        self.file.look()
        self.loader.work()
        return self.file.place(self.pipeline) is not None

    def decide(self) -> tuple[str, str]:
        self.offset += 1
        fields = event(self.offset, country="KP")
        outputs = self.pipeline.process(records_of([json_of(fields)], offsets=[self.offset]))
        decision = json.loads(outputs.decisions[0]["value"])
        return decision["decision"], decision["policy"]["version"]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_a_file_that_is_as_it_was_changes_nothing(scene: Scene) -> None:
    champion = scene.pipeline.champion
    assert not scene.turn()
    assert not scene.turn()
    assert scene.pipeline.champion is champion
    assert scene.pipeline.metrics.policy_swaps == 0


def test_a_changed_file_decides_once_it_is_in_place(scene: Scene) -> None:
    assert scene.decide() == ("approve", "1")
    scene.write(2, "country == 'KP'")
    scene.file.look()
    assert scene.file.place(scene.pipeline) is None
    assert scene.decide() == ("approve", "1")
    scene.loader.work()
    assert scene.decide() == ("approve", "1")
    assert scene.file.place(scene.pipeline) is not None
    assert scene.decide() == ("decline", "2")
    assert scene.pipeline.metrics.policy == {"name": "p", "version": "2"}
    assert scene.pipeline.metrics.rule_hits == {"a": 1}


@pytest.mark.parametrize(
    ("version", "when", "says"),
    [(2, "amount >", "rules.a.when: line 1, column 9"), (1, "amount > 1", "is version '1' still")],
)
def test_a_bad_file_leaves_the_policy_that_decides(
    scene: Scene, caplog: pytest.LogCaptureFixture, version: int, when: str, says: str
) -> None:
    scene.write(version, when)
    with caplog.at_level(logging.ERROR):
        assert not scene.turn()
        assert not scene.turn()
    assert scene.decide() == ("approve", "1")
    assert scene.pipeline.metrics.policy_loads_failed == 1
    (record,) = caplog.records
    assert says in record.__dict__["why"]
    scene.write(3, "amount > 1")
    assert scene.turn()
    assert scene.decide() == ("decline", "3")


def test_a_file_that_is_gone_leaves_the_policy_too(scene: Scene) -> None:
    scene.path.unlink()
    assert not scene.turn()
    assert not scene.turn()
    assert scene.pipeline.metrics.policy_loads_failed == 1
    scene.write(2, "amount > 1")
    assert scene.turn()


def test_a_model_that_was_loaded_under_the_policy_before_decides_by_the_new_one(scene: Scene) -> None:
    before = scene.pipeline.champion
    scene.write(2, "amount > 1")
    assert scene.turn()
    scene.pipeline.swap(before)
    assert scene.decide() == ("decline", "2")
