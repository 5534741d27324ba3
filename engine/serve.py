"""One worker with everything around it: logs, admin endpoint, connections, the loop."""

import threading
from contextlib import ExitStack

from engine.assemble import assemble
from engine.config import Config
from engine.kafka.client import admin_settings
from engine.kafka.consume import Input
from engine.kafka.deliver import Delivery, delivery_of
from engine.kafka.journal import Journal
from engine.kafka.lease import Lease
from engine.kafka.topics import cluster_identity
from engine.observe.logs import set_up_logs
from engine.observe.server import AdminServer
from engine.pipeline import Pipeline
from engine.worker import Worker


def connected(
    config: Config,
    pipeline: Pipeline,
    stop: threading.Event,
    resources_open: ExitStack,
    *,
    accept_cold_state: bool = False,
) -> Worker:
    """A worker with its clients; raises as `Input`."""
    source = resources_open.enter_context(Input(config))
    journal = resources_open.enter_context(Journal(config))
    lease = resources_open.enter_context(Lease(config))
    delivery: Delivery = resources_open.enter_context(delivery_of(config, lease))
    return Worker(config, pipeline, source, journal, lease, delivery, stop, accept_cold_state=accept_cold_state)


def serve(config: Config, stop: threading.Event, *, accept_cold_state: bool = False) -> None:
    """Scores until `stop` is set; raises a TidegateError when it cannot go on."""
    set_up_logs(config.observe)
    with ExitStack() as resources_open:
        # A broker that is away is noticed before anything that takes time.
        cluster_identity(admin_settings(config), config.kafka.input)
        pipeline = assemble(config, resources_open, with_features=config.kafka.decision_features)
        worker = connected(config, pipeline, stop, resources_open, accept_cold_state=accept_cold_state)
        metrics = pipeline.metrics

        def alive() -> tuple[bool, dict[str, object]]:
            return True, {"role": metrics.role}

        def ready() -> tuple[bool, dict[str, object]]:
            return worker.ready, {"role": metrics.role, "replay_remaining_events": metrics.replay_remaining}

        resources_open.enter_context(AdminServer(config.observe.address, metrics, alive, ready))
        worker.run()
