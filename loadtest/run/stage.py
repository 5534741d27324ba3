"""What a run needs: a broker, a worker and topics of its own, or those that are there."""

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka.admin import AdminClient

from loadtest.chaos.application import Application
from loadtest.chaos.broker import running_kafka
from loadtest.chaos.worker import LISTEN, Worker, create_topics
from loadtest.errors import LoadTestError
from loadtest.run.profile import Delivery, Profile
from loadtest.topics import delete_topics

# The first start on a machine compiles the kernels.
READY_TIMEOUT_S = 300.0
READY_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Target:
    """Where to send and read. `metrics` is a URL, None where nobody said it; `worker` is None where it is not ours."""

    bootstrap: str
    input: str
    decisions: str
    alerts: str
    dead_letters: str
    delivery: str
    metrics: str | None
    worker: Worker | None

    def check(self) -> None:
        """LoadTestError where our own worker has ended."""
        if self.worker is not None and self.worker.exit_code is not None:
            raise LoadTestError(f"the worker ended with exit code {self.worker.exit_code}\n{self.worker.last_words()}")


@contextmanager
def own(profile: Profile, delivery: Delivery, bootstrap: str | None, folder: Path) -> Iterator[Target]:
    """A worker with topics of its own, on that Kafka or one of its own; takes all of it away again."""
    if bootstrap is None:
        with running_kafka(folder, 1) as (_, started), own(profile, delivery, started, folder) as target:
            yield target
        return
    application = Application(bootstrap, f"loadtest-{uuid.uuid4().hex[:8]}", profile.partitions, delivery)
    worker = Worker(folder / "worker", bootstrap)
    observe = {"listen": LISTEN, "log_format": "json"}
    text = application.config_text(profile.engine, observe=observe)
    worker.config_file.write_text(text, "utf-8")
    create_topics(worker)
    try:
        worker.start()
        yield Target(
            bootstrap,
            application.input,
            application.decisions,
            application.alerts,
            application.dead_letters,
            delivery,
            _until_ready(worker),
            worker,
        )
        worker.stop()
    finally:
        worker.kill()
        delete_topics(AdminClient({"bootstrap.servers": bootstrap}), f"{application.id}.")


def _until_ready(worker: Worker) -> str:
    """Waits until the worker decides; returns the URL of its metrics."""
    never, give_up_at = threading.Event(), time.monotonic() + READY_TIMEOUT_S
    while True:
        health = worker.health()
        if health.ready and health.role == "active":
            return worker.metrics_url
        if not worker.running or time.monotonic() > give_up_at:
            raise LoadTestError(f"the worker did not get ready\n{worker.last_words()}")
        never.wait(READY_POLL_S)
