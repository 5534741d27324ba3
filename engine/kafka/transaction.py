"""Exactly once: outputs, their `progress` record and the input offsets in one transaction.

begin .. produce .. progress | flush .. offsets .. commit |         the state may reach the disk only after this line
                             |   on a thread              | meanwhile the next ones are decided, and held back

Whatever does not end well ends alike, but for one thing: an error leaves here, the caller drops everything that was not
committed, and `open` makes a new producer, whose `init_transactions` settles what the old one left open and fences it.
Only then the committed offsets say how it ended. So it need not be known why a commit got no answer. That covers what
the library cannot see (KIP-890): it sends EndTxn again when a connection breaks, and a delayed one may end the *next*
transaction of the same producer; so a commit during which its connection broke is in doubt, however well it ended
(docs/delivery-findings.md).

The one thing: whoever joins the group begins a new generation, and offsets that name the old one are refused. As long
as the lease stays, that says nothing against what was decided, so the transaction is aborted and written anew. A
deploy would otherwise interrupt the one that decides, for as long as a replay takes.

retriable   librdkafka says so: the same call again, until the transaction's time is over
generation  the offsets name an old one: the same transaction again
abort       before the commit was asked for: RetriableError; the next `open` aborts the transaction
doubt       while it was asked for: DoubtError; the next `open` settles it, one way or the other
fenced      another producer has our name: one of the two before; the next `open` fences it in turn
fatal       the broker refuses a message for good, or, as ConfigError, our name
"""

import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from engine.background import Background
from engine.closing import Closing
from engine.config import Config
from engine.crashpoints import reached
from engine.emit import Outputs
from engine.errors import ConfigError, RetriableError
from engine.kafka.client import (
    KAFKA,
    QUEUE_MESSAGES_MAX,
    TRANSACTION_TIMEOUT_MS,
    Clients,
    refused_settings,
    transaction_settings,
)
from engine.kafka.connection import Connection
from engine.kafka.lease import Lease
from engine.kafka.outbox import Held, Outbox
from engine.progress import Progress

_log = logging.getLogger("tidegate.kafka")

CALL_TIMEOUT_S = 5.0
CALLS_MAX = TRANSACTION_TIMEOUT_MS // 5_000
# How often the lease is looked at while a commit is waited for.
WAIT_S = 0.1
# How often a transaction is written, and how many outputs are kept for that: those of a longer one are not.
ATTEMPTS_MAX = 5
KEPT_MESSAGES_MAX = QUEUE_MESSAGES_MAX
# The transactional id may not be used at all.
FORBIDDEN = frozenset(
    {
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.INVALID_TRANSACTION_TIMEOUT,
        KafkaError._UNSUPPORTED_FEATURE,
    }
)


class DoubtError(RetriableError):
    """Whether a transaction was committed is not known until a new producer has settled it."""


class _GenerationError(Exception):
    """The offsets name a generation of the group that is over."""


@dataclass(slots=True)
class _Commit:
    """One that is under way, and how often it may be written anew."""

    progress: Progress
    left: int
    done: Future[None]


class ExactlyOnce(Closing):
    """The transactions of whoever holds the lease.

    While a commit is under way its thread alone uses the producer.
    """

    def __init__(
        self, config: Config, lease: Lease, clients: Clients = KAFKA, background: Executor | None = None
    ) -> None:
        """`background` is where commits wait for the broker."""
        self._config = config
        self._lease = lease
        self._clients = clients
        self._background = background or Background("commit")
        self._commit: _Commit | None = None
        self._producer: Any = None
        self._outbox: Outbox | None = None
        self._tenure = 0
        self._begun = False
        self._kept: list[Outputs] = []
        self._kept_messages = 0
        # Of the next transaction, which can begin once the one under way has ended.
        self._held = Held()
        self._connection = Connection()

    def open(self, tenure: int) -> None:
        """Settles what any predecessor left open; from then on the committed offsets stand still but for us.

        Raises LeaseLostError, before it touches the transactional id; RetriableError where nobody answers; ConfigError
        where the broker does not let us.
        """
        self.close()
        self._lease.prove(tenure)
        self._tenure = tenure
        self._forget()
        try:
            self._producer = self._clients.producer(
                transaction_settings(self._config) | {"logger": self._connection.logger}
            )
        except KafkaException as error:
            raise refused_settings(error) from error
        self._outbox = Outbox(self._config, self._producer, self._still_ours)
        try:
            self._connect()
            _again(self._producer.init_transactions, self._still_ours)
        except KafkaException as error:
            said = f"transactions cannot begin: {error.args[0].str()}"
            raise (ConfigError if error.args[0].code() in FORBIDDEN else RetriableError)(said) from error

    def _connect(self) -> None:
        """The library asks for the coordinator at once where it is connected, else only every half a second.

        The second answer comes over the connection that is used for that, the first over one that only made it known.
        """
        for _ in range(2):
            self._producer.list_topics(self._config.kafka.topics.progress, CALL_TIMEOUT_S)

    def _still_ours(self) -> None:
        self._lease.check(self._tenure)

    def produce(self, outputs: Outputs) -> None:
        """Queues everything a micro-batch puts out, or holds it back while a commit is under way; raises as `settled`.

        Waits while the queue is full, or too much is held.
        """
        if self._commit is not None and not self._held.has_room(outputs):
            self.settle()
        if self._commit is None:
            self._put(outputs)
        else:
            self._held.add(outputs)

    def _put(self, outputs: Outputs) -> None:
        self._opened().put(outputs)
        self._kept_messages += outputs.messages
        if self._kept_messages <= KEPT_MESSAGES_MAX:
            self._kept.append(outputs)
        else:
            self._kept.clear()

    def _opened(self) -> Outbox:
        assert self._outbox is not None, "not opened"
        if not self._begun:
            try:
                self._producer.begin_transaction()
            except KafkaException as error:
                raise RetriableError(f"no transaction can begin: {error.args[0].str()}") from error
            self._begun = True
        return self._outbox

    def begin_commit(self, progress: Progress) -> None:
        """Begins to make everything produced so far, and the offsets it came from, final."""
        assert self._commit is None, "a commit is under way"
        self._commit = self._attempt(progress, ATTEMPTS_MAX - 1)

    def _attempt(self, progress: Progress, left: int) -> _Commit:
        producer, outbox, connection = self._producer, self._opened(), self._connection
        outbox.put_progress(progress)
        offsets = [TopicPartition(progress.input, partition, at) for partition, at in progress.vector.items()]
        # Asked here, as only this thread may use the lease; the broker refuses it where it has become old meanwhile.
        metadata = self._lease.metadata(self._tenure)
        return _Commit(progress, left, self._background.submit(_end, producer, outbox, connection, offsets, metadata))

    def settled(self) -> bool:
        """Whether what was begun is final; then what was held back is queued. Raises as the module says."""
        while (commit := self._commit) is not None:
            if not commit.done.done():
                return False
            try:
                commit.done.result()
            except _GenerationError as error:
                if commit.left == 0 or self._kept_messages > KEPT_MESSAGES_MAX:
                    raise RetriableError(f"the transaction must be aborted: {error}") from error
                self._write_anew(self._opened())
                self._commit = self._attempt(commit.progress, commit.left - 1)
                continue
            held = self._held.take()
            self._forget()
            reached("committed")
            for outputs in held:
                self._put(outputs)
        return True

    def settle(self) -> None:
        """Waits until it is; LeaseLostError where there is no point in that."""
        while not self.settled():
            assert self._commit is not None
            with contextlib.suppress(TimeoutError):
                self._commit.done.exception(WAIT_S)
            self._still_ours()

    def _write_anew(self, outbox: Outbox) -> None:
        """Aborts the transaction, and queues its outputs in the next one. As long as the lease is held.

        Never asks twice, nor lets the library do so: an abort that is under way still would end the next transaction.
        """
        self._still_ours()
        broken = self._connection.broken
        try:
            self._producer.abort_transaction(CALL_TIMEOUT_S)
        except KafkaException as error:
            raise RetriableError(f"the transaction was not aborted: {error.args[0].str()}") from error
        outbox.serve()
        if self._connection.broken != broken:
            raise RetriableError("the transaction was not aborted for sure: a connection broke meanwhile")
        self._begun = False
        for outputs in self._kept:
            self._opened().put(outputs)
        _log.info("a transaction is written anew: another worker joined the group")

    def _forget(self) -> None:
        """What was written is final, or of another producer; what was held is the caller's."""
        self._commit, self._begun = None, False
        self._kept, self._kept_messages = [], 0
        self._held.take()

    def close(self) -> None:
        """Drops what was not committed. The transaction stays open, for whoever opens the next one.

        A commit that is under way is left to its thread: it ends well or is fenced, as `open` finds out.
        """
        if self._outbox is not None:
            self._outbox.close()
        self._outbox = None
        self._forget()


def _end(producer: Any, outbox: Outbox, connection: Connection, offsets: list[TopicPartition], metadata: Any) -> None:
    """Ends a transaction: on a thread, so it asks nothing of those who may have given it up meanwhile."""
    outbox.flush(waiting=_nobody_asks)
    reached("offsets")
    try:
        _again(lambda timeout_s: producer.send_offsets_to_transaction(offsets, metadata, timeout_s), _nobody_asks)
    except KafkaException as error:
        if error.args[0].code() == KafkaError.ILLEGAL_GENERATION:
            raise _GenerationError(error.args[0].str()) from error
        raise RetriableError(f"the transaction must be aborted: {error.args[0].str()}") from error
    reached("commit")
    broken = connection.broken
    try:
        # The library itself says when the transaction's time is over.
        producer.commit_transaction()
    except KafkaException as error:
        raise DoubtError(f"a commit is in doubt: {error.args[0].str()}") from error
    outbox.serve()
    if connection.broken != broken:
        raise DoubtError("a commit is in doubt: a connection broke meanwhile")


def _again(call: Callable[[float], object], waiting: Callable[[], object]) -> None:
    """Calls until it does not say that it may be called again."""
    for left in reversed(range(CALLS_MAX)):
        try:
            call(CALL_TIMEOUT_S)
        except KafkaException as error:
            if not error.args[0].retriable() or left == 0:
                raise
            waiting()
        else:
            return


def _nobody_asks() -> None:
    """What waits on a thread is not told to end: its time is limited."""
