"""What happens to each record: the table first, and then what follows from it.

Nothing is awaited between reading a table and writing it, so that no other record comes between.
"""

import logging
from typing import Any

import faust
import msgspec

from engine.control.plane import Plane
from engine.control.read import read_alert, read_label, read_said
from engine.control.records import CaseRecord, Label, status_key
from engine.control.rollouts import rollout_of
from engine.control.routes import Topics
from engine.directives import decode_command
from engine.telemetry import decode_sample, decode_telemetry
from features.durations import duration_ms

_log = logging.getLogger("tidegate.control")

SWEEP_INTERVAL_S = 3600.0
encode = msgspec.json.Encoder().encode


def make_agents(app: Any, topics: Topics, plane: Plane) -> None:
    """Each on the topic that its table is filled from."""

    async def samples(stream: faust.StreamT) -> None:
        """Sampled decisions into facts."""
        async for value in stream:
            plane.joined.take_sample(decode_sample(value))

    async def labels(stream: faust.StreamT) -> None:
        """Labels into facts; a key without a value asks whether its fact can be forgotten."""
        async for key, value in stream.items():
            if value:
                plane.joined.take_label(read_label(value))
            else:
                plane.joined.forget(key, plane.clock_ms())

    async def telemetry(stream: faust.StreamT) -> None:
        """Telemetry into buckets, and a look at each one that is over."""
        async for value in stream:
            record = decode_telemetry(value)
            plane.watch.take(record)
            for looked in plane.watch.looks(record):
                if looked.request is not None:
                    # Acknowledged before the table says so: a crash in between asks again, under the same id.
                    await acknowledged(topics.retrain_requests, looked.request.request_id, encode(looked.request))
                    plane.requests += 1
                    _log.warning("another model is asked for", extra={"request": looked.request.request_id})
                plane.watch.keep(looked)

    async def alerts(stream: faust.StreamT) -> None:
        """Alerts into cases; a key without a value asks whether its cases can be forgotten."""
        async for key, value in stream.items():
            if value:
                await publish(topics.cases, plane.desk.take_alert(read_alert(value)))
                continue
            for case_id in plane.desk.forget(key, plane.clock_ms() - duration_ms(plane.settings.quality.keep)):
                for of_case in (case_id.encode(), status_key(case_id)):
                    await topics.cases.send(key=of_case, value=None)

    async def said(stream: faust.StreamT) -> None:
        """What analysts say of cases; an outcome becomes labels."""
        async for value in stream:
            case, found = plane.desk.take_said(read_said(value))
            if case is None:
                continue
            await publish(topics.cases, case)
            for label in found:
                await publish_label(topics.labels, label)

    async def rollouts(stream: faust.StreamT) -> None:
        """Commands into the book of roll-outs."""
        async for event in stream.events():
            try:
                command = decode_command(event.value or b"")
            except msgspec.DecodeError:
                # A tombstone, or a command of a later version.
                plane.records[topics.control.get_topic_name(), "unreadable"] += 1
                continue
            plane.records[topics.control.get_topic_name(), "read"] += 1
            plane.note(rollout_of(command, event.message.offset))

    app.agent(topics.samples, name="samples")(samples)
    app.agent(topics.labelled, name="labels")(labels)
    app.agent(topics.measured, name="telemetry")(telemetry)
    app.agent(topics.alerted, name="alerts")(alerts)
    app.agent(topics.said, name="said")(said)
    app.agent(topics.control, name="rollouts")(rollouts)

    async def sweep() -> None:
        """Asks for each fact and group of cases that is over to be forgotten, where their partition is."""
        if not plane.ready:
            return
        now_ms = plane.clock_ms()
        for event in list(plane.joined.over(plane.tables.facts.items(), now_ms)):
            await topics.labelled.send(key=event, value=b"")
        for group in plane.desk.over(now_ms - duration_ms(plane.settings.quality.keep)):
            await topics.alerted.send(key=group, value=b"")

    app.timer(interval=SWEEP_INTERVAL_S, name="sweep")(sweep)


async def acknowledged(topic: Any, key: str, value: bytes) -> None:
    """Sends a record, and returns once the broker has it."""
    await (await topic.send(key=key.encode(), value=value))


async def publish(topic: Any, case: CaseRecord) -> None:
    """A case as it stands."""
    await topic.send(key=case.case_id.encode(), value=encode(case))


async def publish_label(topic: Any, label: Label) -> None:
    """What a case says of one of its events."""
    await topic.send(key=label.event_id.encode(), value=encode(label))
