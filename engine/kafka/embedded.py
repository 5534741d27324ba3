"""The broker inside librdkafka, for the demo and for tests of the wiring: no Java, no Docker, up at once.

What it is not. It has no disk: all ends with `close`. It keeps only the newest RETAINED_BYTES of a partition,
whether somebody has read the rest or not. It drops the offsets that a transaction commits, and shows aborted
records to everyone. It answers no admin request but metadata. Nothing about exactly-once, fencing or recovery
is proven on it.
"""

from collections.abc import Iterable

from confluent_kafka import KafkaException, Producer

from engine.closing import Closing
from engine.errors import FatalError

# Both are fixed inside librdkafka. A reader further behind than RETAINED_BYTES finds its offset out of range.
PARTITIONS = 4
RETAINED_BYTES = 5 * 1024 * 1024

ANSWER_TIMEOUT_S = 5.0


class EmbeddedBroker(Closing):
    """Holds the client alive whose mock cluster others reach at `bootstrap`.

    Close the clients before the broker: those that are left log connection errors for ever. Raises FatalError
    when the broker inside does not come up.

    >>> with EmbeddedBroker() as broker:
    ...     broker.create_topics(["transactions"])
    ...     broker.bootstrap.startswith("127.0.0.1:")
    True
    """

    bootstrap: str

    def __init__(self) -> None:
        # Level 4 keeps warnings and drops the notice that a mock cluster is in use, which is the point here.
        self._holder = Producer({"test.mock.num.brokers": 1, "log_level": 4})
        try:
            brokers = self._holder.list_topics(timeout=ANSWER_TIMEOUT_S).brokers.values()
        except KafkaException as error:
            raise FatalError(f"the embedded broker did not start: {error.args[0].str()}") from error
        self.bootstrap = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)

    def create_topics(self, names: Iterable[str]) -> None:
        """Creates topics of PARTITIONS partitions; those that exist stay as they are. Raises FatalError.

        Being asked about a topic is what creates it here. Consumers do not ask in that way, so that a topic
        has to be created before it is subscribed to.
        """
        for name in names:
            try:
                topic = self._holder.list_topics(name, timeout=ANSWER_TIMEOUT_S).topics[name]
            except KafkaException as error:
                raise FatalError(f"the embedded broker refused topic {name!r}: {error.args[0].str()}") from error
            if len(topic.partitions) != PARTITIONS:
                raise FatalError(f"the embedded broker gave topic {name!r} {len(topic.partitions)} partitions")

    def close(self) -> None:
        """Ends the broker and all that it holds."""
        self._holder.close()
