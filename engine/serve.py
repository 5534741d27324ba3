"""One worker with everything around it: logs, admin endpoint, connections, the loop."""

import threading
from contextlib import ExitStack

from engine.assemble import assemble
from engine.config import Config
from engine.kafka.consume import Input
from engine.kafka.deliver import AtLeastOnce
from engine.observe.logs import set_up_logs
from engine.observe.server import AdminServer
from engine.worker import Worker


def serve(config: Config, stop: threading.Event, *, accept_cold_state: bool = False) -> None:
    """Scores until `stop` is set; raises a TidegateError when it cannot go on."""
    set_up_logs(config.observe)
    with ExitStack() as resources_open:
        source = resources_open.enter_context(Input(config))
        pipeline = assemble(config, resources_open, with_features=config.kafka.decision_features)
        delivery = resources_open.enter_context(AtLeastOnce(config, source))
        worker = Worker(config, pipeline, source, delivery, stop, accept_cold_state)
        metrics = pipeline.metrics

        def alive() -> tuple[bool, dict[str, object]]:
            return True, {"role": metrics.role}

        def ready() -> tuple[bool, dict[str, object]]:
            return worker.ready, {"role": metrics.role, "replay_remaining_events": metrics.replay_remaining}

        resources_open.enter_context(AdminServer(config.observe.address, metrics, alive, ready))
        worker.run()
