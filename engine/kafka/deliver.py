"""The output side: how outputs and input offsets become final, which is done in one of two ways.

At least once: produce; once the broker has acknowledged everything, commit the offsets. A crash in between makes the
same decisions again, with the same `decision_id`. Nothing waits for either: what is decided until everything is
acknowledged is held back, so that nothing is queued of which it would have to be told apart.

queued      outputs 1, progress 1 |                            | outputs 2 ............... progress 2 |
held back                         | the first of outputs 2     |                                      | ...
heard                             | .. all of 1 acknowledged   |
offsets                                                        | of 1 sent .. answered

Exactly once is in engine.kafka.transaction.
"""

from concurrent.futures import Executor
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from confluent_kafka import KafkaException

from engine.closing import Closing
from engine.config import Config
from engine.crashpoints import reached
from engine.emit import Outputs
from engine.kafka.client import KAFKA, Clients, producer_settings, refused_settings
from engine.kafka.lease import Lease
from engine.kafka.outbox import Held, Outbox
from engine.kafka.transaction import ExactlyOnce
from engine.progress import Progress


class Delivery(Protocol):
    """What a worker needs of the output side. After any error but a fatal one: `open`, and see what is committed."""

    def open(self, tenure: int) -> None:
        """Begins anew, for whoever holds the lease."""

    def produce(self, outputs: Outputs) -> None:
        """Queues what a micro-batch puts out."""

    def begin_commit(self, progress: Progress) -> None:
        """Begins to make it and its offsets final; nothing that was begun before may be under way."""

    def settled(self) -> bool:
        """Whether what was begun is final; does not wait."""

    def settle(self) -> None:
        """Waits until it is."""

    def close(self) -> None:
        """Drops what is not final."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@dataclass(slots=True)
class _Commit:
    """One that is under way; `asked`: everything is acknowledged, and the offsets are sent."""

    vector: dict[int, int]
    asked: bool = False


class AtLeastOnce(Closing):
    """Produces outputs, and commits what they were made from once they are acknowledged."""

    def __init__(self, config: Config, lease: Lease, clients: Clients = KAFKA) -> None:
        self._config = config
        self._lease = lease
        self._clients = clients
        self._outbox: Outbox | None = None
        self._tenure = 0
        self._commit: _Commit | None = None
        self._held = Held()

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
        """Queues everything a micro-batch puts out, or holds it back while a commit waits for what came before.

        Waits while the queue is full, or too much is held; raises as `settled`.
        """
        if self._waits_for_outputs() and not self._held.has_room(outputs):
            self.settle()
        if self._waits_for_outputs():
            self._held.add(outputs)
        else:
            self._opened().put(outputs)

    def _waits_for_outputs(self) -> bool:
        return self._commit is not None and not self._commit.asked

    def _opened(self) -> Outbox:
        assert self._outbox is not None, "not opened"
        return self._outbox

    def begin_commit(self, progress: Progress) -> None:
        """Queues the progress record, after which what is produced is another commit's."""
        assert self._commit is None, "a commit is under way"
        self._opened().put_progress(progress)
        self._commit = _Commit(progress.vector)

    def settled(self) -> bool:
        """Takes the next step, if it can be taken. Whatever it raises, the offsets may be committed or not.

        RetriableError where the broker does not have something, FatalError where it never will.
        """
        commit = self._commit
        if commit is None:
            return True
        if commit.asked:
            self._opened().serve()
        elif self._opened().acknowledged():
            self._ask(commit)
        if not commit.asked or not self._lease.has_committed(commit.vector, self._tenure):
            return False
        self._note_committed()
        return True

    def _ask(self, commit: _Commit) -> None:
        """Sends the offsets, and queues what was held back."""
        reached("commit")
        self._lease.begin_commit(commit.vector, self._tenure)
        commit.asked = True
        for outputs in self._held.take():
            self._opened().put(outputs)

    def settle(self) -> None:
        """Waits until the broker has everything, then for the answer to the offsets; raises as `settled`."""
        commit = self._commit
        if commit is None:
            return
        if not commit.asked:
            self._opened().flush()
            self._ask(commit)
        self._lease.await_commit(commit.vector, self._tenure)
        self._note_committed()

    def _note_committed(self) -> None:
        reached("committed")
        self._commit = None

    def close(self) -> None:
        """Drops what was not acknowledged; it will be decided again."""
        if self._outbox is not None:
            self._outbox.close()
        self._outbox = self._commit = None
        self._held.take()


def delivery_of(config: Config, lease: Lease, clients: Clients = KAFKA, background: Executor | None = None) -> Delivery:
    """The configured guarantee; `background` is where transactions wait for the broker."""
    if config.kafka.delivery == "exactly_once":
        return ExactlyOnce(config, lease, clients, background)
    return AtLeastOnce(config, lease, clients)
