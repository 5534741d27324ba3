"""Reading the committed offsets of a group whose coordinator moves, or of which a transaction is open."""

import pytest
from confluent_kafka import OFFSET_INVALID, KafkaError, KafkaException, TopicPartition

from engine.errors import RetriableError
from engine.kafka import offsets
from engine.kafka.offsets import committed_offsets


class Coordinator:
    """Answers with these errors first."""

    def __init__(self, *codes: int, for_partition: bool = False) -> None:
        self.codes = list(codes)
        self._for_partition = for_partition

    def committed(self, asked: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        assert timeout > 0
        if self.codes and not self._for_partition:
            raise KafkaException(KafkaError(self.codes.pop(0)))
        answers = [TopicPartition(x.topic, x.partition, [7, OFFSET_INVALID][x.partition]) for x in asked]
        if self.codes:
            return [_Refused(answers[0], KafkaError(self.codes.pop(0))), *answers[1:]]  # type: ignore[list-item]
        return answers


class _Refused:
    def __init__(self, place: TopicPartition, error: KafkaError) -> None:
        self.partition, self.offset, self.error = place.partition, place.offset, error


def _asked(coordinator: Coordinator) -> dict[int, int]:
    return committed_offsets(coordinator, "t", [0, 1], lambda timeout_s: None)


@pytest.mark.parametrize("for_partition", [False, True])
@pytest.mark.parametrize("code", offsets.NOT_YET)
def test_what_passes_is_waited_for(code: int, for_partition: bool) -> None:
    assert _asked(Coordinator(code, code, code, for_partition=for_partition)) == {0: 7}


def test_a_coordinator_that_never_comes_is_an_error() -> None:
    with pytest.raises(RetriableError, match="committed offsets cannot be read: Broker: Not coordinator"):
        _asked(Coordinator(*[KafkaError.NOT_COORDINATOR] * offsets.ATTEMPTS))


def test_any_other_error_is_one_at_once() -> None:
    with pytest.raises(RetriableError, match="committed offsets cannot be read"):
        _asked(Coordinator(KafkaError.GROUP_AUTHORIZATION_FAILED))
