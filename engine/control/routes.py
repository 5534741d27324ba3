"""Records on their way to the table that they belong to: read from anybody's topic, written to one of our own.

decisions-sample (by card)   --> samples    (by event)    --+
labels (by whatever)         --> labelled   (by event)    --+--> facts
telemetry                    --> measured   (by application)
alerts (by card)             --> alerted    (by entity and typology)
cases                        --> said       (likewise)

The partition of a record decides which part of a table it may change; and only what has a key of ours meets the rest of
its kind there. Offsets are committed once what was written is acknowledged.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import faust
import msgspec

from engine.config import Config
from engine.control.cases import group_of, group_of_case
from engine.control.plane import Plane
from engine.control.read import read_alert, read_label, read_said, schema_of
from engine.control.records import CASE_STATUS_SCHEMA
from engine.control.tables import RAW
from engine.telemetry import decode_sample, decode_telemetry

_log = logging.getLogger("tidegate.control")


@dataclass(frozen=True, slots=True)
class Topics:
    """Those of others, and those of our own that tables are filled from."""

    sampled: Any
    labels: Any
    telemetry: Any
    alerts: Any
    cases: Any
    control: Any
    retrain_requests: Any
    samples: Any
    labelled: Any
    measured: Any
    alerted: Any
    said: Any


def make_topics(app: Any, config: Config) -> Topics:
    """As Faust knows them."""
    names, prefix = config.kafka.topics, f"{config.kafka.application_id}-control"

    def theirs(name: str) -> Any:
        return app.topic(name, **RAW)

    def ours(name: str) -> Any:
        return app.topic(
            f"{prefix}-{name}",
            internal=True,
            partitions=config.control.partitions,
            replicas=config.kafka.replication,
            **RAW,
        )

    return Topics(
        sampled=theirs(names.decisions_sample),
        labels=theirs(names.labels),
        telemetry=theirs(names.telemetry),
        alerts=theirs(names.alerts),
        cases=theirs(names.cases),
        control=theirs(names.control),
        retrain_requests=theirs(names.retrain_requests),
        samples=ours("samples"),
        labelled=ours("labelled"),
        measured=ours("measured"),
        alerted=ours("alerted"),
        said=ours("said"),
    )


def key_of_said(value: bytes) -> str | None:
    """The group of cases that a record of the topic of cases says something of; None for what is no word of anybody."""
    # The topic holds what we publish of cases, too, and tombstones of those that are forgotten.
    return group_of_case(read_said(value).case_id) if value and schema_of(value) == CASE_STATUS_SCHEMA else None


def make_routes(app: Any, topics: Topics, plane: Plane) -> None:
    """One agent a topic."""
    routes: list[tuple[str, Any, Any, Callable[[bytes], str | None]]] = [
        ("route_samples", topics.sampled, topics.samples, lambda value: decode_sample(value).event_id),
        ("route_labels", topics.labels, topics.labelled, lambda value: read_label(value).event_id),
        ("route_telemetry", topics.telemetry, topics.measured, lambda value: decode_telemetry(value).application_id),
        ("route_alerts", topics.alerts, topics.alerted, lambda value: group_of(read_alert(value))),
        ("route_said", topics.cases, topics.said, key_of_said),
    ]
    for name, source, target, key_of in routes:
        app.agent(source, name=name)(router(source.get_topic_name(), target, key_of, plane))


def router(topic: str, target: Any, key_of: Callable[[bytes], str | None], plane: Plane) -> Any:
    """Sends records on under a key; those that cannot be read are counted, and those without a key are left."""

    async def route(stream: faust.StreamT) -> None:
        """Sends records on, under the key of their table."""
        async for event in stream.events():
            try:
                key = key_of(event.value or b"")
            except (ValueError, msgspec.DecodeError) as error:
                plane.records[topic, "unreadable"] += 1
                place = f"partition {event.message.partition}, offset {event.message.offset}"
                _log.warning("a record cannot be read", extra={"topic": topic, "place": place, "why": str(error)})
                continue
            if key is not None:
                plane.records[topic, "read"] += 1
                await target.send(key=key.encode(), value=event.value)

    return route
