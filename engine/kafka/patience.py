"""A producer whose calls return: librdkafka's send_offsets_to_transaction does not heed its timeout.

Where the group's coordinator went away while the offsets were on their way to it, the call waits until a broker changes
its state, which may be never (librdkafka issues 5456 and 5511; seen after a restart of 4 s). A worker that hangs there
is not polled, loses the lease after a minute, and never comes back.
"""

import threading
from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer


class PatientProducer(Producer):  # type: ignore[misc]  # Producer comes without types
    """As Producer. A call that was given up is left to a thread of its own, which keeps the producer alive."""

    def send_offsets_to_transaction(self, positions: Any, group_metadata: Any, timeout: float) -> None:
        """As Producer does; KafkaException (`_TIMED_OUT`, requires abort) where it does not return in time."""
        send = super().send_offsets_to_transaction
        within(timeout, "send_offsets_to_transaction", lambda: send(positions, group_metadata, timeout))


def within(timeout_s: float, name: str, call: Callable[[], object]) -> None:
    """Calls, and raises what that raises; KafkaException (`_TIMED_OUT`, requires abort) once the time is over."""
    raised: list[KafkaException] = []
    returned = threading.Event()

    def run() -> None:
        try:
            call()
        except KafkaException as error:
            raised.append(error)
        # Not after any other: then the call is one that did not return.
        returned.set()

    # A daemon, since nothing can end it, and the process must.
    threading.Thread(target=run, name=name, daemon=True).start()
    if not returned.wait(timeout_s):
        raise KafkaException(
            KafkaError(KafkaError._TIMED_OUT, f"{name} did not return within {timeout_s:g} s", txn_requires_abort=True)
        )
    if raised:
        raise raised[0]
