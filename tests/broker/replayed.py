"""The decisions of a stream once more, without a worker: in `progress` order, with each commit's lists and policy."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from confluent_kafka import Message

from engine.assemble import assemble, load_rates, policy_program
from engine.config import Config
from engine.decode import Decoder
from engine.directives import Listed, change_lists, decode_command
from engine.events import Records
from engine.progress import decode_progress


def decisions_again(
    configs: Sequence[Config],
    folder: Path,
    inputs: Iterable[Message],
    progress: Iterable[Message],
    control: Iterable[Message],
) -> Iterator[dict[str, Any]]:
    """Every decision as `told` has it; `configs` differ in their policies alone, the first decides first."""
    by_place = {(message.partition(), message.offset()): message for message in inputs}
    commands = list(control)
    programs = {config.policy.label: policy_program(config, config.feature_spec()) for config in configs}
    with ExitStack() as resources_open:
        config = configs[0]
        spec, rates = config.feature_spec(), load_rates(config)
        config = config.with_state_dir(folder)
        pipeline = assemble(config, resources_open, with_features=config.kafka.decision_features)
        for message in progress:
            record = decode_progress(message.value(), message.offset())
            if record.policy != pipeline.program.policy.label:
                program = programs[record.policy]
                pipeline.set_policy(program, Decoder(config, spec, rates, program.fields))
            while commands and commands[0].offset() < record.control:
                command = decode_command(commands.pop(0).value())
                change_lists(pipeline.lists, [command] if isinstance(command, Listed) else [])
            places = [(partition, offset) for partition, start, to in record.runs for offset in range(start, to)]
            records = _records(config.kafka.input, [by_place[place] for place in places if place in by_place])
            yield from (told(output["value"]) for output in pipeline.process(records).decisions)


def told(value: bytes) -> dict[str, Any]:
    """A decision without the time at which it was made, which a replay has otherwise."""
    decision: dict[str, Any] = orjson.loads(value)
    del decision["decided_at"]
    return decision


def _records(topic: str, messages: list[Message]) -> Records:
    return Records(
        topic,
        [message.value() for message in messages],
        np.array([message.partition() for message in messages], np.int64),
        np.array([message.offset() for message in messages], np.int64),
        np.array([message.timestamp()[1] for message in messages], np.int64),
        [message.key() for message in messages],
    )
