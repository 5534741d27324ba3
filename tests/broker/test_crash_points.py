"""A worker that dies at any named point, the first or the second time that it gets there: the outcome is the same.

Each case is an application of its own. They run side by side, since each waits most of the time for a session to end.

of those that own the input    dying: active ------X
                               standby:    follows ......... active ---> end
on the way there               first:  active ----> stop                        (`followed`: stops after the death)
                               dying:     follows ...... X   successor: active ---> end, with the state of the dead one
"""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import orjson
import pytest
from confluent_kafka import Message, Producer

from engine.crashpoints import EXIT_CODE, POINTS, TAKE_OVER, VARIABLE
from engine.events import Records
from engine.kafka.client import transaction_settings
from engine.process import WorkerProcess
from engine.progress import decode_progress
from engine.replay import ReplayFiles, replay
from tests.broker.application import GIVE_UP_S, Application, new_application, wait_active
from tests.broker.test_worker import crash_traffic, place_of, timeless
from tests.conftest import TopicFactory, own_topics

pytestmark = [pytest.mark.broker, pytest.mark.slow]

EVENTS = 6_000
PARTITIONS = 3
HITS = (1, 2)
CASES = [(point, hit) for point in POINTS for hit in HITS]
AT_ONCE = 6

Outputs = dict[tuple[int, int], bytes]
# Commits, flushes and checkpoints, all often enough for every point to be reached twice.
OFTEN = {
    "kafka__commit_interval_ms": 10,
    "kafka__batch_events_max": 64,
    "state__flush_interval_s": 0.05,
    "state.checkpoints__dir": "checkpoints",
    "state.checkpoints__interval_s": 0.01,
    "state.checkpoints__keep": 1,
}


@dataclass(frozen=True)
class Outcome:
    """How the first worker ended, and what is otherwise than without it; small, since all are kept to the end."""

    exit_code: int
    decisions: int
    problems: list[str]


@pytest.fixture(scope="module")
def outcomes(
    kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[tuple[str, int], Future[Outcome]]]:
    folders = {case: tmp_path_factory.mktemp(f"{case[0]}-{case[1]}") for case in CASES}
    with own_topics(kafka_bootstrap) as topics, ThreadPoolExecutor(AT_ONCE) as pool:
        yield {case: pool.submit(_run, kafka_bootstrap, folders[case], topics, *case) for case in CASES}


@pytest.mark.parametrize(("point", "hit"), CASES)
def test_dying_there_changes_nothing(outcomes: dict[tuple[str, int], Future[Outcome]], point: str, hit: int) -> None:
    found = outcomes[point, hit].result()
    assert found.exit_code == EXIT_CODE, "the point was not reached"
    assert found.decisions > EVENTS // 2
    assert found.problems == []


def _run(bootstrap: str, folder: Path, topics: TopicFactory, point: str, hit: int) -> Outcome:
    application = new_application(bootstrap, folder, topics, PARTITIONS)
    (folder / "other").mkdir()
    other = replace(application, folder=folder / "other")
    scene = _dies_on_the_way if point in TAKE_OVER else _dies_as_owner
    last, exit_code = scene(application, other, point, hit)
    return _judged(application, last, exit_code)


def _dies_as_owner(application: Application, other: Application, point: str, hit: int) -> tuple[Application, int]:
    """Whose state is the last one, and how the first worker ended."""
    with _dying(application, point, hit) as dying:
        dying.wait_ready(threading.Event())
        wait_active(dying)
        # The standby is there before anything can happen.
        with other.worker(active=False, **OFTEN) as standby:
            application.produce(*crash_traffic(hit, EVENTS))
            exit_code = dying.ended(GIVE_UP_S)
            application.wait_committed(standby)
            standby.stop()
    return other, exit_code


def _dies_on_the_way(application: Application, other: Application, point: str, hit: int) -> tuple[Application, int]:
    """The same of a standby. The second time, it takes over because it was fenced while it decided."""
    before, meanwhile, after = _thirds(hit)
    with other.worker(**OFTEN) as first, _dying(application, point, hit) as dying:
        dying.wait_ready(threading.Event())
        application.produce(*before)
        if point != "followed":
            application.wait_committed(first)
            first.stop()
            if hit > 1:
                wait_active(dying)
                _fence(application)
        application.produce(*meanwhile)
        exit_code = dying.ended(GIVE_UP_S)
        with application.worker(active=False, **OFTEN) as successor:
            first.stop()
            application.produce(*after)
            application.wait_committed(successor)
            successor.stop()
    return application, exit_code


def _thirds(seed: int) -> list[tuple[list[bytes | None], list[bytes | None], list[int]]]:
    values, keys, times_ms = crash_traffic(seed, EVENTS)
    parts = [slice(start, start + EVENTS // 3) for start in range(0, EVENTS, EVENTS // 3)]
    return [(values[part], keys[part], times_ms[part]) for part in parts]


def _fence(application: Application) -> None:
    """Takes the transactional id away from the one that has the lease, which keeps it and has to begin anew."""
    with closing(Producer(transaction_settings(application.config()))) as producer:
        producer.init_transactions(GIVE_UP_S)


def _judged(application: Application, last: Application, exit_code: int) -> Outcome:
    decisions, alerts = application.read_all(application.decisions), application.read_all(application.alerts)
    found, found_alerts = _by_place(decisions), _by_place(alerts)
    letters = [_source(message.headers()) for message in application.read_all(application.dead_letters)]
    expected, expected_alerts, expected_letters = _undisturbed(application)
    ends = application.ends()
    checks = {
        "an event was decided twice": len(found) == len(decisions),
        "decisions are missing": expected.keys() <= found.keys(),
        "there are further decisions": found.keys() <= expected.keys(),
        "decisions differ": all(found[place] == expected[place] for place in found.keys() & expected.keys()),
        "there is an alert twice": len(found_alerts) == len(alerts),
        "alerts differ": found_alerts == expected_alerts and len(alerts) > 0,
        "dead letters differ": sorted(letters) == sorted(expected_letters),
        "offsets differ": application.committed() == ends,
        "the state is not at the end": last.header().vector == ends,
    }
    return Outcome(exit_code, len(found), [problem for problem, well in checks.items() if not well])


class _Dying(WorkerProcess):
    """Expected to end by itself."""

    def ended(self, timeout_s: float) -> int:
        return self._process.wait(timeout_s)

    def __exit__(self, *_: object) -> None:
        self.kill()
        assert self._process.stdin is not None
        self._process.stdin.close()


def _dying(application: Application, point: str, hit: int) -> _Dying:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE")}
    return _Dying(
        application.config_text(**OFTEN),
        application.folder,
        application.bootstrap,
        environment | {VARIABLE: f"{point}:{hit}"},
    )


def _by_place(messages: list[Message]) -> Outputs:
    return {place_of(orjson.loads(message.value())): timeless(message.value()) for message in messages}


def _undisturbed(application: Application) -> tuple[Outputs, Outputs, list[tuple[int, int]]]:
    """What a replay without a broker puts out, in the order that `progress` says."""
    sent = {(record.partition, record.offset): record for record in application.sent}
    messages = application.read_all(application.progress)
    runs = [run for m in messages for run in decode_progress(m.value(), m.offset()).runs]
    places = [(p, offset) for p, start, to in runs for offset in range(start, to) if (p, offset) in sent]
    assert len(places) == len(sent) == len(set(places))
    records = Records(
        application.input,
        [sent[place].value for place in places],
        np.array([partition for partition, _ in places], np.int64),
        np.array([offset for _, offset in places], np.int64),
        np.array([sent[place].timestamp_ms for place in places], np.int64),
    )
    paths = [application.folder / f"{name}.jsonl" for name in ("decisions", "alerts", "dead")]
    replay(iter([records]), application.config(), ReplayFiles(*paths), with_features=True)
    decisions, alerts, letters = (path.read_bytes().splitlines() for path in paths)
    return (
        {place_of(orjson.loads(line)): timeless(line) for line in decisions},
        {place_of(orjson.loads(line)): timeless(line) for line in alerts},
        [place_of(orjson.loads(line)) for line in letters],
    )


def _source(headers: list[tuple[str, bytes]]) -> tuple[int, int]:
    found = dict(headers)
    return int(found["tidegate.partition"]), int(found["tidegate.offset"])
