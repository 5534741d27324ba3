"""Agents in Faust's test context: what they write, what they send on, and what they do not choke on."""

import asyncio
from collections.abc import Awaitable, Callable
from unittest.mock import Mock

import faust
import msgspec

from engine.control.agents import make_agents
from engine.control.cases import group_of
from engine.control.desk import Desk
from engine.control.drift import Expected
from engine.control.plane import Plane, Tables
from engine.control.read import read_label
from engine.control.records import CaseSaid
from engine.control.routes import Topics, key_of_said, router
from engine.control.settings import Control, Drift, Quality, Retraining
from engine.directives import AliasMoved, encode_command
from engine.telemetry import decode_sample
from models.assignment import promoted
from models.manifest import read_manifest
from models.store import MANIFEST_FILE, resolve, shipped_store
from tests.control.world import NOW_MS, alert, label, sample, telemetry

SETTINGS = Control(
    quality=Quality(window="9000d", keep="9000d"),
    drift=Drift(windows=["10s"], events_min=100, raise_after=1),
    retraining=Retraining(after="10s"),
)
encode = msgspec.json.encode


class Sink:
    """A topic that remembers what is sent to it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.sent: list[tuple[bytes, bytes | None]] = []

    def get_topic_name(self) -> str:
        return self._name

    async def send(self, *, key: bytes, value: bytes | None) -> Awaitable[None]:
        self.sent.append((key, value))
        acknowledged = asyncio.get_running_loop().create_future()
        acknowledged.set_result(None)
        return acknowledged


class Bench:
    """The agents over tables in memory."""

    def __init__(self) -> None:
        manifest = read_manifest(resolve(shipped_store(), "demo/1").directory / MANIFEST_FILE)
        tables = Tables({}, {}, {}, {}, {})
        self.app = faust.App("test-control", broker="kafka://127.0.0.1:1", store="memory://", web_enabled=False)
        # Asked for nothing, but one of Faust's own would have a thread and an event loop.
        self.app.consumer = Mock()
        self.plane = Plane(SETTINGS, tables, lambda model: Expected(manifest), lambda: NOW_MS)
        names = Topics.__dataclass_fields__
        self.sinks = {name: Sink(name) for name in names}
        read = ("samples", "labelled", "measured", "alerted", "said")
        channels = {name: self.app.channel() if name in read else self.sinks[name] for name in names}
        control = self.app.channel()
        control.get_topic_name = lambda: "control"
        make_agents(self.app, Topics(**{**channels, "control": control}), self.plane)

    async def put(self, agent: str, *values: bytes, key: bytes | None = None) -> None:
        """Records, one after another, each processed before the next."""
        (found,) = (made for name, made in self.app.agents.items() if name.rpartition(".")[2] == agent)
        async with found.test_context() as context:
            for value in values:
                await context.put(value, key=key)
            await asyncio.sleep(0.01)


def run(script: Callable[[Bench], Awaitable[None]]) -> Bench:
    async def whole() -> Bench:
        made = Bench()
        await script(made)
        return made

    return asyncio.run(whole())


def test_samples_and_labels_meet() -> None:
    async def script(made: Bench) -> None:
        await made.put("samples", encode(sample(1, "review")))
        await made.put("labels", encode(label(1, 1)), encode(label(1, 1)), key=b"event-1")

    made = run(script)
    figures = made.plane.joined.figures(NOW_MS)
    assert (figures.labelled, figures.precision.value) == (1, 1.0)


def test_alerts_become_a_case_and_its_outcome_labels() -> None:
    async def script(made: Bench) -> None:
        group = group_of(alert(1)).encode()
        await made.put("alerts", encode(alert(1)), encode(alert(2)), encode(alert(2)), key=group)
        (case_id,) = made.plane.desk.standing
        said = CaseSaid(case_id=case_id, status="closed", outcome="fraud", author="ana", said_at_ms=NOW_MS)
        await made.put("said", encode(said), key=group)

    made = run(script)
    published = [msgspec.json.decode(value)["alerts"] for _, value in made.sinks["cases"].sent if value]
    assert published == [1, 2, 2, 2]
    assert [read_label(value or b"").event_id for _, value in made.sinks["labels"].sent] == ["event-1", "event-2"]


def test_a_request_is_sent_once_for_what_lasts() -> None:
    async def script(made: Bench) -> None:
        manifest = read_manifest(resolve(shipped_store(), "demo/1").directory / MANIFEST_FILE)
        name, reference = next(iter(manifest.reference.items()))
        shifted = [0] * len(reference.edges) + [500]
        features = {name: {"counts": shifted, "nulls": 0, "out_of_range": 0}}
        records = [msgspec.to_builtins(telemetry(number, [500])) | {"features": features} for number in range(20)]
        await made.put("telemetry", *map(encode, records))

    made = run(script)
    ((key, value),) = made.sinks["retrain_requests"].sent
    assert msgspec.json.decode(value or b"")["request_id"].encode() == key
    assert made.plane.watch.alarms["tidegate"].asked


def test_commands_are_noted_once() -> None:
    moved = AliasMoved(
        application_id="tidegate", model="fraud", alias="champion", assignment=promoted(None, 7, "ana", "better")
    )

    async def script(made: Bench) -> None:
        await made.put("rollouts", encode_command(moved), b"what a later version says", b"")

    made = run(script)
    assert [rollout.author for rollout in made.plane.rollouts()] == ["ana"]
    assert made.plane.records["control", "unreadable"] == 2


def test_a_router_sends_on_what_it_can_read() -> None:
    async def script(made: Bench) -> None:
        target = made.sinks["samples"]
        route = router("sampled", target, lambda value: decode_sample(value).event_id, made.plane)
        made.app.agent(made.app.channel(), name="route")(route)
        await made.put("route", encode(sample(1)), b"{}", b"\xff", encode(sample(2)))

    made = run(script)
    assert [key for key, _ in made.sinks["samples"].sent] == [b"event-1", b"event-2"]
    assert made.plane.records == {("sampled", "read"): 2, ("sampled", "unreadable"): 2}


def test_a_key_without_a_value_asks_to_forget() -> None:
    async def script(made: Bench) -> None:
        made.plane.clock_ms = lambda: NOW_MS + 9_100 * 86_400_000
        group = group_of(alert(1)).encode()
        await made.put("samples", encode(sample(1)))
        await made.put("alerts", encode(alert(1)), b"", key=group)
        await made.put("labels", b"", key=b"event-1")

    made = run(script)
    assert not made.plane.tables.facts
    assert not made.plane.tables.cases
    (case_id, _), *forgotten = made.sinks["cases"].sent
    assert forgotten == [(case_id, None), (case_id + b"@status", None)]


def test_what_is_said_of_a_case_is_told_from_the_case_itself_and_its_end() -> None:
    said = CaseSaid(case_id="12-ab", status="in_review", author="ana", said_at_ms=1)
    assert key_of_said(encode(said)) == "12"
    assert key_of_said(encode(Desk(SETTINGS.cases, {}).take_alert(alert(1)))) is None
    assert key_of_said(b"") is None
