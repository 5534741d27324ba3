"""The errors of librdkafka, with the codes, texts and flags that the real client was seen to give.

Each is written down as an observation in docs/delivery-findings.md, and shown by the contract tests.
"""

from confluent_kafka import KafkaError, KafkaException

TIMED_OUT_TEXT = "Timed out waiting for operation to finish, retry call to resume"
FENCED_TEXT = "Local: This instance has been fenced by a newer instance"

BROKER_TEXTS = {
    KafkaError.ILLEGAL_GENERATION: "Broker: Specified group generation id is not valid",
    KafkaError.UNKNOWN_MEMBER_ID: "Broker: Unknown member",
    KafkaError.REBALANCE_IN_PROGRESS: "Broker: Group rebalance in progress",
    KafkaError.NOT_COORDINATOR: "Broker: Not coordinator",
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS: "Broker: Coordinator load in progress",
    KafkaError.INVALID_PRODUCER_EPOCH: "Broker: Producer attempted an operation with an old epoch",
    KafkaError.PRODUCER_FENCED: "Broker: There is a newer producer with the same transactional id",
    KafkaError.INVALID_TXN_STATE: "Broker: Producer attempted a transactional operation in an invalid state",
    KafkaError.INVALID_PRODUCER_ID_MAPPING: "Broker: Producer id is not currently assigned to its transactional id",
    KafkaError.CONCURRENT_TRANSACTIONS: "Broker: Producer attempted to update a transaction while another is ongoing",
}


class RefusedError(Exception):
    """A broker's answer to a request: an error code, before a client has made of it what the application sees."""

    def __init__(self, code: int) -> None:
        super().__init__(BROKER_TEXTS.get(code, str(code)))
        self.code = code

    @property
    def text(self) -> str:
        return str(self.args[0])


class NoAnswerError(Exception):
    """Nothing came back before the call had to end."""


def error(code: int, text: str, *, fatal: bool = False, retriable: bool = False, abort: bool = False) -> KafkaError:
    return KafkaError(code, reason=text, fatal=fatal, retriable=retriable, txn_requires_abort=abort)


def raised(
    code: int, text: str, *, fatal: bool = False, retriable: bool = False, abort: bool = False
) -> KafkaException:
    return KafkaException(error(code, text, fatal=fatal, retriable=retriable, abort=abort))


def resumable() -> KafkaException:
    """A transactional call whose time is up: librdkafka goes on with it, and the same call must be made again."""
    return raised(KafkaError._TIMED_OUT, TIMED_OUT_TEXT, retriable=True)


def conflict(call: str) -> KafkaException:
    """Another transactional call has timed out and was not resumed. Stays so even where the producer is fenced."""
    text = f"Conflicting {call} API call is already in progress"
    return raised(KafkaError._CONFLICT, text, retriable=True)


def wrong_state(state: str) -> KafkaException:
    return raised(KafkaError._STATE, f"Operation not valid in state {state}")


def timed_out(what: str) -> KafkaException:
    """A consumer's call whose time is up. librdkafka does not call it retriable."""
    return raised(KafkaError._TIMED_OUT, f"Failed to get {what}: Local: Timed out")
