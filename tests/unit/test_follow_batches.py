"""A follower takes the input in `progress` order, a bounded batch at a time, however it arrives.

arrives   partition 1: 0 ................ 20,000   partition 0: 0 ..... 5,000
taken     all of 0 but its last, all of 1, the last of 0
"""

from types import SimpleNamespace
from typing import cast

import numpy as np

from engine.events import Records
from engine.follow import Follower
from engine.kafka.consume import Input
from engine.kafka.journal import Journal
from engine.pipeline import Pipeline
from engine.progress import Progress

BATCH_EVENTS_MAX = 2_048
ENDS = {1: 20_000, 0: 5_000}
RUNS = [(0, 0, 4_999), (1, 0, 20_000), (0, 4_999, 5_000)]


class FakeInput:
    """Gives partition 1 first, as much as is asked for."""

    def __init__(self) -> None:
        self.ends: dict[int, int] = {}
        self._left: list[tuple[int, int]] = []

    def start(self, position: dict[int, int]) -> None:
        self._left = [(p, offset) for p, start in position.items() for offset in range(start, ENDS[p])]

    def pause(self, _: set[int]) -> None: ...

    def poll(self, events_max: int, _: float) -> Records | None:
        given, self._left = self._left[:events_max], self._left[events_max:]
        if not given:
            return None
        partitions, offsets = (np.array(column, np.int64) for column in zip(*given, strict=True))
        return Records("in", [b""] * len(given), partitions, offsets, np.zeros(len(given), np.int64))


class FakeJournal:
    """Holds one commit."""

    def start(self, _: int) -> None: ...

    def read_to(self, _: int) -> list[Progress]:
        return [
            Progress(
                application_id="app",
                input="in",
                sequence=1,
                vector=ENDS,
                runs=RUNS,
                state_fingerprint="",
                feature_set="",
                model="",
                policy="",
            )
        ]


def test_what_is_taken_at_once_is_bounded_and_in_order() -> None:
    taken: list[Records] = []
    pipeline = SimpleNamespace(absorb=taken.append, metrics=SimpleNamespace(replayed_events=0))
    follower = Follower(
        cast(Pipeline, pipeline),
        cast(Input, FakeInput()),
        cast(Journal, FakeJournal()),
        confirmed_by_next=False,
        batch_events_max=BATCH_EVENTS_MAX,
    )
    follower.start(dict.fromkeys(ENDS, 0), 0, 0)
    follower.hear_to(1)
    while not follower.settled:
        before = len(taken)
        follower.take(0.0)
        assert len(taken) <= before + 1
    assert max(map(len, taken)) == BATCH_EVENTS_MAX
    order = [
        place for records in taken for place in zip(records.partitions.tolist(), records.offsets.tolist(), strict=True)
    ]
    assert order == [(partition, offset) for partition, start, to in RUNS for offset in range(start, to)]
    assert follower.position == ENDS
