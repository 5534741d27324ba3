"""Exactly once: outputs, their `progress` record and the input offsets in one transaction.

begin .. produce .. progress .. flush .. offsets .. commit          the state may reach the disk only after this line

Whatever does not end well ends alike: an error leaves here, the caller drops everything that was not committed, and
`open` makes a new producer, whose `init_transactions` settles what the old one left open and fences it. Only then the
committed offsets say how it ended. So nothing is ever aborted by hand, and it need not be known why a commit got no
answer. That covers what the library cannot see (KIP-890): it sends EndTxn again when a connection breaks, and a
delayed one may end the *next* transaction of the same producer; so a commit during which its connection broke is in
doubt, however well it ended (docs/delivery-findings.md).

retriable   librdkafka says so: the same call again, until the transaction's time is over
abort       before the commit was asked for: RetriableError; the next `open` aborts the transaction
doubt       while it was asked for: DoubtError; the next `open` settles it, one way or the other
fenced      another producer has our name: one of the two before; the next `open` fences it in turn
fatal       the broker refuses a message for good, or, as ConfigError, our name
"""

from collections.abc import Callable
from types import TracebackType
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from engine.config import Config
from engine.crashpoints import reached
from engine.emit import Outputs
from engine.errors import ConfigError, RetriableError
from engine.kafka.client import (
    KAFKA,
    TRANSACTION_TIMEOUT_MS,
    Clients,
    refused_settings,
    transaction_settings,
)
from engine.kafka.connection import Connection
from engine.kafka.lease import Lease
from engine.kafka.outbox import Outbox
from engine.progress import Progress

CALL_TIMEOUT_S = 5.0
CALLS_MAX = TRANSACTION_TIMEOUT_MS // 5_000
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


class ExactlyOnce:
    """The transactions of whoever holds the lease."""

    def __init__(self, config: Config, lease: Lease, clients: Clients = KAFKA) -> None:
        self._config = config
        self._lease = lease
        self._clients = clients
        self._producer: Any = None
        self._outbox: Outbox | None = None
        self._tenure = 0
        self._begun = False
        self._connection = Connection()

    def open(self, tenure: int) -> None:
        """Settles what any predecessor left open; from then on the committed offsets stand still but for us.

        Raises LeaseLostError, before it touches the transactional id; RetriableError where nobody answers; ConfigError
        where the broker does not let us.
        """
        self.close()
        self._lease.prove(tenure)
        self._tenure, self._begun = tenure, False
        try:
            self._producer = self._clients.producer(
                transaction_settings(self._config) | {"logger": self._connection.logger}
            )
        except KafkaException as error:
            raise refused_settings(error) from error
        self._outbox = Outbox(self._config, self._producer, self._still_ours)
        try:
            self._again(self._producer.init_transactions)
        except KafkaException as error:
            said = f"transactions cannot begin: {error.args[0].str()}"
            raise (ConfigError if error.args[0].code() in FORBIDDEN else RetriableError)(said) from error

    def _still_ours(self) -> None:
        self._lease.check(self._tenure)

    def produce(self, outputs: Outputs) -> None:
        """Queues everything a micro-batch puts out; waits while the queue is full."""
        self._opened().put(outputs)

    def _opened(self) -> Outbox:
        assert self._outbox is not None, "not opened"
        if not self._begun:
            try:
                self._producer.begin_transaction()
            except KafkaException as error:
                raise RetriableError(f"no transaction can begin: {error.args[0].str()}") from error
            self._begun = True
        return self._outbox

    def commit(self, progress: Progress) -> None:
        """Makes everything produced so far, and the offsets it came from, final, or raises as the module says."""
        outbox = self._opened()
        outbox.put_progress(progress)
        outbox.flush()
        reached("offsets")
        offsets = [TopicPartition(progress.input, partition, at) for partition, at in progress.vector.items()]
        try:
            self._again(
                lambda timeout_s: self._producer.send_offsets_to_transaction(
                    offsets, self._lease.metadata(self._tenure), timeout_s
                )
            )
        except KafkaException as error:
            raise RetriableError(f"the transaction must be aborted: {error.args[0].str()}") from error
        reached("commit")
        broken = self._connection.broken
        try:
            # The library itself says when the transaction's time is over.
            self._producer.commit_transaction()
        except KafkaException as error:
            raise DoubtError(f"a commit is in doubt: {error.args[0].str()}") from error
        outbox.serve()
        if self._connection.broken != broken:
            raise DoubtError("a commit is in doubt: a connection broke meanwhile")
        self._begun = False
        reached("committed")

    def _again(self, call: Callable[[float], object]) -> None:
        """Calls until it does not say that it may be called again."""
        for left in reversed(range(CALLS_MAX)):
            try:
                call(CALL_TIMEOUT_S)
            except KafkaException as error:
                if not error.args[0].retriable() or left == 0:
                    raise
                self._still_ours()
            else:
                return

    def close(self) -> None:
        """Drops what was not committed. The transaction stays open, for whoever opens the next one."""
        if self._outbox is not None:
            self._outbox.close()
        self._outbox = None

    def __enter__(self) -> "ExactlyOnce":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
