"""Offsets as anyone can ask the broker for them: they prove what a worker had not finished when it was killed.

decisions  ......#####|                # records of an open transaction: from the last stable offset to the end
input      ....|====|                  = committed up to the first mark, there up to the second: uncommitted work
"""

from collections.abc import Mapping
from typing import Any

from confluent_kafka import Consumer, IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from loadtest.chaos.application import Application
from loadtest.errors import LoadTestError

ANSWER_TIMEOUT_S = 30.0

Offsets = dict[int, int]


class Probe:
    """Asks for one application. Every method raises LoadTestError where the broker gives no answer."""

    def __init__(self, application: Application) -> None:
        settings = {"bootstrap.servers": application.bootstrap, "log_level": 0}
        self._application = application
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
        try:
            partitions = self._admin.list_topics(topic, timeout=ANSWER_TIMEOUT_S).topics[topic].partitions
            asked: Mapping[TopicPartition, Any] = {TopicPartition(topic, p): OffsetSpec.latest() for p in partitions}
            answers = self._admin.list_offsets(asked, isolation_level=isolation, request_timeout=ANSWER_TIMEOUT_S)
            return {place.partition: int(answer.result().offset) for place, answer in answers.items()}
        except KafkaException as error:
            raise LoadTestError(f"the offsets of {topic} cannot be read: {error.args[0].str()}") from error

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
        try:
            answers = self._group.committed(places, timeout=ANSWER_TIMEOUT_S)
        except KafkaException as error:
            raise LoadTestError(f"committed offsets cannot be read: {error.args[0].str()}") from error
        return {answer.partition: max(0, answer.offset) for answer in answers}

    def uncommitted(self, ends: Offsets) -> int:
        """How many events before these ends of the input are not committed."""
        committed = self.committed()
        return sum(max(0, end - committed[partition]) for partition, end in ends.items())

    def close(self) -> None:
        """Leaves."""
        self._group.close()
