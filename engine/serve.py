"""One worker with everything around it: logs, admin endpoint, connections, the loop."""

import logging
import threading
from contextlib import ExitStack, closing

from engine.assemble import assemble, load_model_of, load_rates, rules_of, watched
from engine.background import Background
from engine.challengers import Challengers
from engine.clock import SYSTEM_CLOCK
from engine.config import Config
from engine.kafka.client import admin_settings
from engine.kafka.consume import Input
from engine.kafka.control import Control
from engine.kafka.deliver import Delivery, delivery_of
from engine.kafka.journal import Journal
from engine.kafka.lease import Lease
from engine.kafka.offsets import ask_committed
from engine.kafka.reach import Reach
from engine.kafka.telemetry import TelemetryTopic
from engine.kafka.topics import cluster_identity
from engine.observe.logs import set_up_logs
from engine.observe.server import LISTENING, AdminServer
from engine.pipeline import Pipeline
from engine.policy_file import PolicyFile
from engine.reporter import Reporter
from engine.rollout import Rollout, first_champion
from engine.serving import Serving, serving_of
from engine.state.checkpoints import Checkpoints
from engine.state.damage import DamageError
from engine.state.manifest import Manifest
from engine.state.peek import read_header
from engine.upkeep import checkpoints_of
from engine.worker import Worker

_log = logging.getLogger("tidegate.serve")


def connected(
    config: Config,
    pipeline: Pipeline,
    control: Control,
    stop: threading.Event,
    resources_open: ExitStack,
    *,
    checkpoints: Checkpoints | None = None,
    accept_cold_state: bool = False,
) -> Worker:
    """A worker with its clients; raises as `Input`."""
    # First, so that they are closed last: whoever waits for the lease does not wait for them.
    challengers = resources_open.enter_context(closing(Challengers(config, control, pipeline.metrics)))
    if config.models.challengers:
        pipeline.onlookers = challengers
    telemetry = resources_open.enter_context(TelemetryTopic(config, pipeline.metrics))
    if config.telemetry.enabled:
        watched(config, pipeline)
    source = resources_open.enter_context(Input(config))
    journal = resources_open.enter_context(Journal(config))
    lease = resources_open.enter_context(Lease(config, reach=Reach(pipeline.metrics.note_broker)))
    delivery: Delivery = resources_open.enter_context(delivery_of(config, lease))
    spec, with_features = pipeline.state.spec, config.kafka.decision_features

    def load(reference: str) -> Serving:
        model = load_model_of(config, spec, reference)
        return serving_of(spec, model, pipeline.program, pipeline.lists, with_features=with_features)

    return Worker(
        config,
        pipeline,
        source,
        journal,
        lease,
        delivery,
        Rollout(
            config,
            control,
            load,
            Background("model"),
            SYSTEM_CLOCK,
            challengers,
            PolicyFile(config, spec, Background("policy")),
        ),
        Reporter(config, pipeline.drift, telemetry.put, SYSTEM_CLOCK),
        stop,
        checkpoints=checkpoints,
        accept_cold_state=accept_cold_state,
    )


def serve(config: Config, stop: threading.Event, *, accept_cold_state: bool = False) -> None:
    """Scores until `stop` is set; raises a TidegateError when it cannot go on."""
    set_up_logs(config.observe)
    with ExitStack() as resources_open:
        # A broker that is away is noticed before anything that takes time.
        cluster_id, topic_id = cluster_identity(admin_settings(config), config.kafka.input)
        checkpoints = None
        if config.state.checkpoints.dir:
            checkpoints = resources_open.enter_context(closing(checkpoints_of(config)))
            _restore_where_needed(config, checkpoints, (cluster_id, topic_id))
        control = resources_open.enter_context(Control(config))
        control.catch_up()
        model = first_champion(config, config.feature_spec(), control)
        pipeline = assemble(config, resources_open, model=model, with_features=config.kafka.decision_features)
        worker = connected(
            config,
            pipeline,
            control,
            stop,
            resources_open,
            checkpoints=checkpoints,
            accept_cold_state=accept_cold_state,
        )
        metrics = pipeline.metrics

        def alive() -> tuple[bool, dict[str, object]]:
            return True, {"role": metrics.role}

        def ready() -> tuple[bool, dict[str, object]]:
            return worker.ready and metrics.broker_up, {
                "role": metrics.role,
                "replay_remaining_events": metrics.replay_remaining,
                "broker_up": metrics.broker_up,
            }

        admin = resources_open.enter_context(AdminServer(config.observe.address, metrics, alive, ready))
        _log.info(LISTENING, extra={"address": f"{config.observe.address[0]}:{admin.port}"})
        worker.run()


def _restore_where_needed(config: Config, checkpoints: Checkpoints, ids: tuple[str | None, str | None]) -> None:
    """Puts the newest checkpoint that is not ahead in the place of a state that is missing, damaged or ahead.

    Where there is none, what follows says what to do.
    """
    folder = config.path(config.state.dir)
    try:
        header = read_header(folder)
        stored = header.vector if header is not None else None
    except DamageError:
        stored = None
    committed = ask_committed(config, settled=False)
    if stored is not None:
        if not _is_ahead(stored, committed):
            return
        # Offsets of a commit that was answered may not be there yet.
        committed = ask_committed(config, settled=True)
        if not _is_ahead(stored, committed):
            return
    rules = rules_of(config, load_rates(config))

    def usable(manifest: Manifest) -> bool:
        return manifest.fingerprint == rules and (manifest.cluster_id, manifest.topic_id) == ids

    if committed:
        checkpoints.restore_newest(committed, folder, usable)


def _is_ahead(stored: dict[int, int], committed: dict[int, int]) -> bool:
    return any(offset > committed.get(partition, -1) for partition, offset in stored.items())
