"""Files in, decisions out: the same pipeline without a broker, in bounded memory."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import orjson

from engine.assemble import assemble
from engine.config import Config
from engine.errors import ConfigError
from engine.events import DeadLetter, Records
from engine.state.local import LocalState

BATCH_EVENTS = 4_096


@dataclass(slots=True)
class ReplaySummary:
    """What became of the records."""

    events: int = 0
    decisions: int = 0
    alerts: int = 0
    dead_letters: int = 0
    duplicates: int = 0


@dataclass(frozen=True, slots=True)
class ReplayFiles:
    """Where a replay writes, one JSON object a line; None where nobody wants to see it."""

    decisions: Path
    alerts: Path | None = None
    dead_letters: Path | None = None


def replay(
    records: Iterator[Records],
    config: Config,
    files: ReplayFiles,
    *,
    with_features: bool = False,
    advance: Callable[[ReplaySummary], None] = lambda summary: None,
) -> ReplaySummary:
    """Decides for every record; calls `advance` after each micro-batch."""
    summary = ReplaySummary()
    with ExitStack() as resources_open:
        config = with_scratch_state(config, resources_open)
        pipeline = assemble(config, resources_open, with_features=with_features)
        decisions, alerts, dead_letters = (
            resources_open.enter_context(create(path or Path(os.devnull)))
            for path in (files.decisions, files.alerts, files.dead_letters)
        )
        for batch in records:
            outputs = pipeline.process(batch)
            decisions.writelines(message["value"] + b"\n" for message in outputs.decisions)
            alerts.writelines(message["value"] + b"\n" for message in outputs.alerts)
            dead_letters.writelines(dead_letter_line(letter) for letter in outputs.dead_letters)
            summary.events += len(batch)
            summary.decisions += len(outputs.decisions)
            summary.alerts += len(outputs.alerts)
            summary.dead_letters += len(outputs.dead_letters)
            summary.duplicates = summary.events - summary.decisions - summary.dead_letters
            flush_when_full(pipeline.state, config)
            advance(summary)
    return summary


def create(path: Path, shown: Path | None = None) -> BinaryIO:
    """A new file; ConfigError, which names `shown` where that is given, if there can be none."""
    try:
        return path.open("wb")
    except OSError as error:
        raise ConfigError(f"{shown or path} cannot be written: {error.strerror}") from error


def flush_when_full(state: LocalState, config: Config) -> None:
    """Moves dirty entities to disk where they take up their bound; a file has no commits to wait for."""
    if state.dirty_bytes() > config.state.dirty_bytes_max:
        state.begin_flush({})
        state.finish_flush()


def with_scratch_state(config: Config, resources_open: ExitStack) -> Config:
    """The same configuration with its state in a folder that is gone afterwards."""
    folder = resources_open.enter_context(tempfile.TemporaryDirectory(prefix="tidegate-"))
    return config.with_state_dir(Path(folder))


def dead_letter_line(letter: DeadLetter) -> bytes:
    """A dead letter as a line of a file."""
    return orjson.dumps(
        {
            "reason": letter.reason,
            "error": letter.detail,
            "source": {"topic": letter.topic, "partition": letter.partition, "offset": letter.offset},
            "value": None if letter.value is None else letter.value.decode("utf-8", "replace"),
        },
        option=orjson.OPT_APPEND_NEWLINE,
    )
