"""Following what was decided: what was refused then is left out, whatever the rules are now."""

from dataclasses import dataclass, field

import orjson
import pytest

from engine.events import DeadLetter, Records
from engine.follow import Follower
from engine.pipeline import Pipeline
from engine.progress import Progress, Run, refused_of
from tests.pipelines import event, json_of, pipeline_of, profile, records_of

BATCH_EVENTS_MAX = 6


@dataclass
class Source:
    """Two partitions of valid events, handed out a few records at a time."""

    records: list[Records]
    ends: dict[int, int] = field(default_factory=dict)

    def start(self, vector: dict[int, int]) -> None:
        """The tests begin at the beginning."""

    def pause(self, partitions: set[int]) -> None:
        """Nothing is ever too much."""

    def poll(self, _events_max: int, _linger_s: float) -> Records | None:
        return self.records.pop(0) if self.records else None


@dataclass
class Journal:
    progress: list[Progress]

    def start(self, offset: int) -> None:
        """From the first record on."""

    def poll(self, _timeout_s: float) -> list[Progress]:
        found, self.progress = self.progress, []
        return found


def progress(sequence: int, runs: list[Run], refused: list[Run]) -> Progress:
    vector = {partition: to for partition, _, to in runs}
    return Progress(
        application_id="a", input="in", sequence=sequence, vector=vector, runs=runs, refused=refused,
        state_fingerprint="", feature_set="", model="", policy="",
    )  # fmt: skip


def event_of(partition: int, offset: int) -> bytes:
    return json_of(event(1_000 * partition + offset))


def polled(partition: int, start: int, to: int) -> Records:
    offsets = range(start, to)
    return records_of([event_of(partition, offset) for offset in offsets], partition, offsets)


def follow(
    source: list[Records],
    heard: list[Progress],
    *,
    confirmed_by_next: bool = False,
    committed: dict[int, int] | None = None,
) -> Pipeline:
    """The state after it, and after what is `committed`."""
    pipeline = pipeline_of(profile())
    follower = Follower(
        pipeline,
        Source(source),  # type: ignore[arg-type]
        Journal(heard),  # type: ignore[arg-type]
        confirmed_by_next=confirmed_by_next,
        batch_events_max=BATCH_EVENTS_MAX,
    )
    follower.start({0: 0, 1: 0}, 0, 0)
    follower.hear(0.0)
    if committed is not None:
        follower.take_rest(committed)
    while follower.remaining:
        follower.take(0.0)
    return pipeline


def taken(pipeline: Pipeline, partition: int, offsets: range) -> set[int]:
    """Which events are in the state: their like is a duplicate."""
    again = records_of([event_of(partition, offset) for offset in offsets], partition)
    decided = {orjson.loads(message["value"])["event_id"] for message in pipeline.process(again).decisions}
    return {offset for offset in offsets if f"e{1_000 * partition + offset}" not in decided}


def test_what_was_refused_is_not_in_the_state() -> None:
    """Of both partitions, at the edges of batches and over them, in the middle and at the end."""
    source = [polled(0, 0, 10), polled(1, 0, 5), polled(0, 10, 20), polled(1, 5, 10)]
    heard = [
        progress(1, [(0, 0, 7), (1, 0, 2)], [(0, 0, 1), (0, 3, 5), (1, 1, 2)]),
        progress(2, [(0, 7, 20), (1, 2, 10)], [(0, 8, 12), (0, 19, 20), (1, 4, 6)]),
    ]
    pipeline = follow(source, heard)
    assert taken(pipeline, 0, range(20)) == set(range(20)) - {0, 3, 4, 8, 9, 10, 11, 19}
    assert taken(pipeline, 1, range(10)) == set(range(10)) - {1, 4, 5}
    assert pipeline.metrics.replayed_events == 30


def test_what_is_refused_in_a_later_commit_is_left_out_there() -> None:
    """Heard of together with the first one, or after it was taken."""
    heard = [progress(1, [(0, 0, 4)], []), progress(2, [(0, 4, 8)], [(0, 4, 5), (0, 7, 8)])]
    pipeline = follow([polled(0, 0, 8)], heard)
    assert taken(pipeline, 0, range(8)) == {0, 1, 2, 3, 5, 6}


def test_a_commit_that_was_made_anew_says_what_it_refused() -> None:
    """At least once, the first record of that number stands for nothing."""
    heard = [
        progress(1, [(0, 0, 4)], [(0, 0, 4)]),
        progress(1, [(0, 0, 3)], [(0, 1, 2)]),
        progress(2, [(0, 3, 5)], []),
    ]
    pipeline = follow([polled(0, 0, 5)], heard, confirmed_by_next=True)
    assert taken(pipeline, 0, range(3)) == {0, 2}


@pytest.mark.parametrize("late_to", [5, 12])
def test_a_commit_of_one_who_has_lost_the_lease_stands_for_nothing(late_to: int) -> None:
    """At least once: it stood still before its record, and wrote it when its successor had committed its own."""
    heard = [
        progress(1, [(0, 0, 4)], []),
        progress(2, [(0, 4, 9)], [(0, 7, 8)]),
        progress(2, [(0, 4, late_to)], [(0, 4, 5)]),
    ]
    next_one = progress(3, [(0, 9, 11)], [])
    followed = follow([polled(0, 0, 14)], [*heard, next_one, progress(4, [(0, 11, 14)], [])], confirmed_by_next=True)
    assert taken(followed, 0, range(14)) == set(range(11)) - {7}

    taken_over = follow([polled(0, 0, 14)], heard, confirmed_by_next=True, committed={0: 9, 1: 0})
    assert taken(taken_over, 0, range(14)) == set(range(9)) - {7}


def test_a_batch_that_was_refused_whole_is_passed_over() -> None:
    pipeline = follow([polled(0, 0, 3)], [progress(1, [(0, 0, 3)], [(0, 0, 3)])])
    assert taken(pipeline, 0, range(3)) == set()


@pytest.mark.parametrize(
    ("places", "runs"),
    [
        ([], []),
        ([(0, 5)], [(0, 5, 6)]),
        ([(0, 5), (0, 6), (0, 8), (1, 9), (0, 9)], [(0, 5, 7), (0, 8, 9), (1, 9, 10), (0, 9, 10)]),
    ],
)
def test_places_of_dead_letters_are_runs(places: list[tuple[int, int]], runs: list[Run]) -> None:
    letters = [DeadLetter(None, "empty_value", "", "in", partition, offset) for partition, offset in places]
    assert refused_of(letters) == runs


def test_the_pipeline_says_what_it_refused() -> None:
    outputs = pipeline_of(profile()).process(records_of([b"{", json_of(event(1)), None, b"["], offsets=[3, 4, 5, 6]))
    assert refused_of(outputs.dead_letters) == [(0, 3, 4), (0, 5, 7)]
