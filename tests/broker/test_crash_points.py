"""A worker that dies at any named point, the first or the second time that it gets there: the outcome is the same.

Each case is an application of its own: two workers are started, the one that will die and, once it has the lease, a
standby that takes over when its session is over. They run side by side, since each waits for that most of the time.
"""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.crashpoints import EXIT_CODE, POINTS, VARIABLE
from engine.process import WorkerProcess
from tests.broker.application import GIVE_UP_S, Application, new_application, wait_active
from tests.broker.outcome import judged
from tests.broker.test_worker import crash_traffic
from tests.conftest import TopicFactory, own_topics

pytestmark = [pytest.mark.broker, pytest.mark.slow]

EVENTS = 6_000
PARTITIONS = 3
HITS = (1, 2)
CASES = [(point, hit) for point in POINTS for hit in HITS]
AT_ONCE = 6
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
    (folder / "second").mkdir()
    application = new_application(bootstrap, folder, topics, PARTITIONS)
    values, keys, times_ms = crash_traffic(hit, EVENTS)
    with _dying(application, point, hit) as dying:
        dying.wait_ready(threading.Event())
        wait_active(dying)
        # The standby is there before anything can happen.
        second = Application(**{**vars(application), "folder": folder / "second"})
        with second.worker(active=False, **OFTEN) as standby:
            application.produce(values, keys, times_ms)
            exit_code = dying.ended(GIVE_UP_S)
            application.wait_committed(standby)
            standby.stop()
    decisions, problems = judged(application, second.header().vector)
    return Outcome(exit_code, decisions, problems)


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
