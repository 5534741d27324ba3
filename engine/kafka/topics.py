"""The topics that Tidegate needs: created when missing, reported when different, never altered or deleted."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec, ResourceType

from engine.errors import ConfigError, RetriableError, TidegateError

ANSWER_TIMEOUT_S = 10.0

# How the broker inside librdkafka calls its cluster; the rest is an address in memory.
_EMBEDDED_CLUSTER = "mockCluster"

_NO_ANSWER = frozenset(
    {
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._RESOLVE,
        KafkaError._TIMED_OUT,
        KafkaError._TRANSPORT,
        KafkaError.REQUEST_TIMED_OUT,
    }
)

# A partition between its creation, or a broker's end, and the next election.
_NOT_LED = frozenset(
    {
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
    }
)


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic as it is wanted. `config` holds topic settings by Kafka's names; the others are the broker's.

    Raises ConfigError unless there is at least one partition and one replica.
    """

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.partitions < 1 or self.replication < 1:
            raise ConfigError(f"topic {self.name!r}: partitions and replication are 1 or more, not {self}")

    def __str__(self) -> str:
        settings = "".join(f", {key}={value}" for key, value in sorted(self.config.items()))
        return f"{self.partitions} partition(s), replication {self.replication}{settings}"


@dataclass(frozen=True, slots=True)
class TopicChange:
    """What is not as wanted: missing (only in a plan), created by `apply`, or different and left so."""

    topic: str
    kind: Literal["missing", "created", "differs"]
    detail: str


def plan(
    admin_conf: Mapping[str, Any], specs: Sequence[TopicSpec], timeout_s: float = ANSWER_TIMEOUT_S
) -> list[TopicChange]:
    """What `apply` would create and what it would report, in the order of `specs`; changes nothing.

    Raises RetriableError when no broker answers, ConfigError when the broker refuses the client or a setting.
    """
    with admin_client(admin_conf, timeout_s) as admin:
        return _compare(admin, specs, timeout_s)


def apply(
    admin_conf: Mapping[str, Any], specs: Sequence[TopicSpec], timeout_s: float = ANSWER_TIMEOUT_S
) -> list[TopicChange]:
    """Creates what is missing and returns that and what differs, in the order of `specs`.

    Several workers may do this at once: a topic is "created" for one of them. Raises as `plan` does;
    ConfigError names every topic that the broker refused, and the others exist then.
    """
    with admin_client(admin_conf, timeout_s) as admin:
        missing = {change.topic for change in _compare(admin, specs, timeout_s) if change.kind == "missing"}
        created = _create(admin, [spec for spec in specs if spec.name in missing], timeout_s)
        _await_ready(admin, missing, timeout_s)
        others = _compare(admin, [spec for spec in specs if spec.name not in created], timeout_s)
    for change in others:
        if change.kind == "missing":
            raise RetriableError(f"topic {change.topic!r} exists, but is not ready yet: try again")
    changes = {change.topic: change for change in others}
    changes |= {spec.name: TopicChange(spec.name, "created", str(spec)) for spec in specs if spec.name in created}
    return [changes[spec.name] for spec in specs if spec.name in changes]


def delete(admin_conf: Mapping[str, Any], names: Sequence[str], timeout_s: float = ANSWER_TIMEOUT_S) -> None:
    """Deletes topics that a benchmark or a demo made for itself. Raises as `plan` does."""
    with admin_client(admin_conf, timeout_s) as admin:
        for answer in admin.delete_topics(list(names), operation_timeout=timeout_s).values():
            answer.result()


def kept_ms(conf: Mapping[str, Any], topic: str, timeout_s: float = ANSWER_TIMEOUT_S) -> int | None:
    """How long the topic keeps a record, by the record's own timestamp; None where that is no bound.

    Raises as `plan` does.
    """
    with admin_client(conf, timeout_s) as admin:
        config = _configs(admin, [topic], timeout_s)[topic]
    retention_ms = int(config["retention.ms"])
    bounded = retention_ms >= 0 and "delete" in config["cleanup.policy"]
    return retention_ms if bounded and config["message.timestamp.type"] == "CreateTime" else None


def cluster_identity(
    conf: Mapping[str, Any], topic: str, timeout_s: float = ANSWER_TIMEOUT_S
) -> tuple[str | None, str | None]:
    """The ids of the cluster and of the topic, which no other cluster and no re-created topic has.

    (None, None) on the embedded broker, which has none. Raises RetriableError when no broker answers,
    ConfigError when there is no such topic or the broker refuses the client.
    """
    with admin_client(conf, timeout_s) as admin:
        if str(admin.list_topics(timeout=timeout_s).cluster_id).startswith(_EMBEDDED_CLUSTER):
            return None, None
        cluster = admin.describe_cluster(request_timeout=timeout_s)
        described = admin.describe_topics(TopicCollection([topic]), request_timeout=timeout_s)[topic]
        try:
            return str(cluster.result().cluster_id), _url_safe(str(described.result().topic_id))
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise
            raise ConfigError(f"topic {topic!r} does not exist at {_bootstrap(conf)}") from error


def _compare(admin: Any, specs: Sequence[TopicSpec], timeout_s: float) -> list[TopicChange]:
    if not specs:
        return []
    found = admin.list_topics(timeout=timeout_s).topics
    configs = _configs(admin, [spec.name for spec in specs if spec.config and spec.name in found], timeout_s)
    changes = []
    for spec in specs:
        if spec.name not in found:
            changes.append(TopicChange(spec.name, "missing", str(spec)))
        elif differences := _differences(spec, found[spec.name], configs.get(spec.name, {})):
            changes.append(TopicChange(spec.name, "differs", "; ".join(differences)))
    return changes


def _differences(spec: TopicSpec, metadata: Any, config: Mapping[str, str]) -> list[str]:
    replicas = {len(partition.replicas) for partition in metadata.partitions.values()}
    pairs = [
        ("partitions", str(len(metadata.partitions)), str(spec.partitions)),
        ("replication", ", ".join(map(str, sorted(replicas))), str(spec.replication)),
        *((key, config.get(key, "unknown to the broker"), value) for key, value in sorted(spec.config.items())),
    ]
    return [f"{what}: {there}, wanted: {wanted}" for what, there, wanted in pairs if there != wanted]


def _configs(admin: Any, names: Sequence[str], timeout_s: float) -> dict[str, dict[str, str]]:
    if not names:
        return {}
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    answers = admin.describe_configs(resources, request_timeout=timeout_s)
    return {
        resource.name: {key: entry.value for key, entry in answer.result().items()}
        for resource, answer in answers.items()
    }


def _create(admin: Any, specs: Sequence[TopicSpec], timeout_s: float) -> set[str]:
    """The names of the topics that now exist through us. Waits for every answer before it raises."""
    if not specs:
        return set()
    wanted = [NewTopic(spec.name, spec.partitions, spec.replication, config=dict(spec.config)) for spec in specs]
    answers = admin.create_topics(wanted, operation_timeout=timeout_s, request_timeout=timeout_s)
    errors = {name: answer.exception() for name, answer in answers.items()}
    refused = []
    for name, error in errors.items():
        code = error.args[0].code() if isinstance(error, KafkaException) else None
        if error is None or code == KafkaError.TOPIC_ALREADY_EXISTS:
            continue
        if code is None or code in _NO_ANSWER:
            raise error
        refused.append(f"topic {name!r}: {error.args[0].str()}")
    if refused:
        raise ConfigError("the broker refused " + "; ".join(refused))
    return {name for name, error in errors.items() if error is None}


def _await_ready(admin: Any, names: set[str], timeout_s: float) -> None:
    """A broker confirms a topic some milliseconds before its metadata shows it and its partitions are led."""
    give_up_at = time.monotonic() + timeout_s
    while not _is_ready(admin, names, timeout_s):
        if time.monotonic() > give_up_at:
            raise RetriableError(f"created, but not ready after {timeout_s:g} s: {', '.join(sorted(names))}")


def _is_ready(admin: Any, names: set[str], timeout_s: float) -> bool:
    shown = admin.list_topics(timeout=timeout_s).topics
    if not names <= shown.keys():
        return False
    asked = {
        TopicPartition(name, partition): OffsetSpec.latest() for name in names for partition in shown[name].partitions
    }
    if not asked:
        return not names
    for answer in admin.list_offsets(asked, request_timeout=timeout_s).values():
        error = answer.exception()
        if isinstance(error, KafkaException) and error.args[0].code() in _NOT_LED:
            return False
        answer.result()
    return True


@contextmanager
def admin_client(conf: Mapping[str, Any], timeout_s: float) -> Iterator[Any]:
    """A client whose failures arrive as errors of ours, in one line, instead of on standard error."""
    reported: list[KafkaError] = []
    admin = None
    try:
        admin = AdminClient({"log_level": 2, **conf, "error_cb": reported.append})
        yield admin
    except KafkaException as error:
        if admin is not None:
            admin.poll(0)
        raise _translated(error.args[0], reported, _bootstrap(conf), timeout_s) from error


def _translated(error: KafkaError, reported: Sequence[KafkaError], bootstrap: str, timeout_s: float) -> TidegateError:
    """Ours for `error`; `reported` is what the client met on its way there, such as a refused password."""
    if error.code() in _NO_ANSWER:
        for seen in reported:
            if seen.code() in (KafkaError._AUTHENTICATION, KafkaError._SSL):
                return ConfigError(f"Kafka at {bootstrap} refuses the client: {seen.str()}")
        why = f": {reported[0].str()}" if reported else ""
        return RetriableError(f"no Kafka broker answers at {bootstrap} within {timeout_s:g} s{why}")
    if error.retriable() or error.code() in _NOT_LED:
        return RetriableError(f"Kafka at {bootstrap} cannot answer now: {error.str()}")
    return ConfigError(f"Kafka at {bootstrap}: {error.str()}")


def _url_safe(identity: str) -> str:
    """A topic id as Kafka's own tools spell it; librdkafka has the other base64 alphabet."""
    return identity.translate(str.maketrans("+/", "-_"))


def _bootstrap(conf: Mapping[str, Any]) -> str:
    return str(conf.get("bootstrap.servers", "(no bootstrap.servers)"))
