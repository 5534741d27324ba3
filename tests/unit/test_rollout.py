"""What takes over when: told by a control topic in memory, loaded when the test says so."""

from concurrent.futures import Executor, Future
from typing import Any

import pytest

from engine.canary import Canary
from engine.pipeline import Pipeline
from engine.policy.lists import Lists
from engine.rollout import Rollout
from engine.serving import Serving, serving_of
from models.assignment import Assignment, canary_of, ended, later_than, promoted
from models.errors import ModelError
from models.runtime import Model
from tests.pipelines import demo_model, pipeline_of, profile


class FakeControl:
    """What was said, without a broker."""

    def __init__(self) -> None:
        self.said: dict[str, Assignment] = {}

    def say(self, alias: str, assignment: Assignment) -> None:
        self.said[alias] = later_than(assignment, *self.said.values())

    def assignment(self, _model: str, alias: str) -> Assignment | None:
        return self.said.get(alias)

    def poll(self) -> None: ...

    def catch_up(self) -> None: ...

    def change(self, _lists: Lists) -> None: ...


class FakeClock:
    """Each look is a second later."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 1.0
        return self.now


class Held(Executor):
    """Does nothing before `go`."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Future[Any], Any, tuple[Any, ...]]] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        self.waiting.append((done, fn, args))
        return done

    def go(self) -> None:
        for done, fn, args in self.waiting:
            try:
                done.set_result(fn(*args))
            except (ModelError, OSError) as error:
                done.set_exception(error)
        self.waiting = []


class Scene:
    """A pipeline, and what changes its models; version 4 is refused, and for 5 the machine has no process."""

    def __init__(self) -> None:
        self.config = profile()
        self.pipeline: Pipeline = pipeline_of(self.config)
        self.control, self.loader = FakeControl(), Held()
        self.rollout = Rollout(self.config, self.control, self.load, self.loader, FakeClock())  # type: ignore[arg-type]

    def load(self, reference: str) -> Serving:
        version = int(reference.removeprefix("demo/"))
        if version == 4:
            raise ModelError("it is broken")
        if version == 5:
            raise OSError("no process to spare")
        made = demo_model()
        model = Model(made.name, version, made.sha256, made.manifest, made.columns, made.session)
        return serving_of(self.config.feature_spec(), model, self.pipeline.program, self.pipeline.lists)

    def canary(self, version: int, share: float = 0.1) -> None:
        self.control.say("canary", canary_of(None, version, share, "tests", "test"))

    def turn(self, *, may_swap: bool = True) -> None:
        self.rollout.tick(self.pipeline, may_swap=may_swap)

    def load_and_swap(self) -> None:
        """Hears, loads, and swaps."""
        self.turn()
        self.loader.go()
        self.turn()

    @property
    def deciding(self) -> tuple[int, int | None]:
        """Versions of champion and canary."""
        canary = self.pipeline.canary
        return self.pipeline.model.version, None if canary is None else canary.serving.model.version


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_canary_takes_its_place_between_two_commits(scene: Scene) -> None:
    scene.canary(2)
    scene.turn()
    scene.loader.go()
    scene.turn(may_swap=False)
    assert scene.deciding == (1, None)
    scene.turn()
    assert scene.deciding == (1, 2)
    assert scene.pipeline.canary is not None
    assert scene.pipeline.canary.share == 0.1


def test_the_last_word_about_the_canary_counts(scene: Scene) -> None:
    for version in (2, 3):
        scene.canary(version)
        scene.load_and_swap()
    assert scene.deciding == (1, 3)
    scene.canary(3, 0.5)
    scene.load_and_swap()
    assert scene.pipeline.canary is not None
    assert scene.pipeline.canary.share == 0.5


@pytest.mark.parametrize("version", [4, 5])
def test_what_cannot_be_loaded_is_no_canary_and_neither_is_the_one_before(version: int, scene: Scene) -> None:
    scene.canary(2)
    scene.load_and_swap()
    scene.canary(version)
    scene.load_and_swap()
    assert scene.deciding == (1, None)
    assert scene.pipeline.metrics.model_loads_failed == 1


def test_a_word_about_the_champion_ends_it_at_once_and_the_new_one_follows(scene: Scene) -> None:
    scene.canary(2)
    scene.load_and_swap()
    scene.control.say("champion", promoted(None, 3, "tests", "test"))
    scene.turn()
    assert scene.deciding == (1, None)
    scene.loader.go()
    scene.turn()
    assert scene.deciding == (3, None)


def test_who_settles_goes_on_without_a_canary_that_was_ended_meanwhile(scene: Scene) -> None:
    scene.canary(2)
    scene.load_and_swap()
    scene.control.say("canary", ended(scene.control.said["canary"], "tests", "test"))
    scene.rollout.settle(scene.pipeline)
    assert scene.deciding == (1, None)


def test_one_that_failed_stays_away_until_the_next_word(scene: Scene) -> None:
    scene.canary(2)
    scene.load_and_swap()
    assert isinstance(scene.pipeline.canary, Canary)
    scene.pipeline.set_canary(None)
    scene.load_and_swap()
    assert scene.deciding == (1, None)
    scene.canary(2)
    scene.load_and_swap()
    assert scene.deciding == (1, 2)
