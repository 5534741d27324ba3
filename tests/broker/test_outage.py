"""A broker that goes away under load and comes back: workers say so, wait for it, and lose and double nothing.

The broker is the test's own. It is stopped in good order: a single one that is killed loses what it has promised
(docs/delivery-findings.md); nodes of three are killed by `python -m loadtest chaos`.
"""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from engine.kafka.client import SESSION_MS
from engine.process import WorkerProcess
from loadtest.chaos.broker import OwnKafka, running_kafka
from tests.broker.application import Application, new_application, wait_for
from tests.broker.outcome import judged
from tests.broker.test_failover import under_way
from tests.broker.test_worker import crash_traffic
from tests.conftest import own_topics

pytestmark = [pytest.mark.broker, pytest.mark.slow]

EVENTS = 20_000
EVENTS_PER_S = 5_000
SESSION_S = SESSION_MS / 1000


@pytest.fixture(scope="module")
def cluster(kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnKafka]:
    """Asked for where there is a broker at all: then the jars are there too."""
    with running_kafka(tmp_path_factory.mktemp("broker"), 1) as (kafka, _):
        yield kafka


@pytest.fixture
def own_kafka(cluster: OwnKafka) -> tuple[OwnKafka, str]:
    """It runs, whatever became of the test before."""
    return cluster, cluster.start()


@pytest.mark.parametrize("delivery", ["exactly_once", "at_least_once"])
@pytest.mark.parametrize("longer_than_session", [False, True], ids=["short", "longer than the session"])
def test_an_outage_is_told_of_and_outlived(
    own_kafka: tuple[OwnKafka, str], tmp_path: Path, delivery: str, longer_than_session: bool
) -> None:
    kafka, bootstrap = own_kafka
    with own_topics(bootstrap) as topics:
        folders = [tmp_path / "first", tmp_path / "second"]
        for folder in folders:
            folder.mkdir()
        first = new_application(bootstrap, folders[0], topics, 3 if delivery == "exactly_once" else 1)
        second = replace(first, folder=folders[1])
        # Of now, since a broker that starts forgets producers by the time of their records.
        traffic = crash_traffic(events=EVENTS, start_time_ms=time.time_ns() // 1_000_000 - 3_600_000)
        with (
            first.worker(kafka__delivery=delivery) as active,
            second.worker(active=False, kafka__delivery=delivery) as standby,
            ThreadPoolExecutor(1) as pool,
        ):
            sent = pool.submit(first.produce_over_outage, *traffic, events_per_s=EVENTS_PER_S)
            under_way(first, active)
            gone_at = time.monotonic()
            kafka.stop()
            for worker in (active, standby):
                wait_for(worker, "the outage", lambda samples: samples["tidegate_broker_up"] == 0)
                assert not worker.ready()
            if longer_than_session:
                threading.Event().wait(max(0.0, gone_at + 2 * SESSION_S - time.monotonic()))
            assert kafka.start() == bootstrap
            sent.result()
            first.wait_committed(active)
            for worker in (active, standby):
                wait_for(worker, "the broker", lambda samples: samples["tidegate_broker_up"] == 1)
            vector = _end(first, second, active, standby)
        for folder in folders:
            log = (folder / "worker.log").read_text()
            assert "no Kafka broker answers" in log
            assert "a Kafka broker answers again" in log
            assert "Traceback" not in log
        first.note_sent()
        decided, problems = judged(first, vector, once=delivery == "exactly_once")
    assert problems == []
    assert decided > EVENTS * 3 / 4


def _end(first: Application, second: Application, active: WorkerProcess, standby: WorkerProcess) -> dict[int, int]:
    """Lets both end, and gives the place of the state of the one that decided last."""
    led = [worker.samples()['tidegate_worker_role{role="active"}'] == 1 for worker in (active, standby)]
    assert sum(led) == 1
    standby.stop()
    active.stop()
    return (first if led[0] else second).header().vector
