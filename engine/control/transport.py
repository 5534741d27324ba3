"""Faust's Kafka transport, reading committed records only.

Faust 0.15 reads uncommitted ones unless it writes in transactions itself, which counts wrong after a crash: it writes
state before it commits. There is no setting for it.
"""

from typing import Any

import faust
from faust.transport.drivers import aiokafka

READ_COMMITTED = "read_committed"


class _ConsumerThread(aiokafka.AIOKafkaConsumerThread):  # type: ignore[misc]
    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # Read by the client when it starts. Should another version keep it elsewhere, this fails rather than reads all.
        if consumer._isolation_level != READ_COMMITTED:
            consumer._isolation_level = READ_COMMITTED
        return consumer


class _Consumer(aiokafka.Consumer):  # type: ignore[misc]
    def _new_consumer_thread(self) -> _ConsumerThread:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)


class _Transport(aiokafka.Transport):  # type: ignore[misc]
    Consumer = _Consumer


class CommittedApp(faust.App):  # type: ignore[misc]
    """A Faust application whose agents see nothing of aborted transactions."""

    def _new_transport(self) -> _Transport:
        return _Transport(self.conf.broker_consumer, self)
