"""A broker is there as long as one connection of the client is."""

import logging

import pytest

from engine.kafka.reach import Reach


def statistics(*states: str) -> str:
    brokers = ",".join(f'"b{n}":{{"name":"b{n}","state":"{state}"}}' for n, state in enumerate(states))
    return f'{{"name":"rdkafka#consumer-1","brokers":{{{brokers}}},"topics":{{}}}}'


def test_only_changes_are_told(caplog: pytest.LogCaptureFixture) -> None:
    told: list[bool] = []
    reach = Reach(told.append)
    with caplog.at_level(logging.INFO, "tidegate.kafka"):
        for states in (("INIT", "UP"), ("UP", "DOWN"), ("TRY_CONNECT", "DOWN"), ("CONNECT",), (), ("UPDATE",), ("UP",)):
            reach.on_statistics(statistics(*states))
    assert told == [False, True]
    assert [record.message for record in caplog.records] == [
        "no Kafka broker answers; trying until one does",
        "a Kafka broker answers again",
    ]
