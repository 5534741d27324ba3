"""The transactional side of a producer: librdkafka's state machine, and its requests to the coordinator.

    Init -> Ready -> InTransaction -> (commit, abort) -> Ready
                         |   any error that says so: AbortableError, where only abort is allowed
                         +-- fenced: FatalError, for ever

A call whose time is up goes on in the background; until it is made again, every other one is a conflict.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from tests.sim.cluster import REQUEST_TIMEOUT_S, RETRY_S, Cluster
from tests.sim.errors import FENCED_TEXT, NoAnswerError, RefusedError, conflict, error, raised, resumable, wrong_state
from tests.sim.groups import Metadata, Partition
from tests.sim.process import Process

TIMEOUT_MS_DEFAULT = 60_000
# init_transactions asks again after this long while the predecessor's transaction is being settled.
INIT_RETRY_S = 0.5
CONCURRENT_RETRY_S = 0.02
RECONNECT_S = 0.1
# In which every member has heard of a rebalance, and joined again.
OVERTAKEN_S = 0.4
FENCING = (KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH)


class TransactionSession:
    """One transactional producer. `failed` once it is fenced or must abort."""

    def __init__(self, cluster: Cluster, process: Process, name: str, settings: dict[str, Any]) -> None:
        self._cluster = cluster
        self._process = process
        self._name = name
        self.timeout_s = int(settings.get("transaction.timeout.ms", TIMEOUT_MS_DEFAULT)) / 1_000
        # Lines for the `logger` of the settings, which hears of them at the next poll, as from librdkafka.
        self.log: deque[str] = deque()
        self._state = "Init"
        self._writer, self._epoch = -1, -1
        self._unresumed: str | None = None
        self._fatal: KafkaError | None = None
        self._fatal_untold = False
        self._abortable: KafkaError | None = None
        self._epoch_bump_wanted = False
        self._partitions: set[Partition] = set()
        self._registered = False

    @property
    def failed(self) -> bool:
        return self._fatal is not None or self._abortable is not None

    # --- errors

    def take_fatal(self) -> KafkaError | None:
        """The fatal error, the first time that somebody polls after it."""
        told, self._fatal_untold = self._fatal_untold, False
        return self._fatal if told else None

    def must_abort(self, code: int, text: str, *, epoch_bump: bool = False) -> KafkaException:
        """The transaction cannot be committed any more. Returns what the call that met it raises."""
        if self._state in ("InTransaction", "BeginCommit") and self._abortable is None:
            self._abortable = error(code, text, abort=True)
            self._state = "AbortableError"
        self._epoch_bump_wanted |= epoch_bump
        return raised(code, text, abort=True)

    def die(self, code: int, text: str) -> KafkaException:
        """Fatal: only a new producer helps, if at all. The first reason stays the reason."""
        if self._fatal is None:
            self._fatal = error(code, text, fatal=True)
            self._fatal_untold = True
            self._state = "FatalError"
        return KafkaException(self._fatal)

    def _refused(self, what: str, refused: RefusedError) -> KafkaException:
        """What librdkafka makes of a coordinator's refusal."""
        if refused.code in FENCING:
            return self.die(KafkaError._FENCED, f"Failed to {what}: {FENCED_TEXT}")
        if refused.code == KafkaError.INVALID_TXN_STATE:
            return self.die(refused.code, f"Failed to {what}: {refused.text}")
        return self.must_abort(refused.code, f"Failed to {what}: {refused.text}")

    def check_not_failed(self) -> None:
        if self._fatal is not None:
            raise KafkaException(self._fatal)
        if self._abortable is not None:
            self._unresumed = None
            raise KafkaException(self._abortable)

    def check_may_produce(self) -> None:
        if self._fatal is not None:
            raise raised(KafkaError._FATAL, "Unable to produce message: Local: Fatal error")
        if self._state != "InTransaction" or self._unresumed is not None:
            raise raised(KafkaError._STATE, "Unable to produce message: Local: Erroneous state")

    def _check_no_conflict(self, call: str) -> None:
        if self._unresumed not in (None, call):
            raise conflict(self._unresumed)

    # --- calls

    def init(self, until_s: float) -> None:
        """A new epoch, which fences whoever had this transactional id; settles what they left open."""
        self._check_no_conflict("init_transactions")
        if self._fatal is not None:
            raise KafkaException(self._fatal)
        if self._state != "Init":
            raise wrong_state(self._state)
        self._unresumed = "init_transactions"
        try:
            self._writer, self._epoch = self._request(
                f"InitProducerId {self._name}",
                until_s,
                lambda: self._cluster.coordinator.init(self._name, self.timeout_s),
                INIT_RETRY_S,
            )
        except NoAnswerError:
            raise resumable() from None
        self._unresumed, self._state = None, "Ready"
        self._cluster.note(f"{self._process.name} {self._name} epoch {self._epoch}")

    def begin(self) -> None:
        if self._unresumed is not None:
            raise conflict(self._unresumed)
        self.check_not_failed()
        if self._state != "Ready":
            raise wrong_state(self._state)
        self._state, self._partitions, self._registered = "InTransaction", set(), False

    def add_partitions(self, partitions: set[Partition], until_s: float) -> None:
        """Before the first record of each. Raises NoAnswerError; a refusal is kept, and told by the next call."""
        new = partitions - self._partitions
        if not new or self.failed:
            return
        add = self._cluster.coordinator.add_partitions
        # From here on the coordinator may know of the transaction, so that its end must be sent.
        self._registered = True
        try:
            self._request(
                f"AddPartitionsToTxn {len(new)}", until_s, lambda: add(self._name, self._writer, self._epoch, new)
            )
        except RefusedError as refused:
            self._refused("add partitions to transaction", refused)
        else:
            self._partitions |= new

    def check_arrival(self, partition: Partition) -> int:
        """The broker's check of records that arrive; returns the producer id."""
        self._cluster.coordinator.check_produce(self._name, self._writer, self._epoch, partition)
        return self._writer

    def produce_refused(self, partition: Partition, count: int, refused: RefusedError) -> None:
        text = f"ProduceRequest for {partition[0]} [{partition[1]}] with {count} message(s) failed: {refused.text}"
        if refused.code in FENCING:
            self.die(KafkaError._FENCED, f"{text}: transactional producer fenced by newer producer instance")
        else:
            self.must_abort(refused.code, text, epoch_bump=True)

    def send_offsets(self, offsets: dict[Partition, int], metadata: Metadata, until_s: float) -> None:
        """Adds the group to the transaction, then the offsets, which may be refused for the member or its generation.

        The real call does not come back at its own timeout but at the transaction's, when the broker is silent.
        """
        self._check_no_conflict("send_offsets_to_transaction")
        self.check_not_failed()
        if self._state != "InTransaction":
            raise wrong_state(self._state)
        if self._cluster.down:
            until_s = max(until_s, self._cluster.clock.now_s + self.timeout_s)
        coordinator, group = self._cluster.coordinator, self._cluster.group(metadata.group)
        self._registered = True

        def arrive() -> None:
            coordinator.check_offsets(self._name, self._writer, self._epoch, metadata.group)
            group.commit_pending(self._writer, offsets, metadata)

        what = "add offsets to transaction"
        try:
            add = coordinator.add_group
            names = (self._name, self._writer, self._epoch, metadata.group)
            self._request("AddOffsetsToTxn", until_s, lambda: add(*names))
        except NoAnswerError:
            text = f"Failed to {what} on broker TxnCoordinator/1: Local: Timed out"
            raise raised(KafkaError._TIMED_OUT, text, retriable=True) from None
        except RefusedError as refused:
            raise self._refused(what, refused) from None
        if self._cluster.faults.hit("overtaken", f"{self._process.name} TxnOffsetCommit"):
            group.rebalance()
            self._cluster.wait(self._process, min(until_s, self._cluster.clock.now_s + OVERTAKEN_S))
        what = "commit offsets to transaction"
        try:
            self._request("TxnOffsetCommit", until_s, arrive)
        except NoAnswerError:
            text = "Transactional API operation (send_offsets_to_transaction) timed out"
            raise self.must_abort(KafkaError._TIMED_OUT, text) from None
        except RefusedError as refused:
            raise self._refused(what, refused) from None

    def begin_end(self, call: str) -> bool:
        """Whether a commit or an abort may go on; False where there is nothing left to do. Raises where it may not."""
        name = f"{call}_transaction"
        self._check_no_conflict(name)
        if self._fatal is not None:
            raise KafkaException(self._fatal)
        if call == "commit":
            self.check_not_failed()
        if self._unresumed is None and self._state not in ("InTransaction", "AbortableError"):
            raise wrong_state(self._state)
        if self._unresumed is None and self._cluster.faults.hit("abortable", f"{self._process.name} {name}"):
            failure = self.must_abort(KafkaError._INCONSISTENT, "1 message(s) failed delivery (see individual reports)")
            if call == "commit":
                raise failure
        self._unresumed = name
        return True

    def end(self, until_s: float, *, commit: bool) -> None:
        """EndTxn, and what may become of it on its way. A transaction without anything in it is ended without asking.

        Raises a retriable _TIMED_OUT, after which only the same call may be made, or fatal _FENCED.
        """
        if self._registered:
            self._end_registered(until_s, commit=commit)
        if self._epoch_bump_wanted:
            self._bump_epoch(until_s)
        self._unresumed, self._abortable, self._state = None, None, "Ready"

    def _end_registered(self, until_s: float, *, commit: bool) -> None:
        coordinator, faults = self._cluster.coordinator, self._cluster.faults
        name, writer, epoch = self._name, self._writer, self._epoch
        outcome = "commit" if commit else "abort"
        request = f"EndTxn {outcome}"
        step = f"{self._process.name} {request}"

        def arrive() -> None:
            coordinator.end(name, writer, epoch, commit=commit)

        if faults.hit("late request", step):
            self._arrive_later(
                request, max(until_s - self._cluster.clock.now_s, 0) + faults.random.uniform(0, faults.late_s), arrive
            )
            self._cluster.wait(self._process, until_s)
            raise resumable()
        if faults.hit("repeated request", step):
            # The first one hangs in a connection that breaks; librdkafka connects anew and repeats it silently.
            self._arrive_later(request, faults.random.uniform(0, faults.late_s), arrive)
            self._note_disconnect()
        elif faults.hit("disconnect", step):
            self._note_disconnect()
        try:
            self._request(request, until_s, arrive)
        except NoAnswerError:
            self.log.append(f"REQTMOUT [rdkafka#producer-1]: TxnCoordinator/1: Timed out {request} in flight")
            self._retry_in_background(arrive)
            raise resumable() from None
        except RefusedError as refused:
            self._unresumed = None
            raise self._refused("end transaction", refused) from None
        self._registered = False

    def _retry_in_background(self, arrive: Callable[[], None]) -> None:
        """The call has timed out, and librdkafka goes on asking. Whoever is fenced so remains in conflict too."""
        unresumed = self._unresumed

        def ask_again() -> None:
            if not self._process.running or self._unresumed != unresumed:
                return
            self._cluster.note(f"{self._process.name} repeats EndTxn of {self._name} epoch {self._epoch}")
            try:
                arrive()
            except RefusedError as refused:
                if refused.code != KafkaError.CONCURRENT_TRANSACTIONS:
                    self._refused("end transaction", refused)

        delay_s = 0.0 if self._cluster.down else REQUEST_TIMEOUT_S
        self._cluster.clock.after(delay_s, lambda: self._cluster.when_up(ask_again))

    def _arrive_later(self, request: str, delay_s: float, arrive: Callable[[], None]) -> None:
        """A request that is on its way gets there, whatever has become of its sender."""

        def happens() -> None:
            self._cluster.note(f"delayed {request} of {self._name} epoch {self._epoch} arrives")
            try:
                arrive()
            except RefusedError as refused:
                self._cluster.note(f"delayed {request}: {refused.text}")

        self._cluster.clock.after(delay_s, lambda: self._cluster.when_up(happens))

    def _bump_epoch(self, until_s: float) -> None:
        """After a lost message librdkafka takes a new epoch, so that the lost one cannot arrive any more."""
        request = f"InitProducerId {self._name}"
        init = self._cluster.coordinator.init
        try:
            found = self._request(request, until_s, lambda: init(self._name, self.timeout_s), CONCURRENT_RETRY_S)
        except NoAnswerError:
            raise resumable() from None
        (self._writer, self._epoch), self._epoch_bump_wanted = found, False

    def _note_disconnect(self) -> None:
        """The connection to the coordinator breaks and is made anew: only the log tells, no callback does."""
        self._cluster.clock.advance(RECONNECT_S)
        where = "[rdkafka#producer-1] [thrd:TxnCoordinator]: TxnCoordinator: 127.0.0.1:9092"
        self.log.append(f"FAIL {where}: Disconnected: connection closed by peer (after 1000ms in state UP)")

    def _request(
        self, name: str, until_s: float, arrive: Callable[[], Any], retry_s: float = CONCURRENT_RETRY_S
    ) -> Any:
        """Asks again while the coordinator has moved or is still busy with the last transaction."""
        if self._cluster.faults.hit("moved", f"{self._process.name} {name}"):
            self._cluster.wait(self._process, min(until_s, self._cluster.clock.now_s + RETRY_S))
        while True:
            try:
                return self._cluster.request(self._process, name, until_s, arrive)
            except RefusedError as refused:
                if refused.code != KafkaError.CONCURRENT_TRANSACTIONS:
                    raise
            if self._cluster.clock.now_s >= until_s:
                raise NoAnswerError
            self._cluster.wait(self._process, min(until_s, self._cluster.clock.now_s + retry_s))
