"""Faust's Kafka transport, reading committed records only, and all of them.

Faust 0.15 reads uncommitted ones unless it writes in transactions itself, which counts wrong after a crash: it writes
state before it commits. There is no setting for it.

It also loses records whenever partitions are assigned anew, in three ways:

    fetched, not delivered    dropped, and read again from the committed offset; where nothing was committed yet, or the
                              flow stops midway, it goes on behind what it dropped
    fetched before a seek     delivered after it, and what lies between taken for read
    delivered, not processed  its queues are emptied when the tables are restored, although reading has gone on by then

And it falls behind with its commits where there are offsets without a record, such as the markers of transactions:

    each such gap             counts the record behind it, too, which ends what is committed at once: a gap a second
    behind the first record   0 is taken for no offset at all, and the gap waited for
"""

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable
from functools import cached_property
from typing import Any

import faust
from faust.transport.drivers import aiokafka
from mode.utils.queues import FlowControlEvent

READ_COMMITTED = "read_committed"


class _ConsumerThread(aiokafka.AIOKafkaConsumerThread):  # type: ignore[misc]
    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # Read by the client when it starts. Should another version keep it elsewhere, this fails rather than reads all.
        if consumer._isolation_level != READ_COMMITTED:
            consumer._isolation_level = READ_COMMITTED
        return consumer


class _Zero(int):
    """The offset 0, which is an offset like any other."""

    def __bool__(self) -> bool:
        return True


class _ReadOffsets(defaultdict[Any, int | None]):
    """Of each partition the offset that was read last; None where none was."""

    def __init__(self) -> None:
        super().__init__(lambda: None)

    def __setitem__(self, tp: Any, offset: int | None) -> None:
        super().__setitem__(tp, _Zero() if offset == 0 else offset)


class _Consumer(aiokafka.Consumer):  # type: ignore[misc]
    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._read_offset = _ReadOffsets()
        # How often all partitions were taken back to what is committed.
        self._seeks = 0
        # Of what was fetched last, the records of each partition that are not delivered.
        self._owed: Counter[Any] = Counter()

    def _new_consumer_thread(self) -> _ConsumerThread:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def perform_seek(self) -> None:
        """Before reading begins: to the committed offsets, and to the beginning where there are none."""
        self._seeks += 1
        await super().perform_seek()
        await self._begin([tp for tp in self._read() if not self._committed_offset.get(tp)])
        self._gap.clear()

    def _read(self) -> set[Any]:
        """The partitions that agents read."""
        return {tp for tp in self.assignment() if tp.topic not in self.app.tables.changelog_topics}

    async def _begin(self, places: Iterable[Any]) -> None:
        new = [aiokafka.TopicPartition(tp.topic, tp.partition) for tp in places]
        if new:
            await self._thread.seek_to_beginning(*new)

    async def _getmany(self, active_partitions: set[Any] | None, timeout: float) -> Any:
        records = await super()._getmany(active_partitions, timeout)
        self._owed = Counter({tp: len(of_partition) for tp, of_partition in (records or {}).items()})
        return records

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[Any, Any]]:
        """All records that are fetched, or else the partitions they are of are read again from what is committed."""
        seeks = self._seeks
        self._owed = Counter()
        async for tp, message in super().getmany(timeout):
            if self._seeks == seeks:
                yield tp, message
                self._owed[tp] -= 1
            if self._seeks != seeks:
                break
        await self._read_again({tp for tp, left in self._owed.items() if left or self._seeks != seeks})

    async def _read_again(self, places: set[Any]) -> None:
        committed = {tp: self._committed_offset.get(tp) for tp in places & self._read()}
        if not committed:
            return
        await self.seek_wait({tp: offset for tp, offset in committed.items() if offset})
        await self._begin([tp for tp, offset in committed.items() if not offset])
        for tp, offset in committed.items():
            self._read_offset[tp] = offset
            self._gap.pop(tp, None)

    async def _add_gap(self, tp: Any, offset_from: int, offset_to: int) -> None:
        """Between two records; `offset_to` is that of the latter."""
        await super()._add_gap(tp, offset_from, offset_to - 1)


class _Transport(aiokafka.Transport):  # type: ignore[misc]
    Consumer = _Consumer


class _FlowControl(FlowControlEvent):  # type: ignore[misc]
    def resume(self) -> None:
        """Empties the queues of what came before it was suspended, and never of what came since it was resumed."""
        if not self.is_active():
            super().resume()


class CommittedApp(faust.App):  # type: ignore[misc]
    """A Faust application whose agents see every committed record, and nothing of aborted transactions."""

    def _new_transport(self) -> _Transport:
        return _Transport(self.conf.broker_consumer, self)

    @cached_property
    def flow_control(self) -> _FlowControl:
        """What stops and starts the flow into all queues."""
        return _FlowControl()
