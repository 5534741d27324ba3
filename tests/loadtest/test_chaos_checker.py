"""The checker on a real broker, over topics that a test has written: a good run, and faults planted in it.

input of two partitions, with a duplicate and poison --> tidegate replay --> outputs as they should be --> topics
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import orjson
import pytest
from confluent_kafka import Producer

from engine.kafka import topics
from loadtest.chaos.application import Application
from loadtest.chaos.checker import Findings, check
from loadtest.chaos.offline import Offline, event_line
from loadtest.errors import LoadTestError
from tests.conftest import delete_topics

pytestmark = pytest.mark.broker

T0_MS = 1_790_000_000_000
POISON = b'{"event_id":'


def event(number: int, card: str, **changes: object) -> bytes:
    fields = {
        "event_id": f"e{number}",
        "event_time": T0_MS + 1_000 * number,
        "amount": 10.5 + number,
        "currency": "EUR",
    }
    return orjson.dumps({**fields, "card": card, "merchant": "m", "device": "d", "ip": "10.0.0.1", **changes})


# Partition, value. The device is that of all, so that its features depend on how partitions are interleaved.
SENT = [
    (0, event(0, "4000")),
    (0, event(1, "4000")),
    (1, event(2, "5000")),
    (0, event(1, "4000")),
    (1, POISON),
    (1, event(3, "5000", amount="NaN")),
    (0, event(4, "4000")),
    (1, event(5, "5000")),
]
RUNS = [[(0, 0, 2), (1, 0, 1)], [(1, 1, 3), (0, 2, 4), (1, 3, 4)]]


@dataclass
class Topics:
    """What will be written; a test changes it first."""

    decisions: list[tuple[int, bytes]]
    alerts: list[tuple[int, bytes]]
    letters: list[tuple[bytes, dict[str, bytes]]]
    progress: list[bytes]


class Scripted:
    """An application whose workers are this test."""

    def __init__(self, bootstrap: str, folder: Path) -> None:
        self.application = Application(bootstrap, f"test-{uuid4().hex[:8]}", 2, "exactly_once")
        application = self.application
        self.names = (application.input, application.decisions, application.alerts, application.dead_letters)
        specs = [topics.TopicSpec(name, 2, 1, {"retention.ms": "-1"}) for name in self.names]
        specs.append(topics.TopicSpec(application.progress, 1, 1, {"retention.ms": "-1"}))
        topics.apply({"bootstrap.servers": bootstrap}, specs)
        config = folder / "tidegate.toml"
        config.write_text(application.config_text({"policy": {"challenge": 1, "review": 2, "decline": 900}}), "utf-8")
        self.offline = Offline(folder, config, application.input, with_features=True)
        self.producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True})

    def send_input(self) -> None:
        for at, (partition, value) in enumerate(SENT):
            self.producer.produce(self.application.input, value, b"", partition, timestamp=T0_MS + 1_000 * at)
        assert self.producer.flush(30) == 0

    def good(self, folder: Path) -> Topics:
        """What a worker would write that takes the input in the order of RUNS."""
        by_place, placed = {}, dict.fromkeys((0, 1), 0)
        for at, (partition, value) in enumerate(SENT):
            by_place[partition, placed[partition]] = (value, T0_MS + 1_000 * at)
            placed[partition] += 1
        lines = []
        for partition, start, to in (run for runs in RUNS for run in runs):
            for offset in range(start, to):
                value, time_ms = by_place[partition, offset]
                if value != POISON:
                    lines.append(event_line(value, partition, offset, time_ms))
        events, out = folder / "expected.jsonl", folder / "expected-decisions.jsonl"
        alerts, letters = folder / "expected-alerts.jsonl", folder / "expected-letters.jsonl"
        events.write_bytes(b"".join(lines))
        command = [sys.executable, "-m", "engine", "replay", str(events), "--config", str(self.offline.config_file)]
        command += ["--topic", self.application.input, "--partition-field", "kafka_partition", "--features"]
        command += ["--offset-field", "kafka_offset", "--timestamp-field", "kafka_timestamp", "--out", str(out)]
        command += ["--alerts", str(alerts), "--dead-letters", str(letters)]
        subprocess.run(command, check=True, capture_output=True)
        dead = [(SENT[5][1], headers("amount_invalid", 1, 2)), (POISON, headers("malformed_json", 1, 1))]
        return Topics(placed_lines(out), placed_lines(alerts), dead, self.journal())

    def journal(self) -> list[bytes]:
        vector, records = {0: 0, 1: 0}, []
        for sequence, runs in enumerate(RUNS, 1):
            vector |= {partition: to for partition, _, to in runs}
            records.append(
                orjson.dumps(
                    {
                        "application_id": self.application.id,
                        "input": self.application.input,
                        "sequence": sequence,
                        "vector": {str(partition): offset for partition, offset in vector.items()},
                        "runs": runs,
                        **dict.fromkeys(("state_fingerprint", "feature_set", "model", "policy"), "x"),
                    }
                )
            )
        return records

    def write(self, found: Topics) -> None:
        application = self.application
        for partition, value in found.decisions:
            self.producer.produce(application.decisions, value, b"", partition)
        for partition, value in found.alerts:
            self.producer.produce(application.alerts, value, b"", partition)
        for value, named in found.letters:
            self.producer.produce(application.dead_letters, value, partition=0, headers=named)
        for value in found.progress:
            self.producer.produce(application.progress, value, application.id.encode(), 0)
        assert self.producer.flush(30) == 0


def headers(reason: str, partition: int, offset: int) -> dict[str, bytes]:
    fields = {"reason": reason, "partition": partition, "offset": offset}
    return {f"tidegate.{name}": str(value).encode() for name, value in fields.items()}


def placed_lines(file: Path) -> list[tuple[int, bytes]]:
    return [(json.loads(line)["source"]["partition"], line.rstrip()) for line in file.read_bytes().splitlines()]


@pytest.fixture
def scripted(kafka_bootstrap: str, tmp_path: Path) -> Iterator[Scripted]:
    made = Scripted(kafka_bootstrap, tmp_path)
    yield made
    delete_topics(kafka_bootstrap, [*made.names, made.application.progress])


def findings(scripted: Scripted, folder: Path, plant: Callable[[Topics], None]) -> Findings:
    scripted.send_input()
    found = scripted.good(folder)
    plant(found)
    scripted.write(found)
    return check(scripted.application, scripted.offline)


def test_a_good_run(scripted: Scripted, tmp_path: Path) -> None:
    found = findings(scripted, tmp_path, lambda _: None)
    verdict = found.verdict
    assert (verdict.events, verdict.decisions, verdict.dead_letters, verdict.duplicates) == (8, 5, 2, 1)
    assert verdict.examples == {}
    assert (verdict.lost, verdict.duplicated, verdict.reordered, verdict.mismatched) == (0, 0, 0, 0)
    assert (found.journal_faults, found.differences) == ([], [])


def lose(found: Topics) -> None:
    found.decisions.pop(0)


def double(found: Topics) -> None:
    found.decisions.append(found.decisions[-1])


def reorder(found: Topics) -> None:
    found.decisions[0], found.decisions[1] = found.decisions[1], found.decisions[0]


def change_a_feature(found: Topics) -> None:
    partition, value = found.decisions[3]
    assert b'"card.count.24h":3.0' in value
    found.decisions[3] = partition, value.replace(b'"card.count.24h":3.0', b'"card.count.24h":4.0')


@pytest.mark.parametrize(
    ("plant", "fault"),
    [(lose, "lost"), (double, "duplicated"), (reorder, "reordered"), (change_a_feature, "mismatched")],
)
def test_a_planted_fault_is_found(
    scripted: Scripted, tmp_path: Path, plant: Callable[[Topics], None], fault: str
) -> None:
    found = findings(scripted, tmp_path, plant)
    verdict = found.verdict
    counts = {name: getattr(verdict, name) for name in ("lost", "duplicated", "reordered", "mismatched")}
    assert counts == {**dict.fromkeys(counts, 0), fault: 1}
    if fault == "mismatched":
        assert found.differences == ["partition 0, offset 3: features.card.count.24h: 4.0, offline 3.0"]


def test_decisions_must_fit_the_order_that_progress_gives(scripted: Scripted, tmp_path: Path) -> None:
    def swap_runs(found: Topics) -> None:
        first = orjson.loads(found.progress[0])
        found.progress[0] = orjson.dumps(first | {"runs": first["runs"][::-1]})

    found = findings(scripted, tmp_path, swap_runs)
    assert found.journal_faults == []
    assert found.verdict.mismatched
    assert any("features.device.count" in line for line in found.differences)


def test_a_gap_in_progress_is_found_and_nothing_compared(scripted: Scripted, tmp_path: Path) -> None:
    found = findings(scripted, tmp_path, lambda topics: topics.progress.pop(0) and None)
    assert found.journal_faults
    assert found.verdict.mismatched is None
    assert found.verdict.events == 8


def test_a_transaction_that_is_open_is_told(scripted: Scripted) -> None:
    application = scripted.application
    producer = Producer({"bootstrap.servers": application.bootstrap, "transactional.id": application.id})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(application.decisions, b"{}", partition=0)
    producer.flush(30)
    with pytest.raises(LoadTestError, match="a transaction is still open"):
        check(application, scripted.offline)
    producer.abort_transaction(30)
