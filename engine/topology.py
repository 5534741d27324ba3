"""Which topics a configuration needs, and how they should be."""

from engine.config import Config
from engine.kafka.topics import TopicSpec

# Read in one order by all: what was taken in which order, who owns the input, and commands.
ONE_PARTITION = 1
COMPACT = {"cleanup.policy": "compact"}


def wanted_topics(config: Config) -> list[TopicSpec]:
    """Input and outputs; decisions are partitioned as the input is, so that one client reads both alike."""
    kafka = config.kafka
    names = (kafka.input, kafka.topics.decisions, kafka.topics.alerts, kafka.topics.dead_letters)
    # A dead letter is as large as what was refused for its size.
    extra = {kafka.topics.dead_letters: {"max.message.bytes": str(4 * 1024 * 1024)}}
    specs = [TopicSpec(name, kafka.partitions, kafka.replication, extra.get(name, {})) for name in names]
    if config.models.challengers:
        specs.append(TopicSpec(kafka.topics.shadow_decisions, kafka.partitions, kafka.replication))
    if config.telemetry.enabled:
        # Few records, and every further partition is one more batch of each transaction (docs/telemetry.md).
        watched = (kafka.topics.decisions_sample, kafka.topics.telemetry)
        specs += [TopicSpec(name, ONE_PARTITION, kafka.replication) for name in watched]
    shared = (kafka.topics.progress, kafka.topics.lease)
    specs += [TopicSpec(name, ONE_PARTITION, kafka.replication) for name in shared]
    # Of each command, what was said last has to stay.
    return [*specs, TopicSpec(kafka.topics.control, ONE_PARTITION, kafka.replication, COMPACT)]


def control_topics(config: Config) -> list[TopicSpec]:
    """What the control plane reads and writes, besides topics of its own."""
    kafka, names = config.kafka, config.kafka.topics
    shared = [spec for spec in wanted_topics(config) if spec.name in (names.alerts, names.control)]
    narrow = (names.decisions_sample, names.telemetry, names.retrain_requests)
    return [
        *shared,
        *(TopicSpec(name, ONE_PARTITION, kafka.replication) for name in narrow),
        TopicSpec(names.labels, kafka.partitions, kafka.replication),
        # Of each case, how it stands has to stay.
        TopicSpec(names.cases, kafka.partitions, kafka.replication, COMPACT),
    ]
