"""The output side: how outputs and input offsets become final, which is done in one of two ways.

At least once: produce, flush until the broker has acknowledged everything, then commit the offsets. A crash in between
makes the same decisions again, with the same `decision_id`. Exactly once is in engine.kafka.transaction.
"""

from types import TracebackType
from typing import Protocol, Self

from confluent_kafka import KafkaException

from engine.config import Config
from engine.crashpoints import reached
from engine.emit import Outputs
from engine.kafka.client import KAFKA, Clients, producer_settings, refused_settings
from engine.kafka.lease import Lease
from engine.kafka.outbox import Outbox
from engine.kafka.transaction import ExactlyOnce
from engine.progress import Progress


class Delivery(Protocol):
    """What a worker needs of the output side. After any error but a fatal one: `open`, and see what is committed."""

    def open(self, tenure: int) -> None:
        """Begins anew, for whoever holds the lease."""

    def produce(self, outputs: Outputs) -> None:
        """Queues what a micro-batch puts out."""

    def commit(self, progress: Progress) -> None:
        """Makes it and its offsets final."""

    def close(self) -> None:
        """Drops what is not final."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class AtLeastOnce:
    """Produces outputs, and commits what they were made from once they are acknowledged."""

    def __init__(self, config: Config, lease: Lease, clients: Clients = KAFKA) -> None:
        self._config = config
        self._lease = lease
        self._clients = clients
        self._outbox: Outbox | None = None
        self._tenure = 0

    def open(self, tenure: int) -> None:
        """A new producer, with nothing queued; raises as `Lease.prove`, ConfigError where settings are refused."""
        self.close()
        self._lease.prove(tenure)
        self._tenure = tenure
        try:
            producer = self._clients.producer(producer_settings(self._config))
        except KafkaException as error:
            raise refused_settings(error) from error
        self._outbox = Outbox(self._config, producer, lambda: self._lease.check(tenure))

    def produce(self, outputs: Outputs) -> None:
        """Queues everything a micro-batch puts out; waits while the queue is full."""
        self._opened().put(outputs)

    def _opened(self) -> Outbox:
        assert self._outbox is not None, "not opened"
        return self._outbox

    def commit(self, progress: Progress) -> None:
        """Waits until the broker has everything, then commits the offsets; RetriableError where it has them or not.

        FatalError where a message is refused for good.
        """
        outbox = self._opened()
        outbox.put_progress(progress)
        outbox.flush()
        reached("commit")
        self._lease.commit(progress.vector, self._tenure)
        reached("committed")

    def close(self) -> None:
        """Drops what was not acknowledged; it will be decided again."""
        if self._outbox is not None:
            self._outbox.close()
        self._outbox = None

    def __enter__(self) -> "AtLeastOnce":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def delivery_of(config: Config, lease: Lease, clients: Clients = KAFKA) -> Delivery:
    """The configured guarantee."""
    if config.kafka.delivery == "exactly_once":
        return ExactlyOnce(config, lease, clients)
    return AtLeastOnce(config, lease, clients)
