"""The engine as a process against a real broker: what goes in comes out, whoever reads it and however it ends."""

import itertools
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from engine.errors import ConfigError, FatalError
from engine.events import Records
from engine.process import WorkerProcess
from engine.replay import ReplayFiles, replay
from engine.state.peek import read_header
from loadtest.columns import Traffic
from loadtest.poison import KINDS, spoil
from loadtest.render import render, render_valid
from loadtest.settings import TrafficSettings
from loadtest.traffic import generate
from tests.broker.application import GIVE_UP_S, Application, new_application
from tests.conftest import TopicFactory

pytestmark = pytest.mark.broker

EVENTS = 100_000
POISON_EVENTS = EVENTS // 100
CRASH_EVENTS = 9_000


@pytest.fixture
def make(kafka_bootstrap: str, tmp_path: Path, topic_factory: TopicFactory) -> Callable[..., Application]:
    """Makes an application of so many partitions."""

    def new(partitions: int = 1, folder: str = "app") -> Application:
        home = tmp_path / folder
        home.mkdir()
        return new_application(kafka_bootstrap, home, topic_factory, partitions)

    return new


def card_keys(traffic: Traffic) -> list[bytes | None]:
    return [b"%d" % number for number in traffic.card_numbers.tolist()]


def sigterm(worker: WorkerProcess) -> None:
    """Lets the worker drain; it must end well, and not merely end."""
    worker.stop()
    assert worker._process.returncode == 0


def parsed(messages: list[Any]) -> list[dict[str, Any]]:
    return [orjson.loads(message.value()) for message in messages]


def place_of(decision: dict[str, Any]) -> tuple[int, int]:
    return decision["source"]["partition"], decision["source"]["offset"]


# --- everything is accounted for -------------------------------------------------------------------------------


def test_of_100000_events_the_poisoned_ones_are_dead_letters_and_all_others_are_decided(
    make: Callable[..., Application],
) -> None:
    application = make(partitions=3)
    traffic = generate(TrafficSettings(seed=11, cards=20_000), EVENTS)
    values: list[bytes | None] = list(render_valid(traffic))
    rng = np.random.default_rng(11)
    poisoned: dict[int, str] = {}
    for at, row in enumerate(rng.choice(EVENTS, POISON_EVENTS, replace=False).tolist()):
        values[row], poisoned[row] = spoil(at % len(KINDS), rng, values[row] or b"")
    application.produce(values, card_keys(traffic), traffic.send_times_ms)
    sent = {(record.partition, record.offset): record for record in application.sent}
    reasons = {(application.sent[row].partition, application.sent[row].offset): why for row, why in poisoned.items()}

    with application.worker() as worker:
        with closing(application.reader(application.decisions)) as reader:
            reader.read_until(EVENTS - POISON_EVENTS, worker)
        with closing(application.reader(application.dead_letters)) as reader:
            reader.read_until(POISON_EVENTS, worker)
        application.wait_committed(worker)
        samples = worker.samples()
        sigterm(worker)

    messages = application.read_all(application.decisions)
    decisions = parsed(messages)
    assert len(decisions) == EVENTS - POISON_EVENTS
    assert {place_of(decision) for decision in decisions} == sent.keys() - reasons.keys()
    for message, decision in zip(messages, decisions, strict=True):
        record = sent[place_of(decision)]
        assert (message.key(), message.partition()) == (record.key, record.partition)
    originals = [orjson.loads(sent[place_of(decision)].value or b"")["event_id"] for decision in decisions]
    assert [decision["event_id"] for decision in decisions] == originals

    letters = application.read_all(application.dead_letters)
    found = {}
    for letter in letters:
        headers = {name: value.decode() for name, value in letter.headers()}
        assert headers["tidegate.topic"] == application.input
        place = int(headers["tidegate.partition"]), int(headers["tidegate.offset"])
        assert (letter.value() or None) == (sent[place].value or None)
        assert headers["tidegate.error"]
        found[place] = headers["tidegate.reason"]
    assert len(letters) == POISON_EVENTS
    assert found == reasons
    assert len(set(reasons.values())) >= 10

    alerts = parsed(application.read_all(application.alerts))
    flagged = Counter(d["decision_id"] for d in decisions if d["decision"] != "approve")
    assert Counter(alert["decision_id"] for alert in alerts) == flagged
    assert len(alerts) > 100

    assert samples['tidegate_events_total{outcome="decided"}'] == len(decisions)
    assert samples['tidegate_events_total{outcome="dead_letter"}'] == POISON_EVENTS
    assert samples['tidegate_events_total{outcome="duplicate"}'] == 0
    for reason, count in Counter(reasons.values()).items():
        assert samples[f'tidegate_dead_letters_total{{reason="{reason}"}}'] == count
    assert samples["tidegate_event_to_decision_seconds_count"] == len(decisions)
    kinds = Counter(decision["decision"] for decision in decisions)
    for kind, count in kinds.items():
        assert samples[f'tidegate_decisions_total{{decision="{kind}",model_version="demo/1"}}'] == count

    log = worker.log_file.read_bytes()
    assert b"Traceback" not in log
    assert [number for number in set(traffic.card_numbers.tolist()) if b"%d" % number in log] == []
    assert application.header().vector == application.ends()


def test_values_as_large_as_the_broker_takes_become_dead_letters(make: Callable[..., Application]) -> None:
    """A producer that is not ours may send more than ours would by default."""
    application = make()
    now_ms = 1_735_689_600_000
    values: list[bytes | None] = [b"x" * 1_000_000, b"y" * 1_048_000, b"z" * 3_000_000, b"", None]
    values.append(render_valid(generate(TrafficSettings(cards=10, merchants=3), 1))[0])
    application.produce(values, [b"k"] * 6, [now_ms] * 6, **{"message.max.bytes": 4_000_000})
    with application.worker() as worker:
        with closing(application.reader(application.decisions)) as reader:
            reader.read_until(1, worker)
        with closing(application.reader(application.dead_letters)) as reader:
            reader.read_until(5, worker)
            letters = reader.messages
        sigterm(worker)
    found = {int(dict(letter.headers())["tidegate.offset"]): letter for letter in letters}
    assert [dict(found[offset].headers())["tidegate.reason"] for offset in range(5)] == [
        b"oversize", b"oversize", b"oversize", b"empty_value", b"empty_value",
    ]  # fmt: skip
    assert [found[offset].value() or None for offset in range(5)] == [value or None for value in values[:5]]


def test_more_dead_letters_than_memory_is_meant_for_them_are_all_delivered(make: Callable[..., Application]) -> None:
    """Large values, one after another, fill the producer's queue by their bytes long before they do by their number."""
    application = make()
    count, size = 120, 900_000
    application.produce([b"x" * size] * count, [b"k"] * count, [1_735_689_600_000] * count)
    with application.worker(
        kafka__delivery="at_least_once",
        **{"kafka__commit_interval_ms": 60_000, "kafka.client__queue.buffering.max.kbytes": 32_768},
    ) as worker:
        with closing(application.reader(application.dead_letters)) as reader:
            reader.read_until(count, worker)
        sigterm(worker)
    assert application.committed() == {0: count}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # its own, about how it loads its schemas
def test_a_client_of_another_make_produces_events_and_reads_decisions(make: Callable[..., Application]) -> None:
    import kafka

    application = make(partitions=2)
    traffic = generate(TrafficSettings(seed=3, cards=200, merchants=10), 500)
    producer = kafka.KafkaProducer(bootstrap_servers=application.bootstrap)
    sent = [
        producer.send(application.input, value, key, timestamp_ms=time_ms)
        for value, key, time_ms in zip(
            render_valid(traffic), card_keys(traffic), traffic.send_times_ms.tolist(), strict=True
        )
    ]
    places = {(future.get(GIVE_UP_S).partition, future.get().offset) for future in sent}
    producer.close()
    with application.worker() as worker:
        consumer = kafka.KafkaConsumer(
            application.decisions,
            bootstrap_servers=application.bootstrap,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            consumer_timeout_ms=int(GIVE_UP_S * 1_000),
        )
        messages = list(itertools.islice(consumer, 500))
        consumer.close()
        sigterm(worker)
    decisions = [orjson.loads(message.value) for message in messages]
    assert {place_of(decision) for decision in decisions} == places
    assert {decision["schema"] for decision in decisions} == {"tidegate.decision.v1"}
    assert [message.partition for message in messages] == [decision["source"]["partition"] for decision in decisions]
    assert {message.key for message in messages} == set(card_keys(traffic))


# --- kill -9 ---------------------------------------------------------------------------------------------------


def crash_traffic(
    seed: int = 5, events: int = CRASH_EVENTS, **further: Any
) -> tuple[list[bytes | None], list[bytes | None], list[int]]:
    """Values, keys and timestamps: some late, some twice, some poison; cards that come again and again."""
    settings = TrafficSettings(
        seed=seed, cards=400, merchants=40, card_testing_share=0.02, late_share=0.02, poison_share=0.01, **further
    )
    traffic = generate(settings, events)
    values: list[bytes | None] = list(render(traffic))
    for row in range(50, events, 97):
        values[row] = values[row - 37]  # what was sent before is sent again
    return values, card_keys(traffic), traffic.send_times_ms.tolist()


def uninterrupted(application: Application) -> dict[tuple[int, int], bytes]:
    """Decisions of a replay of everything that was sent, without a broker, by source coordinates."""
    rows = sorted(application.sent, key=lambda record: (record.partition, record.offset))
    assert {record.partition for record in rows} == {0}
    records = Records(
        application.input,
        [record.value for record in rows],
        np.zeros(len(rows), np.int64),
        np.array([record.offset for record in rows], np.int64),
        np.array([record.timestamp_ms for record in rows], np.int64),
    )
    out = application.folder / "replayed.jsonl"
    replay(iter([records]), application.config(), ReplayFiles(out), with_features=True)
    return {place_of(orjson.loads(line)): timeless(line) for line in out.read_bytes().splitlines()}


def timeless(decision: bytes) -> bytes:
    """A decision without the time at which it was made."""
    fields = orjson.loads(decision)
    del fields["decided_at"]
    return orjson.dumps(fields)


def decided(application: Application) -> tuple[dict[tuple[int, int], bytes], int]:
    """What was decided, by source coordinates, and how many decisions were made again; those must be alike."""
    found: dict[tuple[int, int], bytes] = {}
    messages = application.read_all(application.decisions)
    for message in messages:
        decision = timeless(message.value())
        assert found.setdefault(place_of(orjson.loads(decision)), decision) == decision
    return found, len(messages) - len(found)


def kill_after(application: Application, decisions: int, **settings: Any) -> None:
    """Runs a worker until so many decisions, of all workers so far, are there, and kills it."""
    with application.worker(**settings) as worker, closing(application.reader(application.decisions)) as reader:
        reader.read_until(decisions, worker)
        worker.kill()


def finish(application: Application, **settings: Any) -> dict[str, float]:
    """Runs a worker until everything is committed, and lets it drain."""
    with application.worker(**settings) as worker:
        application.wait_committed(worker)
        samples = worker.samples()
        sigterm(worker)
    return samples


def test_killed_before_anything_was_committed_it_decides_everything_again_and_alike(
    make: Callable[..., Application],
) -> None:
    application = make()
    application.produce(*crash_traffic())
    expected = uninterrupted(application)
    never: dict[str, Any] = {"kafka__delivery": "at_least_once", "kafka__commit_interval_ms": 600_000}
    kill_after(application, 2_000, kafka__batch_events_max=500, **never)
    assert application.committed() == {0: 0}
    finish(application)
    found, again = decided(application)
    assert found == expected
    assert again >= 2_000


def test_killed_at_several_points_while_state_is_being_flushed(make: Callable[..., Application]) -> None:
    application = make()
    application.produce(*crash_traffic())
    expected = uninterrupted(application)
    often: dict[str, Any] = {
        "kafka__commit_interval_ms": 10, "state__flush_interval_s": 0.02, "kafka__batch_events_max": 64,
    }  # fmt: skip
    for decisions in (1, 1_500, 3_000, 6_000):
        kill_after(application, decisions, **often)
        header, committed = read_header(application.folder / "state"), application.committed()
        # The first time, nothing may be on disk yet.
        stored = header.vector[0] if header is not None else 0
        assert stored <= committed[0]
    assert stored > 0
    finish(application)
    assert decided(application) == (expected, 0)


def test_what_was_committed_after_the_last_flush_is_replayed_into_the_state(make: Callable[..., Application]) -> None:
    """Three thirds: drained, so that L = C; killed after its commit, so that L < C; and one to show for it."""
    application = make()
    values, keys, times_ms = crash_traffic()
    third = CRASH_EVENTS // 3
    parts = [slice(at, at + third) for at in range(0, CRASH_EVENTS, third)]
    seldom = {"state__flush_interval_s": 3_600.0}

    application.produce(values[parts[0]], keys[parts[0]], times_ms[parts[0]])
    finish(application, **seldom)
    assert application.header().vector == {0: third}

    application.produce(values[parts[1]], keys[parts[1]], times_ms[parts[1]])
    with application.worker(**seldom) as worker:
        application.wait_committed(worker)
        worker.kill()
    assert application.header().vector == {0: third}
    assert application.committed() == {0: 2 * third}

    application.produce(values[parts[2]], keys[parts[2]], times_ms[parts[2]])
    samples = finish(application, **seldom)
    assert samples["tidegate_replayed_events_total"] == third
    assert application.header().vector == {0: 3 * third}
    found, again = decided(application)
    assert found == uninterrupted(application)
    assert again == 0


# --- SIGTERM ---------------------------------------------------------------------------------------------------


def test_sigterm_drains_so_that_nothing_is_decided_twice(make: Callable[..., Application]) -> None:
    application = make()
    application.produce(*crash_traffic())
    for decisions in (500, 3_000):
        with application.worker(kafka__batch_events_max=64) as worker:
            with closing(application.reader(application.decisions)) as reader:
                reader.read_until(decisions, worker)
            sigterm(worker)
        committed = application.committed()
        assert application.header().vector == committed
        assert {offset for _, offset in decided(application)[0]} <= set(range(committed[0]))
    finish(application)
    found, again = decided(application)
    assert again == 0
    assert found == uninterrupted(application)


def test_ctrl_c_drains_too(make: Callable[..., Application]) -> None:
    application = make()
    with application.worker() as worker:
        os.kill(worker.pid, signal.SIGINT)
        assert worker._process.wait(GIVE_UP_S) == 0
    assert application.committed() == {0: 0}


# --- what it refuses -------------------------------------------------------------------------------------------


def run_to_end(application: Application, *arguments: str, **settings: Any) -> tuple[int, str]:
    """Exit code and the line on standard error of a worker that is expected to refuse."""
    config = application.folder / "tidegate.toml"
    config.write_text(application.config_text(observe__listen="127.0.0.1:0", **settings))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE")}
    command = [sys.executable, "-m", "engine", "run", "--config", str(config), "--bootstrap", application.bootstrap]
    ended = subprocess.run(
        [*command, *arguments], env=environment, capture_output=True, text=True, timeout=GIVE_UP_S, check=False
    )
    assert ended.stdout == ""
    *told, line = ended.stderr.splitlines()
    assert line.startswith("tidegate: ")
    assert not [text for text in told if "Traceback" in text]
    return ended.returncode, line


def test_a_missing_topic_is_named(make: Callable[..., Application]) -> None:
    application = replace(make(), input="test-not-there")
    code, line = run_to_end(application)
    assert code == ConfigError.exit_code
    assert "'test-not-there'" in line


def test_a_missing_model_is_named(make: Callable[..., Application]) -> None:
    code, line = run_to_end(make(), models__champion="none@champion")
    assert code == ConfigError.exit_code
    assert "models.champion 'none@champion'" in line


def _drained(application: Application) -> Application:
    """The same, after a worker decided a hundred events."""
    values, keys, times_ms = crash_traffic(events=100)
    application.produce(values, keys, times_ms)
    finish(application)
    return application


def test_the_state_of_another_topic_is_refused(make: Callable[..., Application]) -> None:
    application, other = _drained(make()), make(folder="other")
    code, line = run_to_end(replace(other, folder=application.folder))
    assert code == FatalError.exit_code
    assert f"the state was built from topic '{application.input}'" in line
    assert "name another state.dir" in line


def test_state_ahead_of_the_committed_offsets_is_refused(make: Callable[..., Application]) -> None:
    application = _drained(make())
    application.commit({0: 99})
    code, line = run_to_end(application)
    assert code == FatalError.exit_code
    assert "the state stands at offset 100, ahead of the committed 99" in line
    assert application.header().vector == {0: 100}


def test_state_of_another_application_is_refused(make: Callable[..., Application]) -> None:
    application = _drained(make())
    code, line = run_to_end(replace(application, application_id=f"{application.application_id}-2"))
    assert code == FatalError.exit_code
    assert "no offset is committed" in line


def test_state_under_other_rules_is_refused(make: Callable[..., Application]) -> None:
    code, line = run_to_end(_drained(make()), state__ring_events_max=64)
    assert code == FatalError.exit_code
    assert "was made under other rules" in line


def test_state_that_another_worker_holds_is_refused(make: Callable[..., Application]) -> None:
    application = make()
    with application.worker() as worker:
        code, line = run_to_end(application)
        worker.check()
        sigterm(worker)
    assert code == FatalError.exit_code
    assert "cannot be opened" in line


@pytest.fixture
def shortened(make: Callable[..., Application]) -> Application:
    """Hundred events are decided and the state is lost; the topic has only the last forty."""
    application = _drained(make())
    for path in sorted((application.folder / "state").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    admin = AdminClient({"bootstrap.servers": application.bootstrap})
    for answer in admin.delete_records([TopicPartition(application.input, 0, 60)]).values():
        answer.result()
    return application


def test_history_that_is_gone_from_the_topic_has_to_be_accepted(shortened: Application) -> None:
    code, line = run_to_end(shortened)
    assert code == FatalError.exit_code
    assert "the topic begins at 60" in line
    assert "--accept-cold-state" in line


def test_records_that_were_never_read_and_are_gone_end_the_worker(make: Callable[..., Application]) -> None:
    """It must not go on behind a gap as if nothing had been there."""
    application = _drained(make())
    values, keys, times_ms = crash_traffic(events=100)
    application.produce(values, keys, times_ms)
    admin = AdminClient({"bootstrap.servers": application.bootstrap})
    for answer in admin.delete_records([TopicPartition(application.input, 0, 150)]).values():
        answer.result()
    config = application.folder / "tidegate.toml"
    config.write_text(application.config_text(observe__listen="127.0.0.1:0"))
    ended = subprocess.run(
        [sys.executable, "-m", "engine", "run", "--config", str(config), "--bootstrap", application.bootstrap],
        capture_output=True, text=True, timeout=GIVE_UP_S, check=False,
    )  # fmt: skip
    assert ended.returncode == FatalError.exit_code
    assert "no longer in the topic" in ended.stderr.splitlines()[-1]
    assert application.committed() == {0: 100}
