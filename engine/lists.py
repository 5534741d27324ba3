"""Lists of entities from the command line: said on the control topic, for workers that run and those to come."""

import time
from collections.abc import Iterable

import msgspec

from engine.config import Config
from engine.directives import Listed, decode_command
from engine.errors import ConfigError
from engine.kafka.client import KAFKA, Clients, control_settings
from engine.kafka.control import send_commands
from engine.kafka.tail import Tail
from engine.policy.lists import FOREVER_MS, ListName


def say(
    config: Config,
    name: ListName,
    entity: str,
    keys: Iterable[str],
    *,
    author: str,
    reason: str,
    until_ms: int = FOREVER_MS,
) -> int:
    """Puts keys on a list for events before a time, or, where that is 0, takes them off; returns how many.

    ConfigError where there is no such entity or a key is empty, RetriableError where not all were written.
    """
    if entity not in config.entities:
        raise ConfigError(f"{entity!r} is no entity; there are {', '.join(config.entities)}")
    said = [
        Listed(
            application_id=config.kafka.application_id,
            list=name,
            entity=entity,
            entity_key=key,
            until_ms=until_ms,
            author=author,
            reason=reason,
            said_at_ms=time.time_ns() // 1_000_000,
        )
        for key in dict.fromkeys(keys)
    ]
    if any(not listed.entity_key for listed in said):
        raise ConfigError("a key is empty")
    send_commands(config, said)
    return len(said)


def listed(config: Config, clients: Clients = KAFKA) -> list[Listed]:
    """Who is on which list by the last word about each, whether that is over or not; raises as `Tail`."""
    found: dict[bytes, Listed] = {}
    with Tail(config.kafka.topics.control, control_settings(config), clients) as tail:
        tail.start(0)
        for message in tail.read_to(tail.bounds()[1]):
            value = message.value()
            try:
                command = decode_command(value) if value is not None else None
            except msgspec.DecodeError:
                continue  # as workers do, who say so
            if isinstance(command, Listed) and command.application_id == config.kafka.application_id:
                found[command.key] = command
    return [said for said in found.values() if said.until_ms]
