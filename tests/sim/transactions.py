"""The transaction coordinator, as a client that speaks EndTxn v1 meets it (librdkafka 2.16 does).

    Empty --add--> Ongoing --end--> PrepareCommit --markers--> CompleteCommit --add--> Ongoing ...
                      |                                             |
                      +--init, time-out: epoch + 1--> PrepareAbort  +--init: epoch + 1--> Empty

EndTxn names a producer id and an epoch, but no transaction: whatever is Ongoing when it arrives is what it ends. Its
answer comes once the decision is written; the markers reach the partitions and the groups' offsets one by one after it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from confluent_kafka import KafkaError

from tests.sim.clock import Timer
from tests.sim.errors import RefusedError

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster

MARKER_S = 0.001
# What a transaction reaches: a partition, or the offsets of a group.
Place = tuple[str, int] | str
# The broker looks for transactions that are over their time this often.
TIMEOUT_SCAN_S = 10.0


@dataclass
class Transaction:
    """What the coordinator holds of one transactional id."""

    name: str
    writer: int
    timeout_s: float
    epoch: int = 0
    state: str = "Empty"
    partitions: set[tuple[str, int]] = field(default_factory=set)
    groups: set[str] = field(default_factory=set)
    timer: Timer | None = None

    @property
    def preparing(self) -> bool:
        return self.state.startswith("Prepare")


class Coordinator:
    """All transactional ids of the cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.transactions: dict[str, Transaction] = {}

    def init(self, name: str, timeout_s: float) -> tuple[int, int]:
        """A producer id and epoch that fence every earlier one.

        Refuses with CONCURRENT_TRANSACTIONS until the predecessor's transaction is settled; one that is open is
        aborted for it.
        """
        known = self.transactions.get(name)
        if known is None:
            known = self.transactions[name] = Transaction(name, 1_000 + len(self.transactions), timeout_s)
            return known.writer, known.epoch
        if known.state == "Ongoing":
            known.epoch += 1
            self._begin_end(known, commit=False)
        if known.preparing:
            raise RefusedError(KafkaError.CONCURRENT_TRANSACTIONS)
        known.epoch += 1
        known.state, known.timeout_s = "Empty", timeout_s
        return known.writer, known.epoch

    def add_partitions(self, name: str, writer: int, epoch: int, partitions: set[tuple[str, int]]) -> None:
        self._join(name, writer, epoch).partitions |= partitions

    def add_group(self, name: str, writer: int, epoch: int, group: str) -> None:
        self._join(name, writer, epoch).groups.add(group)

    def _join(self, name: str, writer: int, epoch: int) -> Transaction:
        """The transaction, which begins with what is added first."""
        known = self._checked(name, writer, epoch)
        if known.preparing:
            raise RefusedError(KafkaError.CONCURRENT_TRANSACTIONS)
        if known.state != "Ongoing":
            known.state = "Ongoing"
            overdue_s = known.timeout_s + self._cluster.faults.random.uniform(0, TIMEOUT_SCAN_S)
            known.timer = self._cluster.clock.after(overdue_s, lambda: self._time_out(known, epoch))
        return known

    def end(self, name: str, writer: int, epoch: int, *, commit: bool) -> None:
        """Ends whatever is ongoing. A repetition of the last end succeeds again; its contrary is INVALID_TXN_STATE."""
        known = self._checked(name, writer, epoch)
        wanted = "Commit" if commit else "Abort"
        if known.state == "Ongoing":
            self._begin_end(known, commit=commit)
        elif known.state == f"Prepare{wanted}":
            raise RefusedError(KafkaError.CONCURRENT_TRANSACTIONS)
        elif known.state != f"Complete{wanted}":
            raise RefusedError(KafkaError.INVALID_TXN_STATE)

    def check_produce(self, name: str, writer: int, epoch: int, partition: tuple[str, int]) -> None:
        """What the broker asks the coordinator before it takes a transactional record in (KIP-890, part 1)."""
        known = self.transactions[name]
        if writer == known.writer and epoch < known.epoch:
            raise RefusedError(KafkaError.INVALID_PRODUCER_EPOCH)
        if writer != known.writer or known.state != "Ongoing" or partition not in known.partitions:
            raise RefusedError(KafkaError.INVALID_TXN_STATE)

    def check_offsets(self, name: str, writer: int, epoch: int, group: str) -> None:
        """The same for offsets of a group."""
        known = self.transactions[name]
        if writer == known.writer and epoch < known.epoch:
            raise RefusedError(KafkaError.INVALID_PRODUCER_EPOCH)
        if writer != known.writer or known.state != "Ongoing" or group not in known.groups:
            raise RefusedError(KafkaError.INVALID_TXN_STATE)

    def _checked(self, name: str, writer: int, epoch: int) -> Transaction:
        known = self.transactions[name]
        if writer != known.writer:
            raise RefusedError(KafkaError.INVALID_PRODUCER_ID_MAPPING)
        if epoch != known.epoch:
            raise RefusedError(KafkaError.PRODUCER_FENCED)
        return known

    def _time_out(self, known: Transaction, epoch: int) -> None:
        if known.state == "Ongoing" and known.epoch == epoch:
            self._cluster.note(f"transaction {known.name} timed out")
            known.epoch += 1
            self._begin_end(known, commit=False)

    def _begin_end(self, known: Transaction, *, commit: bool) -> None:
        if known.timer is not None:
            known.timer.cancel()
        outcome = "Commit" if commit else "Abort"
        self._cluster.note(f"transaction {known.name} epoch {known.epoch} Prepare{outcome}")
        known.state = f"Prepare{outcome}"
        left: set[Place] = {*known.partitions, *known.groups}
        if not left:
            self._complete(known, outcome)
        for place in sorted(left, key=str):
            self._send_marker(known, place, left, outcome)

    def _send_marker(self, known: Transaction, place: Place, left: set[Place], outcome: str) -> None:
        """One marker arrives after its own delay, and while the broker is away not at all."""
        cluster, writer = self._cluster, known.writer
        slow = cluster.faults.hit("slow markers", f"{known.name} {outcome}")
        delay_s = cluster.faults.random.uniform(0, cluster.faults.late_s) if slow else MARKER_S

        def arrive() -> None:
            if cluster.down:
                cluster.when_up(lambda: cluster.clock.after(delay_s, arrive))
                return
            cluster.write_marker(place, writer, commit=outcome == "Commit")
            left.discard(place)
            if not left:
                self._complete(known, outcome)

        cluster.clock.after(delay_s, arrive)

    def _complete(self, known: Transaction, outcome: str) -> None:
        known.state = f"Complete{outcome}"
        known.partitions, known.groups = set(), set()
        self._cluster.note(f"transaction {known.name} Complete{outcome}")
