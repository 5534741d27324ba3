"""Bugs that somebody could make: the simulation must find each of them.

They are planted by replacing a function of the engine, so that they break as soon as what they replace is gone.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from confluent_kafka import KafkaException

import engine.active
import engine.follow
from engine.active import Loop
from engine.events import Batch
from engine.flusher import Flusher
from engine.follow import Follower
from engine.kafka.deliver import AtLeastOnce
from engine.kafka.journal import Journal
from engine.kafka.lease import Lease
from engine.kafka.outbox import Failure, Outbox
from engine.kafka.transaction import ExactlyOnce, _again
from engine.progress import Progress
from engine.reporter import Reporter
from engine.state.local import LocalState
from engine.worker import Worker
from tests.sim.producer import SimProducer

Patch = pytest.MonkeyPatch


def flush_before_commit(patch: Patch) -> None:
    """State goes to disk at the vector that is about to be committed."""
    commit = Loop.commit

    def early(loop: Loop, *, to_disk: bool = False) -> None:
        flusher, loop.committed = loop._stage.flusher, dict(loop.vector)
        flusher.whole(loop._position())
        commit(loop, to_disk=to_disk)

    patch.setattr(Loop, "commit", early)


def rewind_skipped(patch: Patch) -> None:
    """After an abort the state in memory is kept."""
    patch.setattr(LocalState, "reopened", lambda state: state)


def offset_one_too_small(patch: Patch) -> None:
    """What is committed is the last offset that was read."""
    next_offsets = engine.active.next_offsets
    patch.setattr(engine.active, "next_offsets", lambda records: {p: o - 1 for p, o in next_offsets(records).items()})


def offset_one_too_large(patch: Patch) -> None:
    """One record is passed over with each commit."""
    next_offsets = engine.active.next_offsets
    patch.setattr(engine.active, "next_offsets", lambda records: {p: o + 1 for p, o in next_offsets(records).items()})


def dedupe_missing(patch: Patch) -> None:
    """What was sent twice is decided twice, but for those who replay it."""
    process, accept = engine.active.Loop._decide, LocalState.accept
    deciding = []

    def decide(loop: Loop, records: Any) -> Any:
        deciding.append(True)
        try:
            return process(loop, records)
        finally:
            deciding.pop()

    def all_of_them(state: LocalState, batch: Batch) -> Batch:
        accepted = accept(state, batch)
        return batch if deciding else accepted

    patch.setattr(Loop, "_decide", decide)
    patch.setattr(LocalState, "accept", all_of_them)


def init_without_lease(patch: Patch) -> None:
    """Whoever was ever given the lease opens transactions without asking whether it still has it."""
    patch.setattr(Lease, "prove", lambda lease, tenure: None)
    patch.setattr(Lease, "check", lambda lease, tenure: lease.poll() and None)


def doubt_taken_for_commit(patch: Patch) -> None:
    """A commit without an answer counts as one that went well."""
    open_delivery = ExactlyOnce.open

    def opened(delivery: ExactlyOnce, tenure: int) -> None:
        open_delivery(delivery, tenure)
        commit = delivery._producer.commit_transaction

        def hopeful(*timeout: float) -> None:
            try:
                commit(*timeout)
            except KafkaException:
                return

        delivery._producer.commit_transaction = hopeful

    patch.setattr(ExactlyOnce, "open", opened)


def broken_connection_ignored(patch: Patch) -> None:
    """A commit during which the connection broke is taken for what the library says of it."""
    patch.setattr("engine.kafka.connection.BROKEN", re.compile("never said"))


def outputs_not_written_anew(patch: Patch) -> None:
    """A transaction that is begun again because others joined has the offsets, and not the outputs."""
    anew = ExactlyOnce._write_anew

    def empty(delivery: ExactlyOnce, outbox: Outbox) -> None:
        delivery._kept.clear()
        anew(delivery, outbox)

    patch.setattr(ExactlyOnce, "_write_anew", empty)


def held_outputs_lost(patch: Patch) -> None:
    """What is decided while a commit is under way is forgotten with what that commit was about."""
    for delivery in (ExactlyOnce, AtLeastOnce):
        forget_held(patch, delivery)


def forget_held(patch: Patch, delivery: Any) -> None:
    settled = delivery.settled

    def forgetful(delivery: Any) -> bool:
        delivery._held.take()
        return bool(settled(delivery))

    patch.setattr(delivery, "settled", forgetful)


def nothing_held_back(patch: Patch) -> None:
    """What is decided while a commit is under way goes into its transaction, whose offsets do not cover it."""
    patch.setattr(ExactlyOnce, "produce", ExactlyOnce._put)


def abort_asked_twice(patch: Patch) -> None:
    """A transaction is written anew after an abort that got no answer the first time. Found by a test of its own."""
    anew = ExactlyOnce._write_anew

    def stubborn(delivery: ExactlyOnce, outbox: Outbox) -> None:
        abort = delivery._producer.abort_transaction

        def until_it_is_answered(timeout_s: float) -> None:
            _again(abort, delivery._still_ours)

        delivery._producer.abort_transaction = until_it_is_answered
        try:
            anew(delivery, outbox)
        finally:
            delivery._producer.abort_transaction = abort

    patch.setattr(ExactlyOnce, "_write_anew", stubborn)


def replay_beyond_committed(patch: Patch) -> None:
    """A replay takes everything that has arrived."""
    drain = Follower._drain
    patch.setattr(Follower, "_drain", lambda follower, partition, to: drain(follower, partition, to + 3))


def replay_short_of_committed(patch: Patch) -> None:
    """A replay ends with the last whole run that it knows."""
    patch.setattr(Follower, "take_rest", lambda follower, committed: follower._runs.clear())


def unconfirmed_taken(patch: Patch) -> None:
    """At least once, a standby takes records whose offsets may never be committed."""
    init = Follower.__init__

    def trusting(follower: Follower, *arguments: Any, confirmed_by_next: bool, **others: Any) -> None:
        init(follower, *arguments, confirmed_by_next=False, **others)

    patch.setattr(Follower, "__init__", trusting)


def offsets_before_outputs(patch: Patch) -> None:
    """At least once, offsets are committed while outputs are under way."""
    patch.setattr(Outbox, "acknowledged", lambda outbox: True)


def part_of_a_batch_lost(patch: Patch) -> None:
    """What a full queue did not take is not sent again."""

    def send(outbox: Outbox, topic: str, messages: list[Any]) -> None:
        taken = messages[: max(1, len(messages) - 1)]
        outbox._producer.produce_batch(topic, taken, on_delivery=outbox._failure.note)

    patch.setattr(Outbox, "_send", send)


def progress_forgotten(patch: Patch) -> None:
    """Outputs and offsets are committed without their progress record."""
    put = Outbox.put_progress

    def sometimes(outbox: Outbox, progress: Progress) -> None:
        if progress.sequence % 3:
            put(outbox, progress)

    patch.setattr(Outbox, "put_progress", sometimes)


def runs_out_of_order(patch: Patch) -> None:
    """Runs are written by partition instead of in the order of acceptance."""
    patch.setattr(engine.active, "joined", sorted)


def samples_beside_the_transaction(patch: Patch) -> None:
    """Samples are sent by a producer of their own, as telemetry is."""

    def send(outbox: Outbox, topic: str, messages: list[Any]) -> None:
        if topic != "decisions-sample":
            send_all(outbox, topic, messages)
        elif messages:
            settings = outbox._producer._settings.copy()
            settings.pop("transactional.id")
            other = SimProducer(outbox._producer._cluster, outbox._producer._process, settings)
            other.produce_batch(topic, messages)
            other.flush()

    send_all = Outbox._send
    patch.setattr(Outbox, "_send", send)


def counted_before_committed(patch: Patch) -> None:
    """Telemetry counts what was decided, whatever becomes of it."""

    def take(reporter: Reporter) -> dict[Any, Any]:
        reporter.add(take_counted(reporter))
        return {}

    take_counted = Reporter.take
    patch.setattr(Reporter, "take", take)


def committed_read_before_settling(patch: Patch) -> None:
    """The offsets are read first, then the predecessor's transaction is settled."""
    open_delivery, committed = ExactlyOnce.open, Lease.committed
    known: dict[int, dict[int, int]] = {}

    def opened(delivery: ExactlyOnce, tenure: int) -> None:
        known[id(delivery._lease)] = committed(delivery._lease, [0, 1, 2])
        open_delivery(delivery, tenure)

    def remembered(lease: Lease, partitions: list[int]) -> dict[int, int]:
        return known.pop(id(lease), None) or committed(lease, partitions)

    patch.setattr(ExactlyOnce, "open", opened)
    patch.setattr(Lease, "committed", remembered)


def acknowledgements_ignored(patch: Patch) -> None:
    """Whether messages were delivered is not asked."""
    patch.setattr(Failure, "note", lambda failure, error, message: None)


def progress_offset_too_late(patch: Patch) -> None:
    """A state says that it is after a commit that came after it."""
    begin = Flusher.begin

    def late(flusher: Flusher, position: Any) -> None:
        begin(flusher, replace(position, commits=position.commits + 1, progress_offset=position.progress_offset + 2))

    patch.setattr(Flusher, "begin", late)


def progress_end_after_commit(patch: Patch) -> None:
    """The end of `progress` is looked up after a commit, when a successor may have gone on."""
    position = Loop._position

    def late(loop: Loop) -> Any:
        return replace(position(loop), progress_offset=loop._stage.journal.end())

    patch.setattr(Loop, "_position", late)


def new_tenure_on_old_state(patch: Patch) -> None:
    """A worker that lost the lease goes on where it was when it gets it again."""

    def keep(worker: Worker, error: Exception) -> None:
        loop, worker.loop = worker.loop, None
        if loop is not None:
            worker.follower.position = dict(loop.vector)

    patch.setattr(Worker, "_step_back", keep)


def journal_read_uncommitted(patch: Patch) -> None:
    """A standby follows transactions that are still open."""
    init = Journal.__init__

    def early(journal: Journal, config: Any, clients: Any) -> None:
        class Hasty:
            def consumer(self, settings: dict[str, Any]) -> Any:
                return clients.consumer(settings | {"isolation.level": "read_uncommitted"})

        init(journal, config, Hasty())  # type: ignore[arg-type]

    patch.setattr(Journal, "__init__", early)


@dataclass(frozen=True)
class Planted:
    """A bug, and what must go wrong more often than usual for it to show soon."""

    bug: Callable[[Patch], None]
    rates: dict[str, float] = field(default_factory=dict)


EXACTLY_ONCE = (
    Planted(flush_before_commit),
    Planted(rewind_skipped),
    Planted(offset_one_too_small),
    Planted(offset_one_too_large),
    Planted(dedupe_missing),
    Planted(init_without_lease),
    Planted(doubt_taken_for_commit, {"abortable": 0.2}),
    Planted(broken_connection_ignored, {"repeated request": 0.5}),
    Planted(outputs_not_written_anew, {"overtaken": 0.3}),
    Planted(held_outputs_lost, {"slow thread": 0.9}),
    Planted(nothing_held_back, {"slow thread": 0.9}),
    Planted(replay_beyond_committed),
    Planted(replay_short_of_committed),
    Planted(part_of_a_batch_lost),
    Planted(progress_forgotten),
    Planted(runs_out_of_order),
    Planted(committed_read_before_settling, {"slow markers": 1.0, "disconnect": 0.3}),
    Planted(progress_offset_too_late),
    Planted(new_tenure_on_old_state),
    Planted(journal_read_uncommitted),
    Planted(samples_beside_the_transaction),
    # Whoever crashes takes what was counted along, which hides that some of it was counted twice.
    Planted(counted_before_committed, {"abortable": 0.1, "crash": 0.0}),
)
AT_LEAST_ONCE = (
    Planted(flush_before_commit),
    Planted(rewind_skipped),
    Planted(offset_one_too_large),
    Planted(offsets_before_outputs),
    Planted(held_outputs_lost),
    Planted(unconfirmed_taken),
    Planted(acknowledgements_ignored, {"failed produce": 0.05}),
)
