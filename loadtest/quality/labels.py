"""Labels of what was sent, as a bank gets them: after a while, before the decision, twice, or wrong at first.

event    |                    due
label         early |          |------- a mean of 15 s -------> one
                               |---------------> one ---------> the same again
                               |---------------> wrong -------> right
"""

from dataclasses import dataclass

import numpy as np
import orjson
from confluent_kafka import KafkaError, Producer

from loadtest.columns import Bool, Int64
from loadtest.errors import LoadTestError
from loadtest.truth import Truth

SCHEMA = "tidegate.label.v1"
DELAY_MEAN_S = 15.0
# So many come before the event itself, twice, and wrong before they are right.
EARLY_SHARE = TWICE_SHARE = WRONG_SHARE = 0.02
EARLY_MS = 500
FLUSH_TIMEOUT_S = 30.0


@dataclass(slots=True)
class _Waiting:
    """n labels that are not given yet."""

    due_ms: Int64
    numbers: Int64
    frauds: Bool

    def take(self, rows: Bool) -> "_Waiting":
        return _Waiting(self.due_ms[rows], self.numbers[rows], self.frauds[rows])


class Labels:
    """Gives each event that is sent its label when the time has come; poison has none."""

    def __init__(self, bootstrap: str, topic: str, ids: str, seed: int) -> None:
        """`ids` begins the event ids of the stream."""
        self._topic = topic
        self._ids = ids
        self._rng = np.random.default_rng((seed, 2))
        self._waiting = _Waiting(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.bool_))
        self._producer = Producer(
            {"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 50, "log_level": 3}
        )
        self._failed: str | None = None

    def expect(self, truth: Truth) -> None:
        """Takes in events that are about to be sent."""
        rows = ~truth.duplicates & ~truth.poison
        numbers, frauds = truth.numbers[rows], truth.attack_ids[rows] >= 0
        n, rng = len(numbers), self._rng
        delays_ms = rng.exponential(DELAY_MEAN_S * 1_000, (2, n)).astype(np.int64) + 1
        kind = rng.random(n)
        early = kind < EARLY_SHARE
        again = ~early & (kind < EARLY_SHARE + TWICE_SHARE + WRONG_SHARE)
        wrong = again & (kind >= EARLY_SHARE + TWICE_SHARE)
        first_ms = truth.send_times_ms[rows] + np.where(early, -EARLY_MS, delays_ms[0])
        waiting = self._waiting
        self._waiting = _Waiting(
            np.concatenate([waiting.due_ms, first_ms, (first_ms + delays_ms[1])[again]]),
            np.concatenate([waiting.numbers, numbers, numbers[again]]),
            np.concatenate([waiting.frauds, frauds ^ wrong, frauds[again]]),
        )

    def give(self, now_ms: int) -> None:
        """Sends those whose time has come; LoadTestError where the broker does not take them."""
        due = self._waiting.due_ms <= now_ms
        given, self._waiting = self._waiting.take(due), self._waiting.take(~due)
        order = np.argsort(given.due_ms, kind="stable")
        for at_ms, number, fraud in zip(
            given.due_ms[order].tolist(), given.numbers[order].tolist(), given.frauds[order].tolist(), strict=True
        ):
            event_id = f"{self._ids}{number:010d}"
            label = {
                "schema": SCHEMA,
                "event_id": event_id,
                "label": int(fraud),
                "labelled_at": at_ms,
                "label_source": "loadtest",
            }
            self._producer.produce(self._topic, orjson.dumps(label), event_id, on_delivery=self._note)
        self._producer.poll(0)
        self._check()

    def give_all(self) -> None:
        """Sends what is left, in the order in which it was to come, and waits until the broker has it."""
        self.give(int(self._waiting.due_ms.max(initial=0)))
        if self._producer.flush(FLUSH_TIMEOUT_S):
            raise LoadTestError(f"{self._topic}: not every label was taken within {FLUSH_TIMEOUT_S:g} s")
        self._check()

    def _note(self, error: KafkaError | None, _: object) -> None:
        if error is not None:
            self._failed = error.str()

    def _check(self) -> None:
        if self._failed is not None:
            raise LoadTestError(f"{self._topic}: a label could not be delivered: {self._failed}")
