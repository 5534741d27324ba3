"""Topics that a run has made, taken away again."""

import threading
import time

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

ANSWER_TIMEOUT_S = 60.0
SHOWN_AFTER_S = 0.05


def delete_topics(admin: AdminClient, prefix: str) -> None:
    """Deletes every topic whose name begins so, until the broker shows none; KafkaException where it does not delete.

    What it shows is some milliseconds old: a deleted topic may still be there, and a new one not yet.
    """
    never, give_up_at = threading.Event(), time.monotonic() + ANSWER_TIMEOUT_S
    while names := [name for name in admin.list_topics(timeout=ANSWER_TIMEOUT_S).topics if name.startswith(prefix)]:
        if time.monotonic() > give_up_at:
            return
        for deleted in admin.delete_topics(names, operation_timeout=ANSWER_TIMEOUT_S).values():
            try:
                deleted.result(ANSWER_TIMEOUT_S)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise
        never.wait(SHOWN_AFTER_S)
