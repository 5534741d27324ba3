"""The Faust application of a configuration."""

from collections import Counter
from functools import partial
from typing import Any

from engine.config import Config
from engine.control.agents import make_agents
from engine.control.manifests import Manifests
from engine.control.plane import Plane
from engine.control.routes import make_routes, make_topics
from engine.control.security import credentials_of
from engine.control.tables import make_tables
from engine.control.transport import CommittedApp
from engine.control.views import make_views

SESSION_S, HEARTBEAT_S, COMMIT_INTERVAL_S = 10.0, 2.0, 1.0
# Nobody waits for a single record; without it, each is a request of its own.
PRODUCER_LINGER_S = 0.02


def control_app(config: Config) -> tuple[CommittedApp, Plane]:
    """The application, ready to be run as a worker, and what it knows."""
    host, port = config.control.address
    brokers = ";".join(f"kafka://{server.strip()}" for server in config.kafka.bootstrap.split(","))
    settings: dict[str, Any] = {
        "broker": brokers,
        "broker_credentials": credentials_of(config),
        "store": "rocksdb://",
        "datadir": str(config.path(config.control.dir)),
        "web_bind": host,
        "web_port": port,
        "web_host": host,
        "topic_replication_factor": config.kafka.replication,
        "topic_partitions": config.control.partitions,
        "topic_disable_leader": True,
        "table_standby_replicas": 0,
        "broker_commit_interval": COMMIT_INTERVAL_S,
        "producer_linger": PRODUCER_LINGER_S,
        "broker_session_timeout": SESSION_S,
        "broker_heartbeat_interval": HEARTBEAT_S,
        "key_serializer": "raw",
        "value_serializer": "raw",
    }
    app = CommittedApp(f"{config.kafka.application_id}-control", **settings)
    topics = make_topics(app, config)
    tables = make_tables(app, config.control.partitions)
    plane = Plane(config.control, tables, Manifests(config).expected)
    make_routes(app, topics, plane)
    make_agents(app, topics, plane)
    make_views(app, plane)

    async def recovered() -> None:
        try:
            plane.rebuild()
        except BaseException as error:
            # Faust drops what a callback raises, and goes on.
            await app.crash(error)
            raise

    # Called once every table is whole, before any record is read.
    app.tables["facts"].on_recover(recovered)
    plane.lags = partial(lags, app)
    return app, plane


def lags(app: Any) -> dict[str, int]:
    """By topic, the records that are there and not committed; a marker of a transaction counts as one."""
    found: Counter[str] = Counter()
    for place, end in app.monitor.tp_end_offsets.items():
        # Where nothing is committed yet, what was read says more than nothing.
        done = app.monitor.tp_committed_offsets.get(place) or app.monitor.tp_read_offsets.get(place) or 0
        found[place.topic] += max(0, (end or 0) - done)
    return dict(found)
