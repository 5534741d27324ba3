"""A producer of the simulated cluster: its queue, and what happens to what is in it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from confluent_kafka import OFFSET_INVALID, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import ClusterMetadata

from tests.sim.cluster import Cluster
from tests.sim.consumer import list_topics
from tests.sim.errors import BROKER_TEXTS, NoAnswerError, RefusedError, error, raised
from tests.sim.groups import Metadata, Partition
from tests.sim.log import Stored
from tests.sim.process import Process
from tests.sim.session import TransactionSession

MESSAGE_BYTES_MAX = 1_000_000
Report = Callable[[KafkaError | None, Message], None]


@dataclass
class Queued:
    """One message on its way. `offset` is set once the broker has it; the acknowledgement may still be missing."""

    partition: Partition
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]] | None
    on_delivery: Report | None
    queued_s: float
    offset: int | None = None

    def message(self, why: KafkaError | None) -> Message:
        topic, partition = self.partition
        at = OFFSET_INVALID if self.offset is None else self.offset
        return Message(topic=topic, partition=partition, offset=at, key=self.key, value=self.value, error=why)


class SimProducer:
    """Idempotent: what was taken in is never taken in again, and what follows a message stays behind it.

    The queue moves only inside of calls. Where the process ends, some of it may have been sent all the same.
    """

    def __init__(self, cluster: Cluster, process: Process, settings: dict[str, Any]) -> None:
        self._cluster = cluster
        self._process = process
        self._settings = settings
        self._queue: list[Queued] = []
        self._reports: deque[tuple[Report, KafkaError | None, Message]] = deque()
        self._errors: deque[KafkaError] = deque()
        self._produced = 0
        self._held_until_s = 0.0
        self._messages_max = int(settings.get("queue.buffering.max.messages", 100_000))
        self._bytes_max = int(settings.get("message.max.bytes", MESSAGE_BYTES_MAX))
        # 0: it never ends.
        self._timeout_s = int(settings.get("message.timeout.ms", 300_000)) / 1_000 or math.inf
        name = settings.get("transactional.id")
        self._session = None if name is None else TransactionSession(cluster, process, str(name), settings)
        if self._session is not None:
            self._timeout_s = min(self._timeout_s, self._session.timeout_s)
        process.on_kill.append(self._leave_behind)
        cluster.when_down(process, self._report_disconnect)

    # --- producing

    def __len__(self) -> int:
        """Messages that are on their way, and reports that wait for a poll."""
        return len(self._queue) + len(self._reports)

    def produce(
        self,
        topic: str,
        value: bytes | None = None,
        key: bytes | None = None,
        partition: int = -1,
        on_delivery: Report | None = None,
        timestamp: int = 0,
        headers: list[tuple[str, bytes]] | None = None,
    ) -> None:
        """Queues one message. Raises BufferError where the queue is full."""
        self._process.step("produce")
        self._check_may_produce()
        refused = self._refusal(value)
        if refused == KafkaError._QUEUE_FULL:
            raise BufferError("Local: Queue full")
        if refused is not None:
            raise raised(refused, "Unable to produce message: Broker: Message size too large")
        self._enqueue(topic, value, key, partition, on_delivery, headers)

    def produce_batch(
        self, topic: str, messages: list[dict[str, Any]], partition: int = -1, on_delivery: Report | None = None
    ) -> int:
        """Queues as many as there is room for and says how many; the others get `_error`."""
        self._process.step(f"produce_batch {topic} {len(messages)}")
        self._check_may_produce()
        count = 0
        for message in messages:
            refused = self._refusal(message.get("value"))
            if refused is not None:
                text = "Local: Queue full" if refused == KafkaError._QUEUE_FULL else "Broker: Message size too large"
                message["_error"] = error(refused, f"Message failed: {text}")
                continue
            at = message.get("partition", partition)
            self._enqueue(topic, message.get("value"), message.get("key"), at, on_delivery, None)
            count += 1
        return count

    def _check_may_produce(self) -> None:
        if self._session is not None:
            self._session.check_may_produce()

    def _refusal(self, value: bytes | None) -> int | None:
        if value is not None and len(value) > self._bytes_max:
            return KafkaError.MSG_SIZE_TOO_LARGE
        return KafkaError._QUEUE_FULL if len(self._queue) >= self._messages_max else None

    def _enqueue(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        partition: int,
        on_delivery: Report | None,
        headers: list[tuple[str, bytes]] | None,
    ) -> None:
        if partition < 0 and topic in self._cluster.topics:
            partition = self._cluster.partition_of(topic, key, self._produced)
        self._produced += 1
        now_s = self._cluster.clock.now_s
        self._queue.append(Queued((topic, partition), key, value, headers, on_delivery, now_s))

    # --- sending

    def poll(self, timeout: float = -1) -> int:
        """Sends what is queued and calls back for what has arrived or failed; returns how many reports that were."""
        with self._process.call("poll producer"):
            until_s = self._cluster.clock.now_s + max(timeout, 0.0)
            self._send(until_s)
            if not self._reports and not self._errors and timeout > 0:
                self._cluster.wait(self._process, until_s)
                self._send(until_s)
            return self._serve()

    def flush(self, timeout: float = -1) -> int:
        """Sends, and waits; returns how many messages are left when the time is up."""
        with self._process.call("flush"):
            self._send_all(self._cluster.deadline(timeout))
            self._serve()
            return len(self)

    def purge(self, in_queue: bool = True, in_flight: bool = True, blocking: bool = True) -> None:
        """Drops what is on its way; what has arrived already stays where it is."""
        self._process.step("purge")
        for queued in self._queue:
            self._report(queued, error(KafkaError._PURGE_QUEUE, "Local: Purged in queue"))
        self._queue = []

    def list_topics(self, topic: str | None = None, timeout: float = -1) -> ClusterMetadata:
        return list_topics(self._cluster, self._process, topic, timeout)

    def _send_all(self, until_s: float) -> None:
        while self._queue:
            self._send(until_s)
            if not self._queue or self._cluster.clock.now_s >= until_s:
                return
            if self._session is not None and self._session.failed:
                return
            self._cluster.wait(self._process, min(until_s, max(self._held_until_s, self._cluster.clock.now_s + 0.1)))

    def _send(self, until_s: float) -> None:
        """Sends what may be sent, partition by partition; what got no answer stays for the next time."""
        self._expire()
        if not self._queue or self._cluster.clock.now_s < self._held_until_s:
            return
        if self._cluster.faults.hit("late produce", f"{self._process.name} Produce"):
            self._held_until_s = self._cluster.clock.now_s + self._cluster.faults.late_s
            return
        until_s = min(until_s, self._queue[0].queued_s + self._timeout_s)
        batches: dict[Partition, list[Queued]] = {}
        for queued in self._queue:
            batches.setdefault(queued.partition, []).append(queued)
        try:
            known = self._drop_unknown(batches)
            if self._session is not None:
                self._session.add_partitions(set(known), until_s)
            for partition, batch in known.items():
                self._send_batch(partition, batch, until_s)
        except NoAnswerError:
            self._expire()

    def _drop_unknown(self, batches: dict[Partition, list[Queued]]) -> dict[Partition, list[Queued]]:
        """Fails what goes to a partition that a topic does not have; an unknown topic may yet be created."""
        known = {}
        for partition, batch in batches.items():
            if self._cluster.has(*partition):
                known[partition] = batch
            elif partition[0] in self._cluster.topics:
                self._fail(batch, error(KafkaError._UNKNOWN_PARTITION, "Local: Unknown partition"))
        return known

    def _send_batch(self, partition: Partition, batch: list[Queued], until_s: float) -> None:
        step = f"Produce {partition[0]}-{partition[1]} {len(batch)}"
        if self._cluster.faults.hit("failed produce", f"{self._process.name} {step}"):
            self._time_out(batch[:1])
            batch = batch[1:]
        if not batch or (self._session is not None and self._session.failed):
            return
        try:
            self._cluster.request(self._process, step, until_s, lambda: self._arrive(partition, batch))
        except RefusedError as refused:
            self._fail(batch, error(refused.code, BROKER_TEXTS[refused.code]))
            if self._session is not None:
                self._session.produce_refused(partition, len(batch), refused)
        else:
            self._drop(batch)
            for queued in batch:
                self._report(queued, None)

    def _arrive(self, partition: Partition, batch: list[Queued]) -> None:
        """The broker takes in what it does not have yet."""
        log = self._cluster.log(*partition)
        writer = None
        if self._session is not None:
            writer = self._session.check_arrival(partition)
        for queued in batch:
            if queued.offset is None:
                now_ms = self._cluster.now_ms()
                queued.offset = log.append(Stored(0, queued.key, queued.value, queued.headers, now_ms, writer))

    def _expire(self) -> None:
        """What has waited for too long has failed; a transaction that loses a message so must be aborted."""
        over_s = self._cluster.clock.now_s - self._timeout_s
        expired = [queued for queued in self._queue if queued.queued_s <= over_s]
        if expired:
            self._time_out(expired)

    def _time_out(self, batch: list[Queued]) -> None:
        self._fail(batch, error(KafkaError._MSG_TIMED_OUT, "Local: Message timed out"))
        if self._session is not None:
            topic, partition = batch[0].partition
            text = f"{len(batch)} message(s) timed out on {topic} [{partition}]"
            self._session.must_abort(KafkaError._TIMED_OUT, text, epoch_bump=True)

    def _fail(self, batch: list[Queued], why: KafkaError) -> None:
        self._drop(batch)
        for queued in batch:
            self._report(queued, why)

    def _drop(self, batch: list[Queued]) -> None:
        gone = {id(queued) for queued in batch}
        self._queue = [queued for queued in self._queue if id(queued) not in gone]

    def _report(self, queued: Queued, why: KafkaError | None) -> None:
        errors_only = bool(self._settings.get("delivery.report.only.error", False))
        if queued.on_delivery is not None and not (errors_only and why is None):
            self._reports.append((queued.on_delivery, why, queued.message(why)))

    def _serve(self) -> int:
        """Calls back. A fatal error is raised here once, before any report, and reports then wait for the next poll."""
        if self._session is not None and (fatal := self._session.take_fatal()) is not None:
            if self._cluster.faults.hit("system error", self._process.name):
                raise SystemError("<class 'logging.LogRecord'> returned a result with an exception set")
            raise KafkaException(fatal)
        logger = self._settings.get("logger")
        while self._session is not None and self._session.log:
            line = self._session.log.popleft()
            if logger is not None:
                logger.info(line)
        while self._errors:
            callback = self._settings.get("error_cb")
            reported = self._errors.popleft()
            if callback is not None:
                callback(reported)
        count = 0
        while self._reports:
            report, why, message = self._reports.popleft()
            count += 1
            report(why, message)
        return count

    def _report_disconnect(self) -> None:
        self._errors.append(error(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))

    def _leave_behind(self) -> None:
        """The process was killed; the queue's beginning may have been sent by then."""
        sent = self._queue[: self._cluster.faults.random.randint(0, len(self._queue))] if self._queue else []
        for queued in sent:
            if self._cluster.down or not self._cluster.has(*queued.partition):
                return
            try:
                self._arrive(queued.partition, [queued])
            except RefusedError:
                return

    # --- transactions

    def init_transactions(self, timeout: float = -1) -> None:
        with self._process.call("init_transactions"):
            session = self._transactional()
            session.init(self._deadline(session, timeout))

    def begin_transaction(self) -> None:
        with self._process.call("begin_transaction"):
            self._transactional().begin()

    def send_offsets_to_transaction(
        self, positions: list[TopicPartition], group_metadata: Metadata, timeout: float = -1
    ) -> None:
        offsets = {(tp.topic, tp.partition): tp.offset for tp in positions}
        with self._process.call(f"send_offsets {sorted(offsets.items())}"):
            self._transactional().send_offsets(offsets, group_metadata, self._cluster.deadline(timeout))

    def commit_transaction(self, timeout: float = -1) -> None:
        """Sends what is queued, then ends the transaction."""
        with self._process.call("commit_transaction"):
            session = self._transactional()
            until_s = self._deadline(session, timeout)
            if session.begin_end("commit"):
                self._send_all(until_s)
                session.check_not_failed()
                if self._queue:
                    count = len(self._queue)
                    text = (
                        f"Failed to flush all outstanding messages within the API timeout: {count} message(s) remaining"
                    )
                    raise raised(KafkaError._TIMED_OUT, text, retriable=True)
                session.end(until_s, commit=True)

    def abort_transaction(self, timeout: float = -1) -> None:
        """Drops what is queued, then ends the transaction."""
        with self._process.call("abort_transaction"):
            session = self._transactional()
            until_s = self._deadline(session, timeout)
            if session.begin_end("abort"):
                self._fail(list(self._queue), error(KafkaError._PURGE_QUEUE, "Local: Purged in queue"))
                session.end(until_s, commit=False)

    def _deadline(self, session: TransactionSession, timeout: float) -> float:
        """Without a timeout a call takes as long as a transaction may."""
        return self._cluster.deadline(timeout if timeout >= 0 else session.timeout_s)

    def _transactional(self) -> TransactionSession:
        if self._session is None:
            text = "The Transactional API requires transactional.id to be configured"
            raise raised(KafkaError._NOT_CONFIGURED, text)
        return self._session
