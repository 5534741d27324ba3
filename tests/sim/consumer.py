"""A consumer of the simulated cluster, with the calls of `confluent_kafka.Consumer` that the engine makes."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, OFFSET_INVALID, KafkaError, Message, TopicPartition
from confluent_kafka.admin import ClusterMetadata, PartitionMetadata, TopicMetadata

from tests.sim.cluster import LATENCY_S, Cluster
from tests.sim.errors import NoAnswerError, RefusedError, error, raised, timed_out
from tests.sim.groups import Metadata, Partition
from tests.sim.log import Log, Stored
from tests.sim.membership import Membership
from tests.sim.process import Process

OUT_OF_RANGE_TEXT = (
    "fetch failed due to requested offset not available on the broker: Broker: Offset out of range (broker 1)"
)
NOT_STORED_TEXT = "no previously committed offset available: Local: No offset stored"
RebalanceCallback = Callable[["SimConsumer", list[TopicPartition]], None]


@dataclass
class Cursor:
    """Where the reading of one partition stands. `position` is a logical offset until the first fetch."""

    position: int
    eof_at: int = -1
    paused: bool = False
    stopped: bool = False
    # The high watermark, as the last fetch told it.
    end_known: int | None = None


class SimConsumer:
    """Either assigned by hand, or a member of its group by `subscribe`; offsets are committed only when asked to."""

    def __init__(self, cluster: Cluster, process: Process, settings: dict[str, Any]) -> None:
        self._cluster = cluster
        self._process = process
        self._settings = settings
        self._group = str(settings["group.id"])
        self._committed_only = settings.get("isolation.level", "read_committed") == "read_committed"
        self._membership: Membership | None = None
        self._callbacks: dict[str, RebalanceCallback | None] = {}
        self._cursors: dict[Partition, Cursor] = {}
        self._news: deque[Message] = deque()
        self._errors: deque[KafkaError] = deque()
        self._committed: deque[tuple[KafkaError | None, list[TopicPartition]]] = deque()
        self._turn = 0
        self._closed = False

    # --- which partitions

    def subscribe(
        self,
        topics: list[str],
        on_assign: RebalanceCallback | None = None,
        on_revoke: RebalanceCallback | None = None,
        on_lost: RebalanceCallback | None = None,
    ) -> None:
        self._check_open()
        strategy = self._settings.get("partition.assignment.strategy")
        assert strategy == "cooperative-sticky", "only the cooperative protocol is simulated"
        self._callbacks = {"assign": on_assign, "revoke": on_revoke, "lost": on_lost or on_revoke}
        with self._process.call("subscribe"):
            self._membership = Membership(self._cluster, self._process, self._group, topics, self._settings)

    def unsubscribe(self) -> None:
        self._check_open()
        with self._process.call("unsubscribe"):
            if self._membership is not None:
                self._membership.unsubscribe()

    def assign(self, partitions: list[TopicPartition]) -> None:
        self._check_open()
        with self._process.call(f"assign {_listed(partitions)}"):
            self._cursors = {}
            self.incremental_assign(partitions)

    def incremental_assign(self, partitions: list[TopicPartition]) -> None:
        self._cursors |= {(tp.topic, tp.partition): Cursor(tp.offset) for tp in partitions}

    def incremental_unassign(self, partitions: list[TopicPartition]) -> None:
        for tp in partitions:
            self._cursors.pop((tp.topic, tp.partition), None)

    def unassign(self) -> None:
        self._check_open()
        with self._process.call("unassign"):
            self._cursors = {}

    def assignment(self) -> list[TopicPartition]:
        self._check_open()
        return [TopicPartition(*partition) for partition in sorted(self._cursors)]

    def pause(self, partitions: list[TopicPartition]) -> None:
        self._check_open()
        for tp in partitions:
            self._cursors[tp.topic, tp.partition].paused = True

    def resume(self, partitions: list[TopicPartition]) -> None:
        self._check_open()
        for tp in partitions:
            self._cursors[tp.topic, tp.partition].paused = False

    def seek(self, partition: TopicPartition) -> None:
        self._check_open()
        self._cursors[partition.topic, partition.partition] = Cursor(partition.offset)

    def position(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        """The offset after the last record that was read; none before the first."""
        self._check_open()
        found = [self._cursors[tp.topic, tp.partition].position for tp in partitions]
        return [TopicPartition(tp.topic, tp.partition, at) for tp, at in zip(partitions, found, strict=True)]

    # --- reading

    def poll(self, timeout: float = -1) -> Message | None:
        messages = self.consume(1, timeout)
        return messages[0] if messages else None

    def consume(self, num_messages: int = 1, timeout: float = -1) -> list[Message]:
        """Up to so many messages; waits for them to the end of the timeout. News of partitions count as messages."""
        self._check_open()
        with self._process.call("consume"):
            until_s = self._cluster.deadline(timeout)
            found: list[Message] = []
            while True:
                self._serve()
                found += self._collect(num_messages - len(found))
                if len(found) >= num_messages or self._cluster.clock.now_s >= until_s:
                    break
                self._cluster.wait(self._process, until_s, self._has_something)
            read = "".join(f" {m.topic()}-{m.partition()}@{m.offset()}" for m in (found[:1] + found[-1:]))
            if found:
                self._cluster.note(f"{self._process.name} read {len(found)}{read}")
            return found

    def _serve(self) -> None:
        if self._membership is not None:
            if self._cluster.faults.hit("rebalance", f"{self._process.name} consume"):
                self._cluster.group(self._group).rebalance()
            exceeded = self._membership.poll_exceeded
            self._membership.poll_exceeded = False
            if exceeded:
                text = "Application maximum poll interval exceeded"
                self._news.append(Message(error=error(KafkaError._MAX_POLL_EXCEEDED, text)))
            self._membership.serve(self._on_rebalance)
        while self._errors:
            callback = self._settings.get("error_cb")
            reported = self._errors.popleft()
            if callback is not None:
                callback(reported)
        while self._committed:
            callback = self._settings.get("on_commit")
            answer = self._committed.popleft()
            if callback is not None:
                callback(*answer)

    def _on_rebalance(self, kind: str, partitions: list[Partition]) -> None:
        self._cluster.note(f"{self._process.name} {kind} {partitions}")
        tps = [TopicPartition(*partition) for partition in partitions]
        callback = self._callbacks[kind]
        if callback is not None:
            callback(self, tps)
        if kind == "assign":
            self.incremental_assign([tp for tp in tps if (tp.topic, tp.partition) not in self._cursors])
        else:
            self.incremental_unassign(tps)

    def _has_something(self) -> bool:
        """Whether the next `_collect` or `_serve` finds anything."""
        if self._news or self._errors or self._committed or (self._membership is not None and self._membership.events):
            return True
        return not self._cluster.down and any(self._is_due(at, cursor) for at, cursor in self._cursors.items())

    def _is_due(self, partition: Partition, cursor: Cursor) -> bool:
        if cursor.paused or cursor.stopped or not self._cluster.has(*partition):
            return False
        log = self._cluster.log(*partition)
        end = log.visible_end(committed_only=self._committed_only)
        if cursor.position < end or cursor.position > log.end:
            return True
        return self._wants_eof and cursor.position == end != cursor.eof_at

    @property
    def _wants_eof(self) -> bool:
        return bool(self._settings.get("enable.partition.eof", False))

    def _collect(self, room: int) -> list[Message]:
        """What there is now; partitions take turns, in portions of any size, as fetches would have them."""
        found: list[Message] = []
        while self._news and len(found) < room:
            found.append(self._news.popleft())
        if self._cluster.down or self._cluster.faults.hit("slow fetch", self._process.name):
            return found
        self._turn += 1
        partitions = sorted(self._cursors)
        while len(found) < room:
            due = [at for at in partitions if self._is_due(at, self._cursors[at])]
            if not due:
                break
            partition = due[self._turn % len(due)]
            self._turn += 1
            portion = self._cluster.faults.random.randint(1, room - len(found))
            found += self._fetch(partition, self._cursors[partition], portion)
        return found

    def _fetch(self, partition: Partition, cursor: Cursor, count: int) -> list[Message]:
        log = self._cluster.log(*partition)
        refused = self._resolve(partition, cursor, log)
        if refused is not None:
            return [refused]
        records, cursor.position = log.read(cursor.position, count, committed_only=self._committed_only)
        cursor.end_known = log.end
        found = [self._message(partition, record) for record in records]
        end = log.visible_end(committed_only=self._committed_only)
        if self._wants_eof and len(found) < count and cursor.position == end != cursor.eof_at:
            cursor.eof_at = cursor.position
            text = f"Fetch from broker 1 reached end of partition at offset {end} (HighwaterMark {log.end})"
            found.append(self._no_record(partition, end, error(KafkaError._PARTITION_EOF, text)))
        return found

    def _resolve(self, partition: Partition, cursor: Cursor, log: Log) -> Message | None:
        """Makes the position an offset that can be read, or the message that says that there is none."""
        at = cursor.position
        if at == OFFSET_BEGINNING:
            cursor.position = log.first
        elif at == OFFSET_END:
            cursor.position = log.visible_end(committed_only=self._committed_only)
        elif at < 0:
            stored = self._cluster.group(self._group).offsets.get(partition)
            if stored is None:
                return self._reset(partition, cursor, log, OFFSET_INVALID, NOT_STORED_TEXT)
            cursor.position = stored
        if not log.first <= cursor.position <= log.end:
            return self._reset(partition, cursor, log, at, OUT_OF_RANGE_TEXT)
        return None

    def _reset(self, partition: Partition, cursor: Cursor, log: Log, at: int, text: str) -> Message | None:
        policy = self._settings.get("auto.offset.reset", "latest")
        if policy == "error":
            cursor.stopped = True
            return self._no_record(partition, at, error(KafkaError._AUTO_OFFSET_RESET, text))
        cursor.position = log.first if policy in ("earliest", "beginning", "smallest") else log.stable
        return None

    def _message(self, partition: Partition, record: Stored) -> Message:
        topic, number = partition
        return Message(
            topic=topic,
            partition=number,
            offset=record.offset,
            key=record.key,
            value=record.value,
            headers=record.headers,
            timestamp=(1, record.timestamp_ms),
        )

    def _no_record(self, partition: Partition, offset: int, why: KafkaError) -> Message:
        return Message(topic=partition[0], partition=partition[1], offset=offset, error=why)

    # --- offsets

    def committed(self, partitions: list[TopicPartition], timeout: float = -1) -> list[TopicPartition]:
        """Waits, to the end of the timeout, while a transaction that is not settled holds one of these offsets."""
        self._check_open()
        asked = [(tp.topic, tp.partition) for tp in partitions]
        with self._process.call("committed"):
            until_s = self._cluster.deadline(timeout)
            group = self._cluster.group(self._group)
            if self._cluster.faults.hit("moved", f"{self._process.name} committed"):
                text = "Failed to get committed offsets: Broker: Not coordinator"
                raise raised(KafkaError.NOT_COORDINATOR, text)
            try:
                self._cluster.request(self._process, "OffsetFetch", until_s, lambda: None)
            except NoAnswerError:
                raise timed_out("committed offsets") from None
            if self._committed_only:
                self._cluster.wait(self._process, until_s, lambda: not group.unstable(asked))
                if group.unstable(asked):
                    raise timed_out("committed offsets")
            found = [group.offsets.get(partition, OFFSET_INVALID) for partition in asked]
            return [TopicPartition(*partition, offset) for partition, offset in zip(asked, found, strict=True)]

    def commit(
        self, message: None = None, offsets: list[TopicPartition] | None = None, asynchronous: bool = True
    ) -> list[TopicPartition] | None:
        """Without offsets, the positions. The synchronous one has no timeout: it waits for as long as nobody answers.

        The asynchronous one is answered to `on_commit`, in a later poll.
        """
        self._check_open()
        assert message is None, "commits of single messages are not simulated"
        named = offsets if offsets is not None else self.position(self.assignment())
        wanted = {(tp.topic, tp.partition): tp.offset for tp in named}
        with self._process.call(f"commit {_listed(named)}"):
            if asynchronous:
                metadata = self.consumer_group_metadata()
                self._cluster.clock.after(LATENCY_S, lambda: self._commit_later(wanted, metadata))
                return None
            try:
                self._cluster.request(
                    self._process,
                    "OffsetCommit",
                    math.inf,
                    lambda: self._arrive(wanted, self.consumer_group_metadata()),
                )
            except RefusedError as refused:
                raise raised(refused.code, f"Commit failed: {refused.text}") from None
            return [TopicPartition(*partition, offset) for partition, offset in wanted.items()]

    def _arrive(self, offsets: dict[Partition, int], metadata: Metadata) -> None:
        self._cluster.group(self._group).commit(offsets, metadata)

    def _commit_later(self, offsets: dict[Partition, int], metadata: Metadata) -> None:
        if self._cluster.down:
            self._cluster.when_up(lambda: self._commit_later(offsets, metadata))
            return
        why = None
        try:
            self._arrive(offsets, metadata)
        except RefusedError as refused:
            why = error(refused.code, refused.text)
        self._committed.append((why, [TopicPartition(*partition, offset) for partition, offset in offsets.items()]))

    def get_watermark_offsets(
        self, partition: TopicPartition, timeout: float = -1, cached: bool = False
    ) -> tuple[int, int]:
        """The first offset and the end; asked for, the end is the last stable offset, from the cache it is not."""
        self._check_open()
        at = (partition.topic, partition.partition)
        if cached:
            cursor = self._cursors.get(at)
            if cursor is None or cursor.end_known is None:
                return OFFSET_INVALID, OFFSET_INVALID
            return self._cluster.log(*at).first, cursor.end_known
        with self._process.call("get_watermark_offsets"):
            try:
                self._cluster.request(self._process, "ListOffsets", self._cluster.deadline(timeout), lambda: None)
            except NoAnswerError:
                raise timed_out("watermark offsets") from None
            if not self._cluster.has(*at):
                text = "Failed to get watermark offsets: Local: Unknown partition"
                raise raised(KafkaError._UNKNOWN_PARTITION, text)
            log = self._cluster.log(*at)
            return log.first, log.visible_end(committed_only=self._committed_only)

    def list_topics(self, topic: str | None = None, timeout: float = -1) -> ClusterMetadata:
        self._check_open()
        return list_topics(self._cluster, self._process, topic, timeout)

    # --- the group

    def consumer_group_metadata(self) -> Metadata:
        """As the background sees it at this moment; (-1, "") for whoever is no member."""
        self._check_open()
        return Metadata(self._group, -1, "") if self._membership is None else self._membership.metadata()

    def memberid(self) -> str | None:
        self._check_open()
        return self.consumer_group_metadata().member or None

    def close(self) -> None:
        if not self._closed:
            with self._process.call("close consumer"):
                if self._membership is not None:
                    self._membership.close(self._on_rebalance)
                self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("Consumer closed")


def list_topics(cluster: Cluster, process: Process, topic: str | None, timeout_s: float) -> ClusterMetadata:
    """Metadata of one topic, or of all; of an unknown one it says so inside."""
    with process.call("list_topics"):
        try:
            cluster.request(process, "Metadata", cluster.deadline(timeout_s), lambda: None)
        except NoAnswerError:
            raise timed_out("metadata") from None
        found = ClusterMetadata()
        found.cluster_id = cluster.cluster_id
        for name in [topic] if topic is not None else sorted(cluster.topics):
            found.topics[name] = _topic_metadata(cluster, name)
        return found


def _topic_metadata(cluster: Cluster, name: str) -> TopicMetadata:
    metadata = TopicMetadata()
    metadata.topic = name
    if name not in cluster.topics:
        metadata.error = error(KafkaError.UNKNOWN_TOPIC_OR_PART, "Broker: Unknown topic or partition")
    for partition in range(len(cluster.topics.get(name, []))):
        metadata.partitions[partition] = PartitionMetadata()
        metadata.partitions[partition].id = partition
    return metadata


def _listed(partitions: list[TopicPartition]) -> str:
    return ",".join(f"{tp.topic}-{tp.partition}@{tp.offset}" for tp in partitions)
