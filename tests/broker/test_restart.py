"""A worker that was killed is ready once it has opened its state and replayed what was decided since: a small form.

`scripts/prove-recovery` does the same with a million entities.
"""

from pathlib import Path

import pytest

from tests.broker.application import new_application
from tests.broker.restart import restart
from tests.conftest import TopicFactory

pytestmark = [pytest.mark.broker, pytest.mark.slow]

ENTITIES = 20_000
EVENTS = 3_000


def test_a_restart_keeps_every_entity_and_replays_what_was_decided(
    kafka_bootstrap: str, tmp_path: Path, topic_factory: TopicFactory
) -> None:
    application = new_application(kafka_bootstrap, tmp_path, topic_factory)
    found = restart(application, ENTITIES, EVENTS)
    assert found.entities > ENTITIES
    assert found.replayed_events == EVENTS
    assert found.ready_s < 60.0
    assert len(application.read_all(application.decisions)) > EVENTS / 2
