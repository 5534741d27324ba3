"""A consumer group at the broker: its offsets, and its members by the classic protocol.

    Empty --join--> Preparing --all members joined--> Completing --leader's assignment--> Stable
                        ^                                                                   |
                        +------------------ join, leave, session over ----------------------+

Which member gets a partition: the one that says it has it, as cooperative-sticky assigns, else whoever has the fewest.
What a group of several partitions would balance afterwards, it does not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from confluent_kafka import KafkaError

from tests.sim.clock import Timer
from tests.sim.errors import RefusedError

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster

SYNC_S = 0.005
Partition = tuple[str, int]


class Metadata(NamedTuple):
    """What `consumer_group_metadata()` returns: (-1, "") for a consumer that is not a member."""

    group: str
    generation: int
    member: str


class Client(Protocol):
    """A member's side of the protocol."""

    topics: list[str]

    def owned(self) -> list[Partition]:
        """What it says it has, when it joins."""

    def rebalance_begins(self) -> None:
        """Its heartbeat was answered with REBALANCE_IN_PROGRESS."""

    def joined(self, generation: int) -> None:
        """The group is complete, and the assignment under way."""

    def assigned(self, partitions: list[Partition]) -> None:
        """The assignment is here."""


@dataclass
class Member:
    name: str
    client: Client
    session_s: float
    heartbeat_s: float
    rejoined: bool = False
    silent: Timer | None = None


@dataclass
class Group:
    """One group. Offsets of open transactions are pending: per producer id, until its marker."""

    cluster: Cluster
    name: str
    generation: int = 0
    state: str = "Empty"
    members: dict[str, Member] = field(default_factory=dict)
    offsets: dict[Partition, int] = field(default_factory=dict)
    pending: dict[int, dict[Partition, int]] = field(default_factory=dict)

    # --- members

    def join(self, client: Client, session_s: float, heartbeat_s: float) -> str:
        """A new member, by the name that the broker gives it."""
        name = f"rdkafka-{self.cluster.faults.random.getrandbits(64):016x}"
        self.members[name] = Member(name, client, session_s, heartbeat_s)
        self.cluster.note(f"group {self.name} {name} joins")
        self._prepare()
        self.rejoin(name)
        return name

    def rejoin(self, name: str) -> None:
        """A member answers the rebalance. Refuses one that the group no longer knows."""
        if name not in self.members:
            raise RefusedError(KafkaError.UNKNOWN_MEMBER_ID)
        if self.state != "Preparing":
            self._prepare()
        self.members[name].rejoined = True
        self._complete_if_all_joined()

    def expects(self, name: str) -> bool:
        """Whether a rebalance waits for this member."""
        return self.state == "Preparing" and name in self.members and not self.members[name].rejoined

    def leave(self, name: str) -> None:
        if self.members.pop(name, None) is not None:
            self.cluster.note(f"group {self.name} {name} leaves")
            self._after_departure()

    def silence(self, name: str) -> None:
        """No more heartbeats: the session runs out, unless `heard` comes first. The last was a while ago."""
        member = self.members.get(name)
        if member is None or member.silent is not None:
            return
        since_s = self.cluster.faults.random.uniform(0, member.heartbeat_s)
        member.silent = self.cluster.clock.after(member.session_s - since_s, lambda: self._expire(member))

    def heard(self, name: str) -> bool:
        """A heartbeat; False where the group no longer knows the member."""
        member = self.members.get(name)
        if member is not None and member.silent is not None:
            member.silent.cancel()
            member.silent = None
        return member is not None

    def _expire(self, member: Member) -> None:
        if self.cluster.down:
            # A coordinator that starts anew gives every member a whole session.
            self.cluster.when_up(lambda: self.cluster.clock.after(member.session_s, lambda: self._expire(member)))
            return
        if member.silent is not None and self.members.pop(member.name, None) is not None:
            self.cluster.note(f"group {self.name} {member.name} expires")
            self._after_departure()

    def _after_departure(self) -> None:
        if self.state != "Preparing":
            self._prepare()
        self._complete_if_all_joined()

    def rebalance(self) -> None:
        """A rebalance for no reason that anybody sees."""
        if self.members:
            self._prepare()

    def _prepare(self) -> None:
        if self.state == "Preparing":
            return
        self.state = "Preparing"
        for member in self.members.values():
            member.rejoined = False
            delay_s = self.cluster.faults.random.uniform(0, member.heartbeat_s)
            self.cluster.clock.after(delay_s, member.client.rebalance_begins)

    def _complete_if_all_joined(self) -> None:
        if self.state != "Preparing" or not all(member.rejoined for member in self.members.values()):
            return
        self.generation += 1
        if not self.members:
            self.state = "Empty"
            return
        self.state = "Completing"
        generation = self.generation
        plan = self._assign()
        for member in self.members.values():
            member.client.joined(generation)
        self.cluster.clock.after(SYNC_S, lambda: self._sync(generation, plan))

    def _sync(self, generation: int, plan: dict[str, list[Partition]]) -> None:
        if self.state != "Completing" or self.generation != generation:
            return
        self.state = "Stable"
        self.cluster.note(f"group {self.name} generation {generation}")
        for name, partitions in plan.items():
            if name in self.members:
                self.members[name].client.assigned(partitions)

    def _assign(self) -> dict[str, list[Partition]]:
        plan: dict[str, list[Partition]] = {name: [] for name in self.members}
        taken: set[Partition] = set()
        for name, member in self.members.items():
            kept = [partition for partition in member.client.owned() if partition not in taken]
            plan[name] += kept
            taken.update(kept)
        topics = sorted({topic for member in self.members.values() for topic in member.client.topics})
        for topic in topics:
            for partition in range(len(self.cluster.topics.get(topic, []))):
                if (topic, partition) not in taken:
                    eager = [name for name, member in self.members.items() if topic in member.client.topics]
                    plan[min(eager, key=lambda name: (len(plan[name]), name))].append((topic, partition))
        return plan

    # --- offsets

    def commit(self, offsets: dict[Partition, int], metadata: Metadata) -> None:
        """A plain commit. Refuses whom the group does not know, and while the assignment is under way."""
        self._check_committer(metadata, transactional=False)
        self.offsets |= offsets

    def commit_pending(self, writer: int, offsets: dict[Partition, int], metadata: Metadata) -> None:
        """Offsets in a transaction, seen by nobody before its marker."""
        self._check_committer(metadata, transactional=True)
        self.pending.setdefault(writer, {}).update(offsets)

    def end_pending(self, writer: int, *, commit: bool) -> None:
        """The marker of a transaction."""
        offsets = self.pending.pop(writer, {})
        if commit:
            self.offsets |= offsets

    def unstable(self, partitions: list[Partition]) -> bool:
        """Whether a transaction that is open or being ended holds an offset of one of these."""
        return any(partition in offsets for offsets in self.pending.values() for partition in partitions)

    def _check_committer(self, metadata: Metadata, *, transactional: bool) -> None:
        """The broker's rule, `ClassicGroup.validateOffsetCommit`.

        A transaction whose metadata names neither a member nor a generation is taken in although the group has
        members: nothing fences it.
        """
        if metadata.generation < 0 and self.state == "Empty":
            return
        if metadata.generation >= 0 or metadata.member:
            if metadata.member not in self.members:
                raise RefusedError(KafkaError.UNKNOWN_MEMBER_ID)
            if metadata.generation != self.generation:
                raise RefusedError(KafkaError.ILLEGAL_GENERATION)
        elif not transactional:
            raise RefusedError(KafkaError.UNKNOWN_MEMBER_ID)
        if not transactional and self.state == "Completing":
            raise RefusedError(KafkaError.REBALANCE_IN_PROGRESS)
