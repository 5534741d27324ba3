"""The `control` topic: how a worker hears of commands, and how the command line sends them."""

import logging
from collections.abc import Iterable
from typing import Any

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message

from engine.closing import Closing
from engine.config import Config
from engine.directives import AliasMoved, Command, Listed, alias_key, change_lists, decode_command, encode_command
from engine.errors import RetriableError
from engine.kafka.client import KAFKA, Clients, control_settings, producer_settings, refused_settings
from engine.kafka.tail import PARTITION, Tail
from engine.policy.lists import Lists
from models.assignment import Assignment

_log = logging.getLogger("tidegate.control")

SEND_TIMEOUT_S = 10.0
# The partitioner chooses.
PARTITION_OF_KEY = -1


class Control(Closing):
    """Reads commands to this application. What holds of models is kept, and what is said of lists until they hear it.

    A record that says nothing sensible changes nothing.
    """

    def __init__(self, config: Config, clients: Clients = KAFKA) -> None:
        """ConfigError where the settings are refused."""
        self._application_id = config.kafka.application_id
        self._tail = Tail(config.kafka.topics.control, control_settings(config), clients)
        self._moves: dict[bytes, AliasMoved] = {}
        # What was said of lists and no lists have heard yet.
        self._listed: list[Listed] = []
        self._tail.start(0)

    def catch_up(self) -> None:
        """Hears everything that was said before now. Raises as `Tail.bounds` and `Tail.read_to`."""
        _, end = self._tail.bounds()
        self._take(self._tail.read_to(end))

    def poll(self) -> None:
        """Hears what has arrived; waits for nothing. MissingTopicError where there is no such topic."""
        self._take(self._tail.poll(0.0))

    def assignment(self, model: str, alias: str) -> Assignment | None:
        """What the alias stands for by command; None where nobody has said."""
        move = self._moves.get(alias_key(self._application_id, model, alias))
        return None if move is None else move.assignment

    def change(self, lists: Lists) -> None:
        """Changes lists as was said since they were changed last."""
        change_lists(lists, self._listed)
        self._listed = []
        lists.control_offset = self._tail.position

    def _take(self, messages: list[Message]) -> None:
        for message in messages:
            key, value = message.key(), message.value()
            if value is None:
                self._moves.pop(key, None)
                continue
            try:
                command = decode_command(value)
            except msgspec.DecodeError as error:
                # Whoever may write here may stop no worker by it.
                _log.error("a command cannot be read", extra={"offset": message.offset(), "why": str(error)})
                continue
            if command.key != key:
                _log.error("a command has the key of another", extra={"offset": message.offset()})
                continue
            if command.application_id != self._application_id:
                continue
            if isinstance(command, Listed):
                self._listed.append(command)
            else:
                self._moves[key] = command

    def close(self) -> None:
        """Leaves."""
        self._tail.close()


def send_commands(config: Config, commands: Iterable[Command], clients: Clients = KAFKA) -> None:
    """Returns once the broker has all of them; RetriableError where it does not say so in time."""
    records = ((command.key, encode_command(command)) for command in commands)
    send_records(config, config.kafka.topics.control, records, clients, PARTITION)


def send_records(
    config: Config,
    topic: str,
    records: Iterable[tuple[bytes, bytes]],
    clients: Clients = KAFKA,
    partition: int = PARTITION_OF_KEY,
) -> None:
    """Sends keys and values that people wait for; as `send_commands`."""
    failed: list[KafkaError] = []

    def note(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            failed.append(error)

    settings = {
        **producer_settings(config),
        "message.timeout.ms": int(SEND_TIMEOUT_S * 1000),
        "delivery.report.only.error": False,
    }
    try:
        producer: Any = clients.producer(settings)
    except KafkaException as error:
        raise refused_settings(error) from error
    for key, value in records:
        while True:
            try:
                producer.produce(topic, value, key, partition, note)
                break
            except BufferError:
                producer.poll(1.0)
    left = producer.flush(SEND_TIMEOUT_S + 1)
    if left or failed:
        why = failed[0].str() if failed else "no answer"
        raise RetriableError(f"not everything was written to topic {topic!r}: {why}")
