"""Topics that a run has made, taken away again."""

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

ANSWER_TIMEOUT_S = 60.0


def delete_topics(admin: AdminClient, prefix: str) -> None:
    """Deletes every topic whose name begins so; KafkaException where the broker does not."""
    names = [name for name in admin.list_topics(timeout=ANSWER_TIMEOUT_S).topics if name.startswith(prefix)]
    if not names:
        return
    for deleted in admin.delete_topics(names, operation_timeout=ANSWER_TIMEOUT_S).values():
        try:
            deleted.result(ANSWER_TIMEOUT_S)
        except KafkaException as error:
            # The list may be older than a deletion.
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise
