"""A worker that dies at any named point, the first or the second time that it gets there: the outcome is the same.

Each case is an application of its own. They run side by side, since each waits most of the time for a session to end.

of those that own the input    dying: active ------X
                               standby:    follows ......... active ---> end
on the way there               first:  active ----> stop                        (`followed`: stops after the death)
                               dying:     follows ...... X   successor: active ---> end, with the state of the dead one
"""

import os
import subprocess
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from engine.crashpoints import EXIT_CODE, POINTS, TAKE_OVER, VARIABLE
from engine.kafka.client import transaction_settings
from engine.process import WorkerProcess
from tests.broker.application import GIVE_UP_S, Application, new_application
from tests.broker.outcome import judged
from tests.broker.test_worker import crash_traffic
from tests.conftest import TopicFactory, own_topics

pytestmark = [pytest.mark.broker, pytest.mark.slow]

EVENTS = 6_000
PARTITIONS = 3
HITS = (1, 2)
CASES = [(point, hit) for point in POINTS for hit in HITS]
AT_ONCE = 6
# Events that one which has not died yet is fed at a time, and how long it is watched before the next.
PIECE, PIECE_S = 100, 0.5
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
    """What is otherwise than without the death; small, since all are kept to the end."""

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
    assert found.decisions > EVENTS // 2
    assert found.problems == []


def _run(bootstrap: str, folder: Path, topics: TopicFactory, point: str, hit: int) -> Outcome:
    application = new_application(bootstrap, folder, topics, PARTITIONS)
    (folder / "other").mkdir()
    other = replace(application, folder=folder / "other")
    scene = _dies_on_the_way if point in TAKE_OVER else _dies_as_owner
    last = scene(application, other, point, hit)
    return Outcome(*judged(application, last.header().vector))


def _dies_as_owner(application: Application, other: Application, point: str, hit: int) -> Application:
    """Whose state is the last one."""
    with _dying(application, point, hit) as dying:
        dying.wait_active(threading.Event())
        # The standby is there before anything can happen.
        with other.worker(active=False, **OFTEN) as standby:
            _feed_until_dead(application, dying, *crash_traffic(hit, EVENTS))
            dying.wait_dead(GIVE_UP_S)
            application.wait_committed(standby)
            standby.stop()
    return other


def _feed_until_dead(application: Application, dying: "_Dying", *columns: Sequence[Any]) -> None:
    """Half at once, the rest little by little: where nothing comes in, nothing gets old and is deleted either."""
    half = EVENTS // 2
    application.produce(*(column[:half] for column in columns))
    for start in range(half, EVENTS, PIECE):
        if dying.ends_within(PIECE_S):
            application.produce(*(column[start:] for column in columns))
            return
        application.produce(*(column[start : start + PIECE] for column in columns))


def _dies_on_the_way(application: Application, other: Application, point: str, hit: int) -> Application:
    """The same of a standby. The second time, it takes over because it was fenced while it decided."""
    before, meanwhile, after = _thirds(hit)
    with other.worker(**OFTEN) as first, _dying(application, point, hit) as dying:
        dying.wait_ready(threading.Event())
        application.produce(*before)
        if point != "followed":
            application.wait_committed(first)
            first.stop()
            if hit > 1:
                dying.wait_active(threading.Event())
                _fence(application)
        application.produce(*meanwhile)
        dying.wait_dead(GIVE_UP_S)
        with application.worker(active=False, **OFTEN) as successor:
            first.stop()
            application.produce(*after)
            application.wait_committed(successor)
            successor.stop()
    return application


def _thirds(seed: int) -> list[tuple[list[bytes | None], list[bytes | None], list[int]]]:
    values, keys, times_ms = crash_traffic(seed, EVENTS)
    parts = [slice(start, start + EVENTS // 3) for start in range(0, EVENTS, EVENTS // 3)]
    return [(values[part], keys[part], times_ms[part]) for part in parts]


def _fence(application: Application) -> None:
    """Takes the transactional id away from the one that has the lease, which keeps it and has to begin anew."""
    with closing(Producer(transaction_settings(application.config()))) as producer:
        producer.init_transactions(GIVE_UP_S)


class _Dying(WorkerProcess):
    """Expected to end by itself, at the point."""

    def wait_dead(self, timeout_s: float) -> None:
        exit_code = self._process.wait(timeout_s)
        assert exit_code == EXIT_CODE, f"the point was not reached: exit code {exit_code}, {self._last_words()}"

    def ends_within(self, timeout_s: float) -> bool:
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

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
