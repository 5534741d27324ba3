"""The same input once more without a broker: a file in acceptance order through `tidegate replay`."""

import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from loadtest.chaos.contents import UNREPEATABLE, Content, decision_content, letter_content
from loadtest.chaos.worker import plain_environment
from loadtest.errors import LoadTestError

# Fields of no event, which tell where in Kafka the record was.
PARTITION, OFFSET, TIMESTAMP = "kafka_partition", "kafka_offset", "kafka_timestamp"
SECONDS_MIN, EVENTS_PER_SECOND_MIN = 120.0, 500.0


@dataclass(frozen=True, slots=True)
class Offline:
    """Where the files of a replay are, and what the workers under test ran with."""

    folder: Path
    config_file: Path
    topic: str
    with_features: bool

    @property
    def events_file(self) -> Path:
        """The input in acceptance order."""
        return self.folder / "events.jsonl"

    @property
    def decisions_file(self) -> Path:
        """What the replay decided."""
        return self.folder / "decisions.jsonl"

    @property
    def letters_file(self) -> Path:
        """What the replay could not read."""
        return self.folder / "dead-letters.jsonl"

    def run(self, events: int) -> None:
        """Replays the file; LoadTestError where that does not end well."""
        command = [sys.executable, "-m", "engine", "replay", str(self.events_file), "--config", str(self.config_file)]
        command += ["--topic", self.topic, "--partition-field", PARTITION, "--offset-field", OFFSET]
        command += ["--timestamp-field", TIMESTAMP, "--out", str(self.decisions_file)]
        command += ["--dead-letters", str(self.letters_file), *["--features"] * self.with_features, "--json"]
        timeout_s = SECONDS_MIN + events / EVENTS_PER_SECOND_MIN
        try:
            done = subprocess.run(
                command, env=plain_environment(), capture_output=True, text=True, check=False, timeout=timeout_s
            )
        except subprocess.TimeoutExpired as error:
            raise LoadTestError(f"the offline replay took longer than {timeout_s:.0f} s") from error
        if done.returncode != 0:
            raise LoadTestError(f"the offline replay ended with exit code {done.returncode}: {done.stderr.strip()}")

    def contents(self) -> Iterator[Content]:
        """What came out."""
        with self.decisions_file.open("rb") as lines:
            yield from map(decision_content, lines)
        with self.letters_file.open("rb") as lines:
            for line in lines:
                letter = orjson.loads(line)
                yield letter_content(letter["reason"], letter["source"]["partition"], letter["source"]["offset"])

    def decision(self, partition: int, offset: int) -> dict[str, Any] | None:
        """The decision about one record; None where there is none."""
        with self.decisions_file.open("rb") as lines:
            for line in lines:
                decision: dict[str, Any] = orjson.loads(line)
                if (decision["source"]["partition"], decision["source"]["offset"]) == (partition, offset):
                    return decision
        return None


def event_line(value: bytes, partition: int, offset: int, timestamp_ms: int) -> bytes:
    """A record that is a JSON object as a line of the file: its very bytes, with its coordinates put in front.

    >>> event_line(b'{"amount": 1.10}', 3, 17, 1700000000000)
    b'{"kafka_partition":3,"kafka_offset":17,"kafka_timestamp":1700000000000,"amount": 1.10}\\n'
    """
    fields = value.strip().removeprefix(b"{")
    separator = b"" if fields.lstrip().startswith(b"}") else b","
    coordinates = b'{"%b":%d,"%b":%d,"%b":%d' % (
        PARTITION.encode(),
        partition,
        OFFSET.encode(),
        offset,
        TIMESTAMP.encode(),
        timestamp_ms,
    )
    # A line ends where JSON may have white space.
    return coordinates + separator + fields.replace(b"\n", b" ").replace(b"\r", b" ") + b"\n"


def differences(ours: dict[str, Any] | None, theirs: dict[str, Any] | None) -> Iterable[str]:
    """Field by field, where two decisions differ."""
    if ours is None or theirs is None:
        yield "only one of them decided"
        return
    flat_ours, flat_theirs = dict(_flat(ours)), dict(_flat(theirs))
    for name in sorted((flat_ours.keys() | flat_theirs.keys()) - {UNREPEATABLE}):
        if flat_ours.get(name) != flat_theirs.get(name):
            yield f"{name}: {flat_ours.get(name)!r}, offline {flat_theirs.get(name)!r}"


def _flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
