"""Telemetry records: a commit is counted once and none other, in the record of who decided it."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from engine.assemble import watched
from engine.pipeline import Pipeline
from engine.reporter import Reporter
from engine.telemetry import Telemetry, Versions, decode_sample, decode_telemetry, encode
from tests.pipelines import START_MS, event, json_of, pipeline_of, profile, records_of

INTERVAL_S = 5.0


class HandClock:
    """Goes on by hand."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s

    def time_ms(self) -> int:
        return START_MS + round(1_000 * self.now_s)


class Desk:
    """A pipeline and its reporter, as a loop uses them; `said` is what was published."""

    def __init__(self, *, counts: bool = True) -> None:
        config = profile()
        self.pipeline: Pipeline = pipeline_of(config)
        if counts:
            watched(config, self.pipeline)
        self.clock = HandClock()
        self.said: list[Telemetry] = []
        self.reporter = Reporter(config, self.pipeline.drift, self._put, self.clock)  # type: ignore[arg-type]
        self.reporter.begin(self.pipeline)
        self._sent = 0

    def _put(self, value: bytes) -> None:
        self.said.append(decode_telemetry(value))

    def decide(self, events: int) -> None:
        values = [json_of(event(number)) for number in range(self._sent, self._sent + events)]
        self.pipeline.process(records_of(values, offsets=range(self._sent, self._sent + events)))
        self._sent += events

    def commit(self) -> None:
        self.reporter.add(self.reporter.take())

    def after(self, seconds: float) -> None:
        self.clock.now_s += seconds
        self.reporter.tick(self.pipeline)

    @property
    def events(self) -> list[tuple[str, int]]:
        return [(record.versions.model, record.events) for record in self.said]


def test_a_record_comes_every_interval_and_has_what_was_committed_since_the_last() -> None:
    desk = Desk()
    for events in (3, 4):
        desk.decide(events)
        desk.commit()
        desk.after(INTERVAL_S / 4)
    assert desk.said == []
    desk.decide(5)  # not committed yet
    desk.after(INTERVAL_S / 2)
    desk.commit()
    desk.after(INTERVAL_S)
    assert desk.events == [("demo/1", 7), ("demo/1", 5)]
    first, second = desk.said
    assert (first.from_ms, first.to_ms) == (START_MS + 100_000, START_MS + 105_000)
    assert (second.from_ms, second.to_ms) == (START_MS + 105_000, START_MS + 110_000)
    assert first.event_time_ms_max == event(6)["event_time"]
    assert first.versions == Versions("demo/1", "demo/1")
    assert first.application_id == "tidegate"
    assert sum(first.decisions.values()) == sum(first.score.counts) == 7
    assert {sum(counts.counts) + counts.nulls for counts in first.features.values()} == {7}
    assert len(first.score.counts) == len(first.score.edges) + 1


def test_where_nothing_happens_that_is_said_too() -> None:
    desk = Desk()
    desk.after(INTERVAL_S)
    (record,) = desk.said
    assert record.events == 0
    assert record.event_time_ms_max is None
    assert set(record.features) == set(desk.pipeline.model.references)


def test_another_model_begins_a_record() -> None:
    desk = Desk()
    desk.decide(3)
    desk.commit()
    desk.pipeline.champion = renamed(desk.pipeline)
    desk.after(1.0)
    assert desk.events == [("demo/1", 3)]
    desk.decide(2)
    desk.commit()
    desk.after(INTERVAL_S)
    assert desk.events == [("demo/1", 3), ("demo/2", 2)]
    assert desk.said[0].to_ms == desk.said[1].from_ms == START_MS + 101_000


def renamed(pipeline: Pipeline) -> Any:
    """The deciding model as another version."""
    return replace(pipeline.champion, model=replace(pipeline.champion.model, version=2))  # type: ignore[type-var]


def test_what_the_one_before_decided_may_be_committed_later() -> None:
    """At least once, another model may take over while a commit is under way."""
    desk = Desk()
    desk.decide(3)
    under_way = desk.reporter.take()
    desk.pipeline.champion = renamed(desk.pipeline)
    desk.after(1.0)
    desk.decide(2)
    desk.reporter.add(under_way)
    desk.commit()
    desk.after(INTERVAL_S)
    assert desk.events == [("demo/1", 3), ("demo/2", 2)]


def test_at_the_end_what_is_committed_is_said_and_what_is_not_is_void() -> None:
    desk = Desk()
    desk.decide(3)
    desk.commit()
    desk.decide(4)
    desk.reporter.end(desk.pipeline)
    assert desk.events == [("demo/1", 3)]
    desk.reporter.end(desk.pipeline)
    assert len(desk.said) == 1
    desk.clock.now_s += 60.0
    desk.reporter.begin(desk.pipeline)
    desk.decide(2)
    desk.commit()
    desk.after(INTERVAL_S)
    assert desk.events == [("demo/1", 3), ("demo/1", 2)]
    assert desk.said[1].from_ms == START_MS + 160_000


def test_where_nobody_counts_nothing_is_said() -> None:
    desk = Desk(counts=False)
    desk.decide(3)
    desk.commit()
    desk.after(INTERVAL_S)
    desk.reporter.end(desk.pipeline)
    assert desk.said == []


def test_records_are_read_as_they_were_written_and_later_fields_are_passed_over() -> None:
    desk = Desk()
    desk.decide(3)
    desk.commit()
    desk.after(INTERVAL_S)
    (record,) = desk.said
    written = encode(record)
    assert decode_telemetry(written) == record
    assert decode_telemetry(written[:-1] + b',"later":{"a":1}}') == record
    assert msgspec.json.decode(written)["fields"]["card"] == {"nulls": 0}


@pytest.mark.parametrize("value", [None, b"", b"{}", b"[1]", b"\xff", b'{"schema":"tidegate.telemetry.v2"}'])
def test_what_is_none_of_these_records_is_refused(value: bytes | None) -> None:
    for decode in (decode_sample, decode_telemetry):
        with pytest.raises(ValueError):  # noqa: PT011 - of msgspec or of UTF-8
            decode(value)
