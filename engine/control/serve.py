"""One worker of the control plane, until it is told to stop."""

import faust

from engine.config import Config
from engine.control.build import control_app
from engine.kafka.client import admin_settings
from engine.kafka.topics import apply
from engine.observe.logs import set_up_logs
from engine.topology import control_topics


def serve(config: Config) -> None:
    """Creates topics that are missing, and runs; SIGTERM and Ctrl-C stop it once offsets are committed."""
    set_up_logs(config.observe)
    apply(admin_settings(config), control_topics(config))
    app, _ = control_app(config)
    faust.Worker(app, loglevel="WARNING", quiet=True, override_logging=False).execute_from_commandline()
