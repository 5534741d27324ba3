"""Both models are measured in the same run, in turns, under a clock that the test moves."""

from dataclasses import dataclass, field

import numpy as np

from models.latency import BATCH_ROWS, ROUNDS, WARM_UP_ROUNDS, median_seconds


class Clock:
    """Stands still but when it is moved."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Slow:
    """A model that takes its time, and much of it in its first rounds and at 9 of 20 calls after them."""

    name: str
    clock: Clock
    seconds: float
    calls: list[tuple[str, int, float]]
    taken: int = field(default=0)

    def score_inputs(self, inputs: np.ndarray) -> np.ndarray:
        self.taken += 1
        slow = self.taken <= WARM_UP_ROUNDS or self.taken % 20 < 9
        self.clock.now_s += 100.0 if slow else self.seconds
        self.calls.append((self.name, len(inputs), float(inputs[0, 0])))
        return np.zeros(len(inputs), np.float32)


def measured(rows: int) -> tuple[tuple[float, float], list[tuple[str, int, float]]]:
    clock, calls = Clock(), []
    models = (Slow("a", clock, 0.25, calls), Slow("b", clock, 0.5, calls))
    inputs = np.arange(rows, dtype=np.float32).reshape(-1, 1)
    return median_seconds(models, (inputs, inputs), clock), calls


def test_medians_are_of_whole_batches_in_turns() -> None:
    medians, calls = measured(2 * BATCH_ROWS + 7)
    assert medians == (0.25, 0.5)
    assert len(calls) == 2 * (WARM_UP_ROUNDS + ROUNDS)
    assert [name for name, _, _ in calls[:8]] == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert {rows for _, rows, _ in calls} == {BATCH_ROWS}
    assert [first for _, _, first in calls[:8]] == [0, 0, 256, 256, 0, 0, 256, 256]


def test_few_rows_are_repeated_to_one_batch() -> None:
    medians, calls = measured(3)
    assert medians == (0.25, 0.5)
    assert {rows for _, rows, _ in calls} == {BATCH_ROWS}
