"""The reader of committed records, of a consumer that says what the test wrote down."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from confluent_kafka import KafkaError, TopicPartition

from engine.errors import FatalError
from engine.kafka.committed import CommittedReader


@dataclass
class Said:
    """A record, or, with an error, news of a partition."""

    at: int
    why: KafkaError | None = None
    place: int = 0

    def partition(self) -> int:
        return self.place

    def offset(self) -> int:
        return self.at

    def error(self) -> KafkaError | None:
        return self.why


def end(at: int, place: int = 0) -> Said:
    return Said(at, KafkaError(KafkaError._PARTITION_EOF), place)


@dataclass
class Scripted:
    """A consumer, and what makes it."""

    script: list[Said] = field(default_factory=list)
    paused: list[int] = field(default_factory=list)

    def consumer(self, _settings: Any) -> "Scripted":
        return self

    def list_topics(self, topic: str, timeout: float) -> Any:
        class Found:
            error = None
            partitions = {0: None, 1: None}  # noqa: RUF012

        class Topics:
            topics = {topic: Found}  # noqa: RUF012

        return Topics

    def assign(self, places: list[TopicPartition]) -> None:
        self.paused = []

    def unassign(self) -> None:
        pass

    def pause(self, places: list[TopicPartition]) -> None:
        self.paused += [place.partition for place in places]

    def poll(self, _timeout: float) -> Said:
        return self.script.pop(0)


def offsets(reader: CommittedReader, starts: dict[int, int], ends: dict[int, int]) -> list[int]:
    return [message.offset() for message in reader.read(starts, ends)]


@pytest.fixture
def scripted() -> Scripted:
    return Scripted()


@pytest.fixture
def reader(scripted: Scripted) -> CommittedReader:
    return CommittedReader("letters", {}, scripted)  # type: ignore[arg-type]


def test_what_stands_behind_the_end_is_left_to_whoever_reads_on(scripted: Scripted, reader: CommittedReader) -> None:
    """offset     3  4  5        4 is the marker of a transaction, which nothing is told of but by what follows
    survey        r  -  |        ends at 5; 5 is written meanwhile, and arrives
    catch-up            r
    """
    scripted.script = [Said(3), Said(5)]
    assert offsets(reader, {0: 3}, {0: 5}) == [3]
    assert reader.read_to == {0: 5}
    scripted.script = [Said(5)]
    assert offsets(reader, reader.read_to, {0: 6}) == [5]


def test_markers_before_the_end_are_passed_over(scripted: Scripted, reader: CommittedReader) -> None:
    scripted.script = [Said(3), end(5)]
    assert offsets(reader, {0: 3}, {0: 5}) == [3]
    assert scripted.script == []


def test_a_partition_that_is_left_says_nothing_more(scripted: Scripted, reader: CommittedReader) -> None:
    scripted.script = [Said(0), Said(1), Said(7, place=1), end(2), Said(8, place=1)]
    found = []
    for message in reader.read({0: 0, 1: 7}, {0: 9, 1: 9}):
        found.append((message.partition(), message.offset()))
        if message.partition() == 0:
            reader.leave(0)
    assert found == [(0, 0), (1, 7), (1, 8)]
    assert scripted.paused == [0]


def test_records_that_are_gone_are_not_passed_over_in_silence(scripted: Scripted, reader: CommittedReader) -> None:
    scripted.script = [Said(3), Said(4, KafkaError(KafkaError._AUTO_OFFSET_RESET))]
    with pytest.raises(FatalError, match="letters: "):
        offsets(reader, {0: 3}, {0: 9})
