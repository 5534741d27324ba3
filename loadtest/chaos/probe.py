"""Offsets as anyone can ask the broker for them: they prove what a worker had not finished when it was killed.

decisions  ......#####|                # records of an open transaction: from the last stable offset to the end
input      ....|====|                  = committed up to the first mark, there up to the second: uncommitted work
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

from confluent_kafka import Consumer, IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from loadtest.chaos.application import Application
from loadtest.errors import LoadTestError

ANSWER_TIMEOUT_S = 10.0
GIVE_UP_S, ASK_AGAIN_S = 30.0, 0.05

Offsets = dict[int, int]


class Probe:
    """Asks for one application. Every method raises LoadTestError where the broker gives no answer."""

    def __init__(self, application: Application) -> None:
        settings = {"bootstrap.servers": application.bootstrap, "log_level": 0}
        self._application = application
        self._partitions: dict[str, list[int]] = {}
        self._admin = AdminClient(settings)
        # Of the application's group only to read its offsets: it joins nothing, and does not wait for transactions.
        self._group = Consumer(
            {
                **settings,
                "group.id": application.id,
                "enable.auto.commit": False,
                "isolation.level": "read_uncommitted",
            }
        )

    def ends(self, topic: str) -> Offsets:
        """The next offset to be written of each partition."""
        return self._offsets(topic, IsolationLevel.READ_UNCOMMITTED)

    def stable_ends(self, topic: str) -> Offsets:
        """Up to where each partition can be read by whoever reads only what is committed."""
        return self._offsets(topic, IsolationLevel.READ_COMMITTED)

    def _offsets(self, topic: str, isolation: IsolationLevel) -> Offsets:
        def ask() -> Offsets:
            if topic not in self._partitions:
                found = self._admin.list_topics(topic, timeout=ANSWER_TIMEOUT_S).topics[topic]
                self._partitions[topic] = sorted(found.partitions)
            asked: Mapping[TopicPartition, Any] = {
                TopicPartition(topic, partition): OffsetSpec.latest() for partition in self._partitions[topic]
            }
            answers = self._admin.list_offsets(asked, isolation_level=isolation, request_timeout=ANSWER_TIMEOUT_S)
            return {place.partition: int(answer.result().offset) for place, answer in answers.items()}

        return _answered(ask, f"the offsets of {topic}")

    def open_at(self) -> Offsets:
        """First offset of the open transaction in each partition of the decisions that it wrote to; empty if none is.

        The ends are asked for first, so that what lies between was undecided when the second answer was given.
        """
        ends = self.ends(self._application.decisions)
        stable = self.stable_ends(self._application.decisions)
        return {partition: stable[partition] for partition in ends if stable[partition] < ends[partition]}

    def committed(self) -> Offsets:
        """The next offset of each partition of the input, as far as it is committed; 0 where nothing is."""
        places = [TopicPartition(self._application.input, p) for p in range(self._application.partitions)]

        def ask() -> Offsets:
            answers = self._group.committed(places, timeout=ANSWER_TIMEOUT_S)
            return {answer.partition: max(0, answer.offset) for answer in answers}

        return _answered(ask, "committed offsets")

    def uncommitted(self, ends: Offsets) -> int:
        """How many events before these ends of the input are not committed."""
        committed = self.committed()
        return sum(max(0, end - committed[partition]) for partition, end in ends.items())

    def close(self) -> None:
        """Leaves."""
        self._group.close()


def _answered(ask: Callable[[], Offsets], what: str) -> Offsets:
    """Asks again for a while: a broker that has just come back does not know yet what it leads."""
    give_up_at = time.monotonic() + GIVE_UP_S
    while True:
        try:
            return ask()
        except KafkaException as error:
            if time.monotonic() > give_up_at:
                raise LoadTestError(f"{what} cannot be read: {error.args[0].str()}") from error
            time.sleep(ASK_AGAIN_S)  # nothing tells when it does
