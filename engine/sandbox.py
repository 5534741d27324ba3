"""A worker with everything of its own: process, topics, state. What a user has on the same Kafka stays as it is."""

import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from engine.config import Config, default_profile, parse_config
from engine.kafka.client import admin_settings
from engine.kafka.embedded import PARTITIONS, RETAINED_BYTES, EmbeddedBroker
from engine.kafka.topics import apply, delete
from engine.process import WorkerProcess
from engine.topology import wanted_topics

# The embedded broker answers a fetch that finds nothing only after the whole wait, whatever arrives meanwhile.
EMBEDDED_FETCH_WAIT_MS = 3
# It finds an offset by going through all message sets of the partition: few large ones keep it quick.
EMBEDDED_EVENTS_PER_SEND = 25
EMBEDDED_LINGER_MS_MAX = 25.0
LINGER_MS = 2.0
# It drops the oldest records, read or not: three quarters of what it keeps of decisions, at 1 KiB each.
EMBEDDED_BACKLOG_EVENTS_MAX = PARTITIONS * RETAINED_BYTES // 1024 * 3 // 4

# Settings of Kafka that are the user's, and not of this one run.
HEEDED = (
    "TIDEGATE__KAFKA__CLIENT__",
    "TIDEGATE__KAFKA__DELIVERY",
    "TIDEGATE__KAFKA__COMMIT_INTERVAL_MS",
    "TIDEGATE__KAFKA__PARTITIONS",
)


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A worker that is starting, and the configuration it runs under."""

    config: Config
    worker: WorkerProcess
    embedded: bool

    def linger_ms(self, events_per_second: float) -> float:
        """How long a producer of events should wait for more of them."""
        if not self.embedded:
            return LINGER_MS
        return min(max(LINGER_MS, 1_000 * EMBEDDED_EVENTS_PER_SEND / events_per_second), EMBEDDED_LINGER_MS_MAX)

    @property
    def backlog_events_max(self) -> int | None:
        """With more events than this waiting for their decision some may be lost; None where none are."""
        return EMBEDDED_BACKLOG_EVENTS_MAX if self.embedded else None


@contextmanager
def sandbox(bootstrap: str | None) -> Iterator[Sandbox]:
    """Starts a worker on that Kafka, or on an embedded broker; takes everything away again afterwards.

    The configuration is the default profile. Of the environment it heeds all but `TIDEGATE__KAFKA__*`, and of these
    the `HEEDED` ones where a Kafka is named. Raises as `topics.apply` does.
    """
    with ExitStack() as resources_open:
        folder = Path(resources_open.enter_context(tempfile.TemporaryDirectory(prefix="tidegate-")))
        if bootstrap is None:
            broker = resources_open.enter_context(EmbeddedBroker())
            environment = _environment(broker.bootstrap, folder, ())
            # It has no transactions to speak of.
            environment["TIDEGATE__KAFKA__DELIVERY"] = "at_least_once"
            environment["TIDEGATE__KAFKA__CLIENT__FETCH_WAIT_MAX_MS"] = str(EMBEDDED_FETCH_WAIT_MS)
        else:
            environment = _environment(bootstrap, folder, HEEDED)
        config = parse_config(default_profile(), folder, environment, "default profile")
        topics = wanted_topics(config)
        names = [topic.name for topic in topics]
        if bootstrap is None:
            broker.create_topics(names)
        else:
            apply(admin_settings(config), topics)
            resources_open.callback(delete, admin_settings(config), names)
        worker = WorkerProcess(default_profile(), folder, config.kafka.bootstrap, environment)
        yield Sandbox(config, resources_open.enter_context(worker), bootstrap is None)


def _environment(bootstrap: str, folder: Path, kept: tuple[str, ...]) -> dict[str, str]:
    """The environment with our own Kafka settings and state; of the user's Kafka settings only the `kept` ones."""
    run = uuid.uuid4().hex[:8]
    theirs: Mapping[str, str] = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("TIDEGATE__KAFKA__") or name.startswith(kept)
    }
    return {
        **theirs,
        "TIDEGATE__KAFKA__BOOTSTRAP": bootstrap,
        "TIDEGATE__KAFKA__APPLICATION_ID": f"tidegate-{run}",
        "TIDEGATE__KAFKA__PARTITIONS": str(PARTITIONS),
        "TIDEGATE__KAFKA__INPUT": f"tidegate-{run}-transactions",
        "TIDEGATE__KAFKA__TOPICS__DECISIONS": f"tidegate-{run}-decisions",
        "TIDEGATE__KAFKA__TOPICS__ALERTS": f"tidegate-{run}-alerts",
        "TIDEGATE__KAFKA__TOPICS__DEAD_LETTERS": f"tidegate-{run}-dead-letters",
        "TIDEGATE__KAFKA__TOPICS__PROGRESS": f"tidegate-{run}-progress",
        "TIDEGATE__KAFKA__TOPICS__LEASE": f"tidegate-{run}-lease",
        "TIDEGATE__KAFKA__TOPICS__CONTROL": f"tidegate-{run}-control",
        "TIDEGATE__KAFKA__TOPICS__SHADOW_DECISIONS": f"tidegate-{run}-shadow-decisions",
        "TIDEGATE__KAFKA__TOPICS__DECISIONS_SAMPLE": f"tidegate-{run}-decisions-sample",
        "TIDEGATE__KAFKA__TOPICS__TELEMETRY": f"tidegate-{run}-telemetry",
        "TIDEGATE__STATE__DIR": str(folder / "state"),
    }
