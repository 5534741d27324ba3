"""How soon a worker that was killed is ready again, with a state of many entities and a log to replay."""

import os
import threading
import time
from dataclasses import dataclass

from engine.bench_cold import fill
from engine.process import WorkerProcess
from tests.broker.application import Application
from tests.broker.test_worker import crash_traffic

# No flush while it decides: all that was decided has to be replayed.
SETTINGS = {"state__flush_interval_s": 3_600.0}
READY_S_MAX = 300.0


@dataclass(frozen=True, slots=True)
class Restart:
    """`ready_s`: from the start of the process to the first 200 of /readyz."""

    entities: int
    replayed_events: int
    ready_s: float


def restart(application: Application, entities: int, events: int) -> Restart:
    """Makes a state, lets a worker decide beyond it, kills that, and starts it again. For one partition."""
    assert application.partitions == 1
    fill(application.config(**SETTINGS), entities)
    # As if the state came from decisions: without a committed offset it is refused.
    application.commit({0: 0})
    application.produce(*crash_traffic(events=events))
    with application.worker(**SETTINGS) as worker:
        application.wait_committed(worker)
        worker.kill()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE")}
    began = time.monotonic()
    with WorkerProcess(
        application.config_text(**SETTINGS), application.folder, application.bootstrap, environment
    ) as worker:
        worker.wait_ready(threading.Event(), READY_S_MAX)
        ready_s = time.monotonic() - began
        samples = worker.samples()
    return Restart(
        entities=int(sum(value for name, value in samples.items() if name.startswith("tidegate_state_entities{"))),
        replayed_events=int(samples["tidegate_replayed_events_total"]),
        ready_s=ready_s,
    )
