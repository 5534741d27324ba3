"""The right to own the input: partition 0 of the lease topic, held as a member of the application's group.

The group is that of the committed offsets, so the broker refuses them from whoever is no member any longer. Of members
it does not ask who holds the lease: that a standby commits nothing is our part. Every rebalance begins a new
generation, and metadata of an older one is refused; the assignor lets the holder keep the lease when others join.
`check` says what this client has heard, which may be old; `prove` asks the broker.
"""

from types import TracebackType
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from engine.config import Config
from engine.errors import FatalError, MissingTopicError, RetriableError
from engine.kafka.client import KAFKA, Clients, lease_settings, refused_settings
from engine.kafka.offsets import committed_offsets
from engine.kafka.reach import STATISTICS_INTERVAL_MS, Reach

PARTITION = 0
# How long the answer to a commit is polled for: often at first, ten seconds in all.
WAITS_S = (*[0.001] * 100, *[0.05] * 198)
# How long one that was refused is asked for again.
REBALANCE_WAITS_S = (0.01, 0.05, *[0.1] * 10)
REBALANCING = frozenset({KafkaError.ILLEGAL_GENERATION, KafkaError.REBALANCE_IN_PROGRESS})

Places = frozenset[tuple[str, int, int]]


class LeaseLostError(RetriableError):
    """Somebody else may own the input now: everything that was not committed is void."""


class Lease:
    """One membership. `tenure` counts how often the lease was got; it moves on whenever it is lost."""

    def __init__(self, config: Config, clients: Clients = KAFKA, reach: Reach | None = None) -> None:
        """Joins nothing yet; ConfigError where the settings are refused.

        `reach` hears at every poll whether a broker is there.
        """
        self._topic = config.kafka.topics.lease
        self._input = config.kafka.input
        self.held = False
        self.tenure = 0
        self._released = False
        self._proofs = 0
        # What became of the commits that were asked for last, by what they were.
        self._answers: dict[Places, KafkaError | None] = {}
        try:
            self._consumer = clients.consumer(
                lease_settings(config) | {"on_commit": self._on_commit} | _heard_by(reach)
            )
        except KafkaException as error:
            raise refused_settings(error) from error
        self._joined = False

    def join(self) -> None:
        """Becomes a member, as some of the next polls find out; only then can the lease come this way."""
        if not self._joined:
            self._joined = True
            self._consumer.subscribe([self._topic], on_assign=self._got, on_revoke=self._lost, on_lost=self._lost)

    def poll(self, timeout_s: float = 0.0) -> bool:
        """Hears of rebalances, which a hung pipeline does not; whether the lease is held.

        MissingTopicError where the lease topic is missing or may not be read.
        """
        message = self._consumer.poll(timeout_s)
        error = message.error() if message is not None else None
        if error is not None:
            self._check(error)
        return self.held

    def _check(self, error: KafkaError) -> None:
        if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise MissingTopicError(f"topic {self._topic!r} does not exist; `tidegate topics apply` creates it")
        if error.fatal():
            raise FatalError(f"the lease on {self._topic!r} cannot be held: {error.str()}")

    def _got(self, _consumer: Any, partitions: list[TopicPartition]) -> None:
        if any(place.partition == PARTITION for place in partitions):
            self.held = True
            self.tenure += 1

    def _lost(self, _consumer: Any, partitions: list[TopicPartition]) -> None:
        if any(place.partition == PARTITION for place in partitions):
            self.held = False
            self.tenure += 1

    def check(self, tenure: int) -> None:
        """LeaseLostError unless the lease is held without a break since this tenure began."""
        self.poll()
        if not self.held or self.tenure != tenure:
            raise LeaseLostError("the lease was lost")

    def metadata(self, tenure: int) -> Any:
        """What a transaction is fenced by, read afresh. Never that of nobody: the broker would fence no one by it."""
        self.check(tenure)
        if not self._consumer.memberid():
            raise LeaseLostError("the lease was lost: no longer a member of the group")
        return self._consumer.consumer_group_metadata()

    def prove(self, tenure: int) -> None:
        """Asks the broker, by committing an offset of the lease topic itself.

        LeaseLostError where it is lost for sure, RetriableError where that is not known yet.
        """
        self.check(tenure)
        self._proofs += 1
        self._commit([TopicPartition(self._topic, PARTITION, self._proofs)], tenure)

    def commit(self, vector: dict[int, int], tenure: int) -> None:
        """Commits offsets of the input; raises as `prove`, and then they may be committed or not."""
        self.check(tenure)
        self._commit(self._offsets(vector), tenure)

    def begin_commit(self, vector: dict[int, int], tenure: int) -> None:
        """Asks for what `commit` does, and does not wait for the answer: `has_committed` looks for that."""
        self.check(tenure)
        self._send(self._offsets(vector))

    def has_committed(self, vector: dict[int, int], tenure: int) -> bool:
        """Whether the broker has said so; where a rebalance came between, commits again. Raises as `commit`."""
        self.check(tenure)
        if _places(self._offsets(vector)) not in self._answers:
            return False
        self.await_commit(vector, tenure)
        return True

    def await_commit(self, vector: dict[int, int], tenure: int) -> None:
        """Waits for the answer to what `begin_commit` asked for; raises as `commit`."""
        offsets = self._offsets(vector)
        error = self._answer(_places(offsets))
        if error is not None and error.code() in REBALANCING:
            self._commit(offsets, tenure)
        elif error is not None:
            raise _refused(error)

    def _offsets(self, vector: dict[int, int]) -> list[TopicPartition]:
        return [TopicPartition(self._input, partition, offset) for partition, offset in vector.items()]

    def _commit(self, offsets: list[TopicPartition], tenure: int) -> None:
        """Again while others join, which begins a new generation: only a rebalance says that the lease is lost."""
        error = self._ask(offsets)
        for wait_s in REBALANCE_WAITS_S:
            if error is None or error.code() not in REBALANCING:
                break
            self.poll(wait_s)
            self.check(tenure)
            error = self._ask(offsets)
        if error is not None:
            raise _refused(error)

    def _ask(self, offsets: list[TopicPartition]) -> KafkaError | None:
        self._send(offsets)
        return self._answer(_places(offsets))

    def _answer(self, asked: Places) -> KafkaError | None:
        """The broker's word, but not for ever, as a synchronous commit waits where no broker answers."""
        for wait_s in WAITS_S:
            if asked in self._answers:
                break
            self.poll(wait_s)
        return self._answers.pop(asked, KafkaError(KafkaError._TIMED_OUT))

    def _send(self, offsets: list[TopicPartition]) -> None:
        self._answers.pop(_places(offsets), None)
        try:
            self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            raise _refused(error.args[0]) from error

    def _on_commit(self, error: KafkaError | None, offsets: list[TopicPartition]) -> None:
        errors = [found for found in (error, *(place.error for place in offsets)) if found is not None]
        self._answers[_places(offsets)] = errors[0] if errors else None

    def committed(self, partitions: list[int]) -> dict[int, int]:
        """The committed offset of each partition of the input that has one; those of open transactions do not count."""
        return committed_offsets(self._consumer, self._input, partitions, self.poll)

    def release(self) -> None:
        """Leaves the group, so that a standby has the lease at once; commits nothing. Once is enough."""
        if self._released:
            return
        self.held, self._released = False, True
        if self._joined:
            # A member without a partition that is merely closed stays one until its session is over.
            self._consumer.unsubscribe()
        self._consumer.close()

    def __enter__(self) -> "Lease":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _heard_by(reach: Reach | None) -> dict[str, Any]:
    if reach is None:
        return {}
    return {"statistics.interval.ms": STATISTICS_INTERVAL_MS, "stats_cb": reach.on_statistics}


def _refused(error: KafkaError) -> RetriableError:
    return RetriableError(f"offsets were not committed: {error.str()}")


def _places(offsets: list[TopicPartition]) -> Places:
    return frozenset((place.topic, place.partition, place.offset) for place in offsets)
