"""Offline and online are one: training sets hold what was decided, and a worker goes on where history ends."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from engine.errors import FatalError
from tests.broker.application import GIVE_UP_S, Application, new_application
from tests.broker.test_worker import crash_traffic, decided, finish, run_to_end
from tests.commands import invoke
from tests.conftest import TopicFactory

pytestmark = pytest.mark.broker

ROOT = Path(__file__).parent.parent.parent
COMPARED_EVENTS = 5_000
EVENTS = 6_000


@pytest.fixture
def make(kafka_bootstrap: str, tmp_path: Path, topic_factory: TopicFactory) -> Callable[..., Application]:
    """Makes an application of so many partitions."""

    def new(partitions: int = 1, folder: str = "app") -> Application:
        home = tmp_path / folder
        home.mkdir()
        return new_application(kafka_bootstrap, home, topic_factory, partitions)

    return new


def test_a_training_set_holds_the_values_of_the_decisions_bit_by_bit(kafka_bootstrap: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "KAFKA_BOOTSTRAP_SERVERS": kafka_bootstrap}
    command = [sys.executable, str(ROOT / "scripts" / "compare-offline-online"), "--events", str(COMPARED_EVENTS)]
    ended = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=GIVE_UP_S, check=False
    )
    assert ended.returncode == 0, ended.stderr
    events, rows, columns, differing, inexact = (
        int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*", ended.stdout)
    )
    assert (events, differing) == (COMPARED_EVENTS, 0)
    assert COMPARED_EVENTS * 9 // 10 < rows < events  # the rest are duplicates
    assert columns > 150
    assert 0 < inexact < rows * columns // 10


def export(application: Application, path: Path, until: dict[int, int]) -> dict[int, int]:
    """Writes the records before these offsets as a file; returns where each partition of it ends.

    What is not even JSON cannot be exported, and none of it is in the state.
    """
    ends, lines = {}, []
    for record in sorted(application.sent, key=lambda record: (record.timestamp_ms, record.partition, record.offset)):
        value = record.value or b""
        if record.offset < until[record.partition] and is_object(value):
            place = b'"partition":%d,"offset":%d,"written":%d' % (record.partition, record.offset, record.timestamp_ms)
            lines.append(value.rstrip()[:-1] + b"," + place + b"}")
            ends[record.partition] = max(ends.get(record.partition, 0), record.offset + 1)
    path.write_bytes(b"\n".join(lines))
    return ends


def is_object(value: bytes) -> bool:
    try:
        return isinstance(orjson.loads(value), dict)
    except orjson.JSONDecodeError:
        return False


def load(application: Application, history: Path) -> None:
    config = application.folder / "tidegate.toml"
    config.write_text(application.config_text())
    ended = invoke("state", "load", history, "--config", config, "--timestamp-field", "written")
    assert ended.exit_code == 0, ended.err


def test_behind_loaded_history_everything_is_decided_as_if_the_worker_had_seen_it_all(
    make: Callable[..., Application],
) -> None:
    """The topic still has the whole history, and nothing of it may count twice."""
    application = make()
    values, keys, times_ms = crash_traffic()
    application.produce(values, keys, times_ms)
    finish(application)
    expected, _ = decided(application)

    behind = replace(make(folder="behind"), input=application.input, sent=application.sent)
    ends = export(behind, behind.folder / "history.jsonl", {0: EVENTS})
    load(behind, behind.folder / "history.jsonl")
    header = behind.header()
    assert (header.loaded, header.vector, header.topic) == (True, ends, application.input)
    finish(behind)
    found, again = decided(behind)
    assert again == 0
    assert found == {place: decision for place, decision in expected.items() if place[1] >= ends[0]}
    assert len(found) > 2_000
    header = behind.header()
    assert (header.loaded, header.vector) == (False, application.ends())


def test_every_partition_goes_on_behind_its_own_history(make: Callable[..., Application]) -> None:
    """One partition is in the history whole, one in part, and one not at all."""
    application = make(partitions=3)
    application.produce(*crash_traffic(events=3_000))
    finish(application)
    expected, _ = decided(application)
    behind = replace(make(3, "behind"), input=application.input, sent=application.sent)
    until = {0: application.ends()[0], 1: application.ends()[1] // 2, 2: 0}
    ends = export(behind, behind.folder / "history.jsonl", until)
    load(behind, behind.folder / "history.jsonl")
    finish(behind)
    found, again = decided(behind)
    assert again == 0
    assert found.keys() == {place for place in expected if place[1] >= ends.get(place[0], 0)}


def test_a_gap_between_history_and_topic_is_refused(make: Callable[..., Application]) -> None:
    application = make()
    application.produce(*crash_traffic(events=300))
    (end,) = export(application, application.folder / "history.jsonl", {0: 100}).values()
    admin = AdminClient({"bootstrap.servers": application.bootstrap})
    for answer in admin.delete_records([TopicPartition(application.input, 0, end + 1)]).values():
        answer.result()
    load(application, application.folder / "history.jsonl")
    code, line = run_to_end(application)
    assert code == FatalError.exit_code
    assert f"the history ends before offset {end}, but the topic begins at {end + 1}" in line
    assert application.committed() == {}
