"""Takes the input in the order that `progress` gives, output suppressed: the replay of a start, the life of a standby.

progress   | 0: 100-120 | 2: 7-9 | 0: 120-131 | ...
input 0    ......100 ======== 120 ===== 131 ........          a run is taken once all before it are, as far as
input 2    ...7 = 9 ..........................                its records have arrived

Nothing is taken that is not committed, so nothing is ever taken back. Exactly once, a record that can be read is
committed. At least once, it is as soon as the next one follows it, or the committed offsets say so. What was refused
when it was decided is left out, under whatever rules it is taken now.
"""

from collections import deque

import numpy as np

from engine.crashpoints import reached
from engine.errors import FatalError
from engine.events import Bool, Records, select
from engine.kafka.consume import Input
from engine.kafka.journal import Journal
from engine.pipeline import Pipeline
from engine.progress import Progress, Run, beginning, held

# Of a partition whose turn does not come, so many records are kept waiting.
WAITING_RECORDS_MAX = 20_000
FETCH_EVENTS = 8_192
NOTHING_YET = -1


class Follower:
    """The state's position in the input, and what is known of how it goes on."""

    def __init__(
        self,
        pipeline: Pipeline,
        source: Input,
        journal: Journal,
        *,
        confirmed_by_next: bool,
        batch_events_max: int,
    ) -> None:
        """`confirmed_by_next`: at least once, where the newest record may not be committed yet.

        `batch_events_max`: runs are short, and a batch costs as much as many events, so what is ready is taken
        together, but no more of it: between two batches whoever calls makes room for the next.
        """
        self._pipeline = pipeline
        self._source = source
        self._journal = journal
        self._confirmed_by_next = confirmed_by_next
        self._unconfirmed: list[Progress] = []
        self._runs: deque[Run] = deque()
        self._refused: dict[int, deque[tuple[int, int]]] = {}
        self._waiting: dict[int, deque[Records]] = {}
        self._ready: list[Records] = []
        self._batch_events_max = batch_events_max
        # How many more events fit into what is taken together.
        self._room = batch_events_max
        self._read: dict[int, int] = {}
        self.position: dict[int, int] = {}
        self.sequence = 0

    def start(self, position: dict[int, int], sequence: int, journal_offset: int) -> None:
        """Goes on from here: `position` of each partition, after the `sequence`-th commit."""
        self.position, self.sequence = dict(position), sequence
        self._unconfirmed, self._ready, self._room = [], [], self._batch_events_max
        self._runs.clear()
        self._refused.clear()
        self._journal.start(journal_offset)
        self._assign()

    def _assign(self) -> None:
        self._waiting = {partition: deque() for partition in self.position}
        self._read = dict(self.position)
        self._source.start(self.position)

    @property
    def remaining(self) -> int:
        """Events, or a few more, that are known to be committed and not taken yet."""
        return sum(max(0, to - max(start, self.position.get(p, 0))) for p, start, to in self._runs)

    @property
    def settled(self) -> bool:
        """Whether everything that was heard of is taken."""
        return not self._runs and not self._unconfirmed

    def hear(self, timeout_s: float) -> None:
        """Reads on in `progress`."""
        self._note(self._journal.poll(timeout_s))

    def hear_to(self, end: int) -> None:
        """Reads on in `progress` up to an offset; RetriableError where that does not come."""
        self._note(self._journal.read_to(end))

    def _note(self, records: list[Progress]) -> None:
        for record in records:
            if record.sequence <= self.sequence:
                continue  # taken before this start
            if not self._confirmed_by_next:
                self._confirm(record)
                continue
            if self._unconfirmed and record.sequence > self._unconfirmed[-1].sequence:
                self._confirm(held(self._unconfirmed, beginning(record)))
                self._unconfirmed = []
            self._unconfirmed.append(record)

    def _confirm(self, record: Progress) -> None:
        if record.sequence != self.sequence + 1 and self.sequence:
            raise FatalError(
                f"commit {self.sequence} is followed by commit {record.sequence} in the progress topic: "
                f"records are missing, or two applications have the same application_id"
            )
        self.sequence = record.sequence
        self._runs.extend(record.runs)
        for partition, start, to in record.refused:
            self._refused.setdefault(partition, deque()).append((start, to))
        # A partition that the topic has got since was read from its beginning.
        self._add({p: start for p, start in beginning(record).items() if p not in self.position})

    def _add(self, position: dict[int, int]) -> None:
        """Goes on with more partitions."""
        if position:
            self._take_ready()
            self.position |= position
            self._assign()

    def take(self, timeout_s: float) -> int:
        """Takes a batch of what is committed and has arrived; waits for so long at most. Returns how many."""
        before = self._pipeline.metrics.replayed_events
        self._drain_runs()
        if self._runs and self._room:
            self._fetch(timeout_s)
            self._drain_runs()
        self._take_ready()
        return self._pipeline.metrics.replayed_events - before

    def take_rest(self, committed: dict[int, int]) -> None:
        """Adds, in the order of partitions, what the committed offsets hold beyond `progress`.

        Of records that retention took or that were never written: the state is the same, whatever the order.
        FatalError where more was taken than is committed.
        """
        if done := [r for r in self._unconfirmed if all(committed.get(p, 0) >= v for p, v in r.vector.items())]:
            self._confirm(held(done, committed))
        self._unconfirmed = []
        # Nothing was ever taken of a partition that no record names.
        self._add({p: offset for p, offset in committed.items() if p not in self.position})
        ends = dict(self.position)
        for partition, _, to in self._runs:
            ends[partition] = max(ends[partition], to)
        for partition, offset in sorted(committed.items()):
            if ends[partition] > offset:
                raise FatalError(
                    f"partition {partition}: the progress topic goes on to offset {ends[partition]}, but {offset} is "
                    f"committed; were offsets reset? Set them to what it says, or use another application_id"
                )
            if ends[partition] < offset:
                self._runs.append((partition, ends[partition], offset))

    def _fetch(self, timeout_s: float) -> None:
        partition = self._runs[0][0]
        full = {p for p, waiting in self._waiting.items() if sum(map(len, waiting)) > WAITING_RECORDS_MAX}
        self._source.pause(full - {partition})
        records = self._source.poll(FETCH_EVENTS, timeout_s)
        if records is None:
            return
        for found in np.unique(records.partitions).tolist():
            part = select(records, records.partitions == found)
            self._waiting[found].append(part)
            self._read[found] = int(part.offsets[-1]) + 1

    def _drain_runs(self) -> None:
        while self._runs and self._room:
            partition, _, to = self._runs[0]
            self._drain(partition, to)
            if not self._room:
                return
            arrived = max(self._read[partition], self._source.ends.get(partition, NOTHING_YET))
            # Markers of the input's own transactions take up offsets too.
            if self.position[partition] < to and arrived < to:
                return
            self.position[partition] = max(self.position[partition], to)
            self._runs.popleft()

    def _drain(self, partition: int, to: int) -> None:
        """Moves what has arrived of a partition, up to an offset, to what is ready."""
        waiting = self._waiting[partition]
        while waiting and waiting[0].offsets[0] < to and self._room:
            records = waiting.popleft()
            before = records.offsets < to
            before[self._room :] = False
            if not before.all():
                waiting.appendleft(select(records, ~before))
                records = select(records, before)
            records = select(records, records.offsets >= self.position[partition])
            if len(records):
                self.position[partition] = int(records.offsets[-1]) + 1
                self._ready.append(records)
                self._room -= len(records)

    def _take_ready(self) -> None:
        if not self._ready:
            return
        records = Records.joined(self._ready)
        self._ready, self._room = [], self._batch_events_max
        accepted = select(records, ~self._were_refused(records))
        if len(accepted):
            self._pipeline.absorb(accepted)
        self._pipeline.metrics.replayed_events += len(records)
        reached("followed")

    def _were_refused(self, records: Records) -> Bool:
        """Which records became dead letters when they were decided; forgets what was said of them and those before."""
        refused = np.zeros(len(records), np.bool_)
        for partition, runs in self._refused.items():
            rows = np.flatnonzero(records.partitions == partition)
            if not len(rows):
                continue
            offsets = records.offsets[rows]
            passed = [run for run in runs if run[0] <= offsets[-1]]
            for start, to in passed:
                refused[rows[np.searchsorted(offsets, start) : np.searchsorted(offsets, to)]] = True
            while runs and runs[0][1] <= offsets[-1] + 1:
                runs.popleft()
        return refused
