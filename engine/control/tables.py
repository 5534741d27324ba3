"""The tables: RocksDB on this machine, a changelog in Kafka, bytes in and bytes out."""

from typing import Any

import faust

from engine.control.plane import Tables

# Of each table and partition. Faust's own defaults are made for one large table: 2 GiB of cache each.
STORE = {
    "driver": "rocksdict",
    "block_cache_size": 16 * 1024 * 1024,
    "write_buffer_size": 8 * 1024 * 1024,
    "max_open_files": 64,
}
RAW = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw", "value_serializer": "raw"}


def make_tables(app: Any, partitions: int) -> Tables:
    """Partitioned as the topics are that each is filled from."""

    def table(name: str, count: int, text: str) -> Any:
        schema = faust.Schema(**RAW)
        made = app.Table(
            name, partitions=count, key_type=bytes, value_type=bytes, schema=schema, options=dict(STORE), help=text
        )
        # Else the store writes JSON and the changelog does not: there is no other way to tell it.
        made.key_serializer = made.value_serializer = "raw"
        return made

    return Tables(
        facts=table("facts", partitions, "What is known of each event: its decision, its label."),
        buckets=table("buckets", partitions, "Telemetry, summed up by application, model and time."),
        alarms=table("alarms", partitions, "Alarms of each application."),
        cases=table("cases", partitions, "Cases, by entity and typology."),
        rollouts=table("rollouts", 1, "Every command on the control topic."),
    )
