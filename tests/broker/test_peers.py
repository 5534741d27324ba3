"""The small job on a real broker, by Tidegate alone: its values are the oracle's, and a run has figures."""

from pathlib import Path

import pytest

from loadtest.peers.job import oracle, stream
from loadtest.peers.measure import Limits, measure
from loadtest.peers.pace import Pace, paced
from loadtest.peers.peer import AT_LEAST_ONCE, EXACTLY_ONCE, Run
from loadtest.peers.results import Truth
from loadtest.peers.tidegate import TIDEGATE
from loadtest.peers.topics import INPUT, OUTPUT, Topics
from tests.conftest import TopicFactory

pytestmark = pytest.mark.broker

EVENTS = 20_000
PARTITIONS = 2


@pytest.mark.parametrize("delivery", [AT_LEAST_ONCE, EXACTLY_ONCE])
def test_tidegate_computes_the_job_exactly(
    kafka_bootstrap: str, topic_factory: TopicFactory, tmp_path: Path, delivery: str
) -> None:
    given, output = topic_factory("given", PARTITIONS, INPUT), topic_factory("results", PARTITIONS, OUTPUT)
    events, topics = stream(EVENTS, hot=False), Topics(kafka_bootstrap)
    topics.fill(given, events, 0, EVENTS)
    run = Run(f"{output}-run", kafka_bootstrap, given, output, PARTITIONS, 1, delivery, None, tmp_path, tmp_path)
    try:
        found = measure(TIDEGATE, run, Limits(EVENTS, 60.0, warm_up_s=0.0), Truth(*oracle(events), None))
    finally:
        topics.sweep(run.name)
    assert (found.differing_share, found.repeated) == (0.0, 0)
    assert found.results >= 0.9 * EVENTS
    assert found.events_per_second > 0
    assert found.cpu_us_per_event > 0


def test_tidegate_has_a_p99_at_a_pace(kafka_bootstrap: str, topic_factory: TopicFactory, tmp_path: Path) -> None:
    given, output = topic_factory("given", PARTITIONS, INPUT), topic_factory("results", PARTITIONS, OUTPUT)
    topics, pace = Topics(kafka_bootstrap), Pace(300.0, 2.0)
    run = Run(f"{output}-run", kafka_bootstrap, given, output, PARTITIONS, 1, AT_LEAST_ONCE, None, tmp_path, tmp_path)
    try:
        p99_ms = paced(TIDEGATE, run, topics, stream(pace.stream_events, hot=False), pace)
    finally:
        topics.sweep(run.name)
    assert p99_ms is not None
    assert 0 < p99_ms < 10_000
