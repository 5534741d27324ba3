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

import numpy as np
import orjson
import pytest

from engine.crashpoints import EXIT_CODE, POINTS, VARIABLE
from engine.events import Records
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
    decisions = application.read_all(application.decisions)
    found = {place_of(orjson.loads(m.value())): timeless(m.value()) for m in decisions}
    letters = [_source(message.headers()) for message in application.read_all(application.dead_letters)]
    expected, expected_letters = _undisturbed(application)
    ends = application.ends()
    checks = {
        "an event was decided twice": len(found) == len(decisions),
        "decisions are missing": expected.keys() <= found.keys(),
        "there are further decisions": found.keys() <= expected.keys(),
        "decisions differ": all(found[place] == expected[place] for place in found.keys() & expected.keys()),
        "dead letters differ": sorted(letters) == sorted(expected_letters),
        "offsets differ": application.committed() == ends,
        "the state is not at the end": second.header().vector == ends,
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


def _undisturbed(application: Application) -> tuple[dict[tuple[int, int], bytes], list[tuple[int, int]]]:
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
    out, dead = application.folder / "replayed.jsonl", application.folder / "dead.jsonl"
    replay(iter([records]), application.config(), ReplayFiles(out, dead_letters=dead), with_features=True)
    decisions = {place_of(orjson.loads(line)): timeless(line) for line in out.read_bytes().splitlines()}
    return decisions, [place_of(orjson.loads(line)) for line in dead.read_bytes().splitlines()]


def _source(headers: list[tuple[str, bytes]]) -> tuple[int, int]:
    found = dict(headers)
    return int(found["tidegate.partition"]), int(found["tidegate.offset"])
