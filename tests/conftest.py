"""The hypothesis profile of all tests; fixtures for tests against a real Kafka broker, which are marked `broker`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import pytest
from confluent_kafka.admin import AdminClient
from hypothesis import settings

from engine.errors import RetriableError
from engine.kafka import topics

settings.register_profile("tidegate", deadline=None, max_examples=200, print_blob=True)
settings.load_profile("tidegate")

ROOT = Path(__file__).parent.parent
ANSWER_TIMEOUT_S = 5.0


class TopicFactory(Protocol):
    """Makes a topic that no other test has and returns its name; it is deleted when the test ends."""

    def __call__(self, name: str = "topic", partitions: int = 1, config: dict[str, str] | None = None) -> str: ...


def noted_bootstrap() -> str | None:
    """What `scripts/kafka start` noted, if that broker still answers."""
    note = Path(os.environ.get("TIDEGATE_KAFKA_HOME", ROOT / ".kafka")) / "bootstrap"
    if not note.exists():
        return None
    bootstrap = note.read_text().strip()
    try:
        topics.plan({"bootstrap.servers": bootstrap}, [topics.TopicSpec("any", 1, 1)], ANSWER_TIMEOUT_S)
    except RetriableError:
        return None
    return bootstrap


def delete_topics(bootstrap: str, names: list[str]) -> None:
    """Deletes those of the topics that exist, and returns once the broker no longer shows them."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    there = [name for name in names if name in admin.list_topics(timeout=ANSWER_TIMEOUT_S).topics]
    for deletion in (admin.delete_topics(there) if there else {}).values():
        deletion.result()
    while not admin.list_topics(timeout=ANSWER_TIMEOUT_S).topics.keys().isdisjoint(there):
        pass


@pytest.fixture(scope="session")
def kafka_bootstrap() -> str:
    """Address of a real broker: KAFKA_BOOTSTRAP_SERVERS, or the one that `scripts/kafka start` started.

    Without a broker the test is skipped, and with CI=true it fails.
    """
    bootstrap = os.environ.get("KAFKA_BOOTSTRAP_SERVERS") or noted_bootstrap()
    if bootstrap is not None:
        return bootstrap
    why = "no Kafka broker: `scripts/kafka start` gets one"
    if os.environ.get("CI") == "true":
        pytest.fail(why, pytrace=False)
    pytest.skip(why)


@contextmanager
def own_topics(bootstrap: str) -> Iterator[TopicFactory]:
    """Makes topics, and deletes them at the end."""
    made: list[str] = []

    def make(name: str = "topic", partitions: int = 1, config: dict[str, str] | None = None) -> str:
        unique = f"test-{name}-{uuid4().hex[:12]}"
        topics.apply({"bootstrap.servers": bootstrap}, [topics.TopicSpec(unique, partitions, 1, config or {})])
        made.append(unique)
        return unique

    yield make
    delete_topics(bootstrap, made)


@pytest.fixture
def topic_factory(kafka_bootstrap: str) -> Iterator[TopicFactory]:
    """Topics of the test's own on the real broker."""
    with own_topics(kafka_bootstrap) as factory:
        yield factory
