"""A consumer's part in its group, as librdkafka's background thread plays it.

It heartbeats and rejoins by itself while its process runs, but hands out and takes back partitions only when the
application polls; until then it does not answer the next rebalance. `consumer_group_metadata()` and `memberid()` show
the background's view, which is ahead of the callbacks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from tests.sim.cluster import Cluster
from tests.sim.errors import RefusedError
from tests.sim.groups import Metadata, Partition
from tests.sim.process import Process

# (kind, partitions), kind being assign, revoke or lost
Event = tuple[str, list[Partition]]


class Membership:
    """One subscription of one consumer."""

    def __init__(self, cluster: Cluster, process: Process, group: str, topics: list[str], settings: dict[str, object]):
        self._cluster = cluster
        self._process = process
        self._group = cluster.group(group)
        self._session_s = int(str(settings.get("session.timeout.ms", 45_000))) / 1_000
        self._heartbeat_s = int(str(settings.get("heartbeat.interval.ms", 3_000))) / 1_000
        self._poll_max_s = int(str(settings.get("max.poll.interval.ms", 300_000))) / 1_000
        self.topics = topics
        self.name, self.generation = "", -1
        self.held: list[Partition] = []
        self.events: deque[Event] = deque()
        self.poll_exceeded = False
        self._rejoin_wanted, self._left, self._leave_wanted = False, False, False
        self._stopped_s = 0.0
        self._polled_s = cluster.clock.now_s
        process.on_kill.append(self._stop)
        process.on_pause.append(self._stop)
        process.on_resume.append(self._wake)
        cluster.when_down(process, self._watch_session)
        self._watch_polls()
        self._join()

    # --- what the consumer asks

    def metadata(self) -> Metadata:
        return Metadata(self._group.name, self.generation, self.name)

    def serve(self, callback: Callable[[str, list[Partition]], None]) -> None:
        """The application polls: partitions change hands, and what waited for it goes on."""
        self._polled_s = self._cluster.clock.now_s
        while self.events:
            kind, partitions = self.events.popleft()
            if kind == "assign":
                self.held += partitions
            else:
                self.held = [partition for partition in self.held if partition not in partitions]
            callback(kind, partitions)
        self._go_on()

    def unsubscribe(self) -> None:
        """Leaves, at the next poll where there is something to hand back."""
        self._leave_wanted = True
        if self.held:
            self.events.append(("revoke", list(self.held)))
        else:
            self._go_on()

    def close(self, callback: Callable[[str, list[Partition]], None]) -> None:
        """Leaves where it holds a partition. Without one it says nothing, and its session has to run out."""
        if self._left:
            return
        self._left = True
        if self.held:
            held, self.held = self.held, []
            callback("revoke", held)
            self._group.leave(self.name)
        else:
            self._group.silence(self.name)

    # --- what the group tells

    def owned(self) -> list[Partition]:
        return list(self.held)

    def rebalance_begins(self) -> None:
        if self._process.running and not self._left and self._group.expects(self.name):
            self._rejoin_wanted = True
            self._go_on()

    def joined(self, generation: int) -> None:
        self.generation = generation

    def assigned(self, partitions: list[Partition]) -> None:
        taken = [partition for partition in self.held if partition not in partitions]
        if taken:
            self.events.append(("revoke", taken))
            self._rejoin_wanted = True
        self.events.append(("assign", [partition for partition in partitions if partition not in self.held]))

    # --- the background

    def _join(self) -> None:
        if self._process.running and not self._left:
            if self._cluster.down:
                self._cluster.when_up(self._join)
            elif not self.name:
                self._rejoin_wanted = False
                self.name = self._group.join(self, self._session_s, self._heartbeat_s)

    def _go_on(self) -> None:
        """Answers the rebalance, joins anew or leaves, unless the application has yet to hear of something."""
        if self.events or self._left or not self._process.running:
            return
        if self._leave_wanted:
            self._left = True
            self._group.leave(self.name)
            self.name = ""
        elif self.poll_exceeded:
            return
        elif not self.name:
            self._join()
        elif self._rejoin_wanted:
            self._rejoin()

    def _rejoin(self) -> None:
        if self._cluster.down:
            self._cluster.when_up(self._go_on)
            return
        self._rejoin_wanted = False
        try:
            self._group.rejoin(self.name)
        except RefusedError:
            self._lose()

    def _lose(self) -> None:
        """The session is over: what was held is lost, and it joins as somebody new once the application knows."""
        self._cluster.note(f"{self._process.name} loses its session in {self._group.name}")
        self._group.silence(self.name)
        # The generation stays, so that a commit in between is refused: UNKNOWN_MEMBER_ID.
        self.name = ""
        # What was assigned and never handed out is nothing to take back.
        self.events.clear()
        if self.held:
            self.events.append(("lost", list(self.held)))
        self._go_on()

    def _stop(self) -> None:
        self._stopped_s = self._cluster.clock.now_s
        if not self._left:
            self._group.silence(self.name)

    def _wake(self) -> None:
        if self._left:
            return
        over = self._cluster.clock.now_s - self._stopped_s >= self._session_s
        if self.name and (over or not self._group.heard(self.name)):
            self._lose()
        else:
            self.rebalance_begins()
            self._go_on()

    def _watch_session(self) -> None:
        """An outage began: if it lasts, the client gives its session up by itself."""

        def over() -> None:
            if self._cluster.down and self.name and self._process.running and not self._left:
                self._lose()

        self._cluster.clock.after(self._session_s, over)

    def _watch_polls(self) -> None:
        """Whoever does not poll for long leaves the group."""
        due_s = self._polled_s + self._poll_max_s
        if self._left or not self._process.alive:
            return
        if self._cluster.clock.now_s < due_s or not self._process.running:
            delay_s = max(due_s - self._cluster.clock.now_s, self._heartbeat_s)
            self._cluster.clock.after(delay_s, self._watch_polls)
        elif not self.poll_exceeded and self.name:
            self.poll_exceeded = True
            self._group.leave(self.name)
            self._lose()
            self._cluster.clock.after(self._poll_max_s, self._watch_polls)
