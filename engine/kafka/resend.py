"""Sends dead letters again: the records and the marks that say so, in one transaction, or neither.

                                     this operator                       another one
    init_transactions                  ends what another one left open,    fenced: it can commit nothing any more
                                       and fences it
    catch up with the marks            sees all that it committed
    begin, records, marks, commit      as often as there are letters

The transactional id is that of the topic of letters, so that nobody can send letters of one topic beside another. While
a transaction is open no worker reads what stands behind it in the input: it is begun when everything that it will hold
is there, and a killed one is ended by the broker after seconds.
"""

import contextlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

from confluent_kafka import KafkaError, KafkaException, Message

from engine.config import Config
from engine.errors import FatalError, FencedError, RetriableError, TidegateError
from engine.kafka.client import KAFKA, Clients, refused_settings, transaction_settings
from engine.kafka.connection import Connection
from engine.letters import ATTEMPT, MARK_SCHEMA, REPLAYED_FROM, SCHEMA, Letter, Mark, Sent

INIT_TIMEOUT_S = 30.0
TRANSACTION_TIMEOUT_MS = 10_000
ANSWER_TIMEOUT_S = TRANSACTION_TIMEOUT_MS / 1_000
POLL_S = 0.1

_FENCED = (KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH)
_NO_ANSWER = (KafkaError._MSG_TIMED_OUT, KafkaError._TIMED_OUT, KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT)


class Resent(NamedTuple):
    """One letter on its way. `to_partition` -1: where its key belongs; `time_ms` 0: the time of sending."""

    letter: Letter
    key: bytes | None
    value: bytes | None
    to: str
    to_partition: int
    time_ms: int
    attempt: int


class Resender:
    """A transactional producer. Leaving the block aborts what is not committed."""

    def __init__(self, config: Config, clients: Clients = KAFKA) -> None:
        """Fences every other one. Raises RetriableError where the broker does not answer, ConfigError for settings."""
        self._letters_topic = config.kafka.topics.dead_letters
        self._connection = Connection()
        self._open = False
        settings = {
            **transaction_settings(config),
            "transactional.id": f"{self._letters_topic}.replay",
            "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
            "message.timeout.ms": TRANSACTION_TIMEOUT_MS,
            # Marks hold where the records went, which only reports of success tell.
            "delivery.report.only.error": False,
            "logger": self._connection.logger,
        }
        try:
            self._producer: Any = clients.producer(settings)
        except KafkaException as error:
            raise refused_settings(error) from error
        self._call("transactions cannot be begun", lambda: self._producer.init_transactions(INIT_TIMEOUT_S))

    def send(self, letters: Sequence[Resent]) -> None:
        """Sends these letters and their marks: all, or none.

        Raises FencedError where another operator has begun, RetriableError where it is unclear whether they were sent
        (the next replay finds out), FatalError where the broker refuses one. Then nothing more can be sent.
        """
        self._call("no transaction can be begun", self._producer.begin_transaction)
        self._open = True
        reports: dict[int, tuple[KafkaError | None, Message]] = {}

        def note(row: int) -> Callable[[KafkaError | None, Message], None]:
            def on_delivery(error: KafkaError | None, message: Message) -> None:
                # An exception may be on its way meanwhile, when nothing can be asked of a message.
                reports[row] = error, message

            return on_delivery

        for row, resent in enumerate(letters):
            self._produce(
                resent.to, resent.value, resent.key, resent.to_partition, resent.time_ms,
                [
                    (REPLAYED_FROM, f"{self._letters_topic}/{resent.letter.partition}/{resent.letter.offset}".encode()),
                    (ATTEMPT, b"%d" % resent.attempt),
                ],
                note(row),
            )  # fmt: skip
        self._call("records cannot be sent", lambda: self._producer.flush(ANSWER_TIMEOUT_S))
        marks: dict[tuple[int, str], list[Sent]] = defaultdict(list)
        # The largest first, for if one is too large, all that were under way with it are refused.
        for row in sorted(range(len(letters)), key=lambda row: -letters[row].letter.value_bytes):
            resent = letters[row]
            place = self._place(resent, *reports.get(row, (None, None)))
            marks[resent.letter.partition, resent.to].append(Sent(resent.letter.offset, *place, resent.attempt))
        for (partition, to), sent in marks.items():
            headers = [(SCHEMA, MARK_SCHEMA.encode())]
            self._produce(self._letters_topic, Mark(to, sent).encode(), None, partition, 0, headers, None)
        self._commit()

    def _commit(self) -> None:
        """Where it is in doubt nothing more may be sent: a commit that is still under way might end the next one."""
        doubt = "it is unclear whether letters were sent; the next replay finds out"
        broken, self._open = self._connection.broken, False
        self._call(doubt, lambda: self._producer.commit_transaction(ANSWER_TIMEOUT_S))
        self._call(doubt, lambda: self._producer.poll(0))
        if self._connection.broken != broken:
            raise RetriableError(f"{doubt}: a connection broke meanwhile")

    def _produce(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        partition: int,
        time_ms: int,
        headers: list[tuple[str, bytes]],
        on_delivery: Callable[[KafkaError | None, Message], None] | None,
    ) -> None:
        while True:
            try:
                self._producer.produce(
                    topic, value, key, partition, on_delivery=on_delivery, timestamp=time_ms, headers=headers
                )
            except BufferError:
                self._producer.poll(POLL_S)
                continue
            except KafkaException as error:
                # Where the producer has failed before, that says more.
                self._call("the producer failed", lambda: self._producer.poll(0))
                raise FatalError(f"{topic}: a record cannot be sent: {error.args[0].str()}") from error
            return

    def _call(self, failed: str, call: Callable[[], object]) -> None:
        """Calls the producer; what it raises becomes ours."""
        try:
            call()
        except KafkaException as error:
            reason = error.args[0]
            if reason.code() in _FENCED:
                raise self._fenced() from error
            if reason.fatal():
                raise FatalError(f"{failed}: {reason.str()}") from error
            if reason.txn_requires_abort():
                raise RetriableError(f"nothing of this transaction was sent: {reason.str()}") from error
            raise RetriableError(f"{failed}: {reason.str()}") from error

    def _fenced(self) -> FencedError:
        return FencedError(f"another replay of {self._letters_topic} has begun and goes on with what is left")

    def _place(self, resent: Resent, error: KafkaError | None, message: Message | None) -> tuple[int, int]:
        """Where a record went, as its report says; raises where there is none, or one of a failure."""
        if error is not None:
            raise self._refusal(resent, error)
        if message is None:
            raise RetriableError(f"no answer came for a record for {resent.to}; nothing of this transaction was sent")
        return message.partition(), message.offset()

    def _refusal(self, resent: Resent, error: KafkaError) -> TidegateError:
        """Why a record was not delivered."""
        if error.code() in _FENCED:
            return self._fenced()
        letter = resent.letter
        said = (
            f"{resent.to} does not take letter {letter.partition}/{letter.offset} of {letter.value_bytes:,} bytes: "
            f"{error.str()}; nothing of this transaction was sent"
        )
        return RetriableError(said) if error.code() in _NO_ANSWER else FatalError(said)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open:
            # It keeps readers of the input waiting; where it cannot be aborted, the broker or the next replay does.
            with contextlib.suppress(KafkaException):
                self._producer.abort_transaction(ANSWER_TIMEOUT_S)
