"""engine.kafka.topics against a real broker."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
from confluent_kafka.admin import AdminClient

from engine.errors import ConfigError, RetriableError
from engine.kafka.topics import TopicChange, TopicSpec, apply, cluster_identity, plan
from tests.conftest import TopicFactory, delete_topics

pytestmark = pytest.mark.broker


@pytest.fixture
def conf(kafka_bootstrap: str) -> dict[str, str]:
    return {"bootstrap.servers": kafka_bootstrap}


@pytest.fixture
def names(kafka_bootstrap: str) -> Iterator[list[str]]:
    """Names of topics that do not exist; what the test makes of them is deleted."""
    fresh = [f"test-apply-{uuid4().hex[:12]}" for _ in range(8)]
    yield fresh
    delete_topics(kafka_bootstrap, fresh)


def partitions(conf: dict[str, str], name: str) -> int:
    return len(AdminClient(conf).list_topics(timeout=5).topics[name].partitions)


def test_apply_creates_what_is_missing_and_only_once(conf: dict[str, str], names: list[str]) -> None:
    specs = [TopicSpec(names[0], 3, 1), TopicSpec(names[1], 1, 1, {"cleanup.policy": "compact"})]

    assert [(change.topic, change.kind) for change in plan(conf, specs)] == [
        (names[0], "missing"),
        (names[1], "missing"),
    ]
    assert apply(conf, specs) == [
        TopicChange(names[0], "created", "3 partition(s), replication 1"),
        TopicChange(names[1], "created", "1 partition(s), replication 1, cleanup.policy=compact"),
    ]
    assert apply(conf, specs) == []
    assert plan(conf, specs) == []
    assert partitions(conf, names[0]) == 3


def test_plan_creates_nothing(conf: dict[str, str], names: list[str]) -> None:
    plan(conf, [TopicSpec(names[0], 1, 1)])
    assert names[0] not in AdminClient(conf).list_topics(timeout=5).topics


def test_apply_reports_differences_and_leaves_them(conf: dict[str, str], topic_factory: TopicFactory) -> None:
    there = topic_factory(partitions=2, config={"cleanup.policy": "compact"})
    wanted = TopicSpec(there, 4, 3, {"cleanup.policy": "delete", "no.such.setting": "1"})

    for changes in (apply(conf, [wanted]), apply(conf, [wanted])):
        assert changes == [
            TopicChange(
                there,
                "differs",
                "partitions: 2, wanted: 4; replication: 1, wanted: 3; "
                "cleanup.policy: compact, wanted: delete; no.such.setting: unknown to the broker, wanted: 1",
            )
        ]
    assert partitions(conf, there) == 2


def test_apply_leaves_topics_that_no_spec_names(
    conf: dict[str, str], names: list[str], topic_factory: TopicFactory
) -> None:
    bystander = topic_factory(partitions=2)
    apply(conf, [TopicSpec(names[0], 1, 1)])
    assert partitions(conf, bystander) == 2


def test_workers_that_apply_at_once_create_each_topic_once(conf: dict[str, str], names: list[str]) -> None:
    specs = [TopicSpec(name, 2, 1) for name in names]
    with ThreadPoolExecutor(4) as workers:
        changes = [change for done in workers.map(lambda _: apply(conf, specs), range(4)) for change in done]
    assert sorted(change.topic for change in changes) == sorted(names)
    assert {change.kind for change in changes} == {"created"}


def test_what_the_broker_refuses_is_named_and_the_rest_exists(conf: dict[str, str], names: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"'no spaces here'.*invalid.*no\.such\.setting"):
        apply(
            conf,
            [
                TopicSpec("no spaces here", 1, 1),
                TopicSpec(names[0], 1, 1, {"no.such.setting": "1"}),
                TopicSpec(names[1], 1, 1),
            ],
        )
    assert partitions(conf, names[1]) == 1


def test_identity_outlasts_everything_but_re_creation(conf: dict[str, str], names: list[str]) -> None:
    spec = TopicSpec(names[0], 1, 1)
    apply(conf, [spec])
    cluster, topic = cluster_identity(conf, names[0])
    assert cluster is not None
    assert topic is not None
    assert cluster_identity(conf, names[0]) == (cluster, topic)

    delete_topics(conf["bootstrap.servers"], [names[0]])
    assert apply(conf, [spec]) == [TopicChange(names[0], "created", str(spec))]
    assert cluster_identity(conf, names[0])[0] == cluster
    assert cluster_identity(conf, names[0])[1] != topic


def test_identity_of_a_missing_topic(conf: dict[str, str], names: list[str]) -> None:
    with pytest.raises(ConfigError, match=f"topic '{names[0]}' does not exist at"):
        cluster_identity(conf, names[0])


def test_a_client_that_the_broker_refuses(conf: dict[str, str]) -> None:
    """A wrong password will not get better by trying again."""
    login = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN"}
    login |= {"sasl.username": "nobody", "sasl.password": "wrong"}
    with pytest.raises(ConfigError, match="refuses the client"):
        plan(conf | login, [TopicSpec("any", 1, 1)], timeout_s=1.0)


def test_a_broker_that_is_not_there() -> None:
    with pytest.raises(RetriableError, match=r"no Kafka broker answers at 127\.0\.0\.1:1 within 0\.2 s: .*refused"):
        plan({"bootstrap.servers": "127.0.0.1:1"}, [TopicSpec("any", 1, 1)], timeout_s=0.2)


def test_a_spec_without_partitions() -> None:
    with pytest.raises(ConfigError, match="topic 'any': partitions and replication are 1 or more"):
        TopicSpec("any", 0, 1)
