"""Whether a broker is there: librdkafka tries again by itself for ever, and only its statistics say that it does."""

import logging
from collections.abc import Callable

import msgspec

_log = logging.getLogger("tidegate.kafka")

STATISTICS_INTERVAL_MS = 1_000
# Of a connection over which requests are answered.
CONNECTED = frozenset({"UP", "UPDATE"})


class _Broker(msgspec.Struct):
    state: str


class _Statistics(msgspec.Struct):
    brokers: dict[str, _Broker]


_decoder = msgspec.json.Decoder(_Statistics)


class Reach:
    """Hears the statistics of a client that always has a connection, and tells `changed` and the log what changes.

    A broker that stands still is there until a request to it has timed out.
    """

    def __init__(self, changed: Callable[[bool], object]) -> None:
        self._changed = changed
        self._up = True

    def on_statistics(self, statistics: str) -> None:
        """librdkafka's callback; raises nothing."""
        up = any(broker.state in CONNECTED for broker in _decoder.decode(statistics).brokers.values())
        if up == self._up:
            return
        self._up = up
        self._changed(up)
        if up:
            _log.info("a Kafka broker answers again")
        else:
            _log.warning("no Kafka broker answers; trying until one does")
