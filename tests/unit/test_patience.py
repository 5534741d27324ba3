"""A call that does not return is given up."""

import threading

import pytest
from confluent_kafka import KafkaError, KafkaException

from engine.kafka.patience import within


def test_a_call_that_hangs_is_given_up_and_the_transaction_with_it() -> None:
    never = threading.Event()
    with pytest.raises(KafkaException) as caught:
        within(0.01, "wait", never.wait)
    never.set()
    error = caught.value.args[0]
    assert (error.code(), error.retriable(), error.txn_requires_abort()) == (KafkaError._TIMED_OUT, False, True)
    assert "wait did not return within 0.01 s" in error.str()


def test_what_a_call_raises_is_raised() -> None:
    def fail() -> None:
        raise KafkaException(KafkaError(KafkaError._FENCED, "fenced", fatal=True))

    with pytest.raises(KafkaException, match="fenced") as caught:
        within(5.0, "fail", fail)
    assert caught.value.args[0].fatal()


def test_a_call_that_returns_is_waited_for() -> None:
    done: list[int] = []
    within(5.0, "do", lambda: done.append(1))
    assert done == [1]
