"""Faust's Kafka transport, reading committed records only, and all of them.

Faust 0.15 reads uncommitted ones unless it writes in transactions itself, which counts wrong after a crash: it writes
state before it commits. There is no setting for it.

It also loses records whenever partitions are assigned anew, in two ways:

    fetched, not delivered    dropped, and read again from the committed offset; where nothing was committed yet, it
                              goes on behind what it dropped
    delivered, not processed  its queues are emptied when the tables are restored, although reading has gone on by then

And it falls behind with its commits where there are offsets without a record, such as the markers of transactions:

    each such gap             counts the record behind it, too, which ends what is committed at once: a gap a second
    behind the first record   0 is taken for no offset at all, and the gap waited for
"""

from collections import defaultdict
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

    def _new_consumer_thread(self) -> _ConsumerThread:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def perform_seek(self) -> None:
        """Before reading begins: to the committed offsets, and to the beginning where there are none."""
        await super().perform_seek()
        changelogs = self.app.tables.changelog_topics
        new = [
            aiokafka.TopicPartition(tp.topic, tp.partition)
            for tp in self.assignment()
            if tp.topic not in changelogs and not self._committed_offset.get(tp)
        ]
        if new:
            await self._thread.seek_to_beginning(*new)

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
