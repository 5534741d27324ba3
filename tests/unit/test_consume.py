"""What the consumer makes of a broker that is not ready yet."""

import pytest
from confluent_kafka import OFFSET_INVALID, KafkaError, KafkaException, TopicPartition

from engine.errors import RetriableError
from engine.kafka import consume
from engine.kafka.consume import Input


class Coordinator:
    """Answers with these errors first."""

    def __init__(self, *codes: int) -> None:
        self.codes = list(codes)

    def committed(self, asked: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        assert timeout > 0
        if self.codes:
            raise KafkaException(KafkaError(self.codes.pop(0)))
        return [TopicPartition(x.topic, x.partition, [7, OFFSET_INVALID][x.partition]) for x in asked]


def _input(monkeypatch: pytest.MonkeyPatch, *codes: int) -> Input:
    monkeypatch.setattr(consume, "ASK_AGAIN_S", 0.0)
    asked = object.__new__(Input)
    asked.topic, asked.partitions, asked._consumer = "t", [0, 1], Coordinator(*codes)
    return asked


def test_a_coordinator_that_is_being_elected_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for code in consume.NO_COORDINATOR_YET:
        assert _input(monkeypatch, code, code, code).committed() == {0: 7}


def test_one_that_never_comes_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consume, "ANSWER_TIMEOUT_S", 0.05)
    with pytest.raises(RetriableError, match="committed offsets cannot be read: Broker: Not coordinator"):
        _input(monkeypatch, *[KafkaError.NOT_COORDINATOR] * 1_000_000).committed()


def test_any_other_error_is_one_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _input(monkeypatch, KafkaError.GROUP_AUTHORIZATION_FAILED)
    with pytest.raises(RetriableError, match="committed offsets cannot be read"):
        asked.committed()
