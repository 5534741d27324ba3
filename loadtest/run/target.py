"""The engine under test: a worker and topics of the run's own, or one that runs elsewhere already."""

import http.client
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from loadtest.chaos.application import Application
from loadtest.chaos.broker import SCRIPT, running_kafka
from loadtest.chaos.worker import LISTEN, Worker, create_topics
from loadtest.errors import LoadTestError
from loadtest.run.profile import LoadProfile

READY_POLL_S = 0.1
# The first start on a machine compiles the kernels.
READY_TIMEOUT_S = 300.0
ANSWER_TIMEOUT_S = 10.0
METRICS_TIMEOUT_S = 1.0
NOTE = SCRIPT.parents[1] / ".kafka" / "bootstrap"

Samples = dict[str, float]
_open = build_opener(ProxyHandler({})).open  # a proxy does not know this machine's addresses


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where events go, where what they become comes from, and where the worker's metrics are, if anywhere."""

    bootstrap: str
    input: str
    decisions: str
    alerts: str
    dead_letters: str
    metrics: str | None
    worker: Worker | None = None

    def samples(self) -> Samples | None:
        """The worker's metrics by name and labels; None where it does not answer at once, or has none to ask."""
        if self.metrics is None:
            return None
        try:
            with _open(self.metrics, timeout=METRICS_TIMEOUT_S) as answer:
                text = answer.read().decode()
        except (URLError, OSError, http.client.HTTPException):
            return None
        lines = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in lines}

    def check(self) -> None:
        """LoadTestError where the worker is the run's own, and has ended."""
        if self.worker is not None and not self.worker.running:
            raise LoadTestError(f"the worker ended with exit code {self.worker.exit_code}\n{self.worker.last_words()}")


@contextmanager
def own_target(profile: LoadProfile, bootstrap: str | None, folder: Path) -> Iterator[Endpoint]:
    """Starts a worker with topics of its own, on a Kafka that is named, was noted, or is started for it.

    Yields once the worker decides. Takes away what it made. Raises LoadTestError.
    """
    with ExitStack() as running:
        address = bootstrap or noted_bootstrap()
        if address is None:
            _, address = running.enter_context(running_kafka(folder, 1))
        application = Application(address, f"load-{uuid.uuid4().hex[:8]}", profile.partitions, profile.delivery)
        worker = Worker(folder / "worker", address)
        observe = {"listen": LISTEN, "log_format": "json"}
        worker.config_file.write_text(application.config_text(profile.engine, observe=observe), "utf-8")
        create_topics(worker)
        running.callback(_delete_topics, application)
        running.callback(worker.kill)
        worker.start()
        _wait_active(worker)
        yield Endpoint(
            address, application.input, application.decisions, application.alerts, application.dead_letters,
            f"http://127.0.0.1:{worker.port}/metrics", worker,
        )  # fmt: skip
        worker.stop()


def noted_bootstrap() -> str | None:
    """What `scripts/kafka start` noted, if a broker answers there."""
    if not NOTE.is_file():
        return None
    address = NOTE.read_text("utf-8").strip()
    try:
        AdminClient({"bootstrap.servers": address, "log_level": 0}).list_topics(timeout=ANSWER_TIMEOUT_S)
    except KafkaException:
        return None
    return address


def _wait_active(worker: Worker) -> None:
    give_up_at, never = time.monotonic() + READY_TIMEOUT_S, threading.Event()
    while worker.health() != ("active", True):
        if not worker.running:
            raise LoadTestError(f"the worker ended with exit code {worker.exit_code}\n{worker.last_words()}")
        if time.monotonic() > give_up_at:
            raise LoadTestError(f"the worker was not ready after {READY_TIMEOUT_S:g} s\n{worker.last_words()}")
        never.wait(READY_POLL_S)  # nothing tells when it is


def _delete_topics(application: Application) -> None:
    admin = AdminClient({"bootstrap.servers": application.bootstrap, "log_level": 0})
    there = [topic for topic in admin.list_topics(timeout=ANSWER_TIMEOUT_S).topics if topic.startswith(application.id)]
    for deletion in (admin.delete_topics(there) if there else {}).values():
        deletion.result()


def client_of(endpoint: Endpoint, profile: LoadProfile) -> Mapping[str, Any]:
    """librdkafka settings of whoever reads the decisions."""
    return {"bootstrap.servers": endpoint.bootstrap, "isolation.level": profile.isolation, "fetch.wait.max.ms": 20}
