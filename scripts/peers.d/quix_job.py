"""The small job on Quix Streams: `tumbling_window` or `sliding_window`, `agg`, `current()`.

Everything else is as by default: RocksDB, changelog topics, commits every 5 s. With exactly once it commits every
second, because results can be read only then. The sliding window is one ms shorter than an hour, since it includes both
of its ends. There is no way to score windows in batches, so the model is given one row at a time.
"""

from typing import Any

from options import options, scorer
from quixstreams import Application
from quixstreams.dataframe.windows import Count, Last, Sum

WINDOW_MS = 3_600_000


def main() -> None:
    given = options(windows=("tumbling", "sliding"))
    exactly_once = given.delivery == "exactly_once"
    score = scorer(given.model)
    app = Application(
        broker_address=given.bootstrap,
        consumer_group=given.group,
        auto_offset_reset="earliest",
        processing_guarantee="exactly-once" if exactly_once else "at-least-once",
        commit_interval=1.0 if exactly_once else 5.0,
        state_dir=given.state,
        loglevel="WARNING",
    )
    events = app.topic(given.input, value_deserializer="json", key_deserializer="str")
    results = app.topic(given.output, value_serializer="json", key_serializer="str")

    def result(value: dict[str, Any], key: str, _: int, __: Any) -> dict[str, Any]:
        found = {
            "event_id": value["event_id"],
            "card": key,
            "count_1h": value["count_1h"],
            "sum_1h": value["sum_1h"],
        }
        if score is not None:
            found["probability"] = score(value["amount"], value["count_1h"], value["sum_1h"])
        return found

    stream = app.dataframe(events)
    sliding = given.window == "sliding"
    window = stream.sliding_window(WINDOW_MS - 1) if sliding else stream.tumbling_window(WINDOW_MS)
    further = {} if score is None else {"amount": Last("amount")}
    aggregates = window.agg(event_id=Last("event_id"), count_1h=Count(), sum_1h=Sum("amount"), **further)
    aggregates.current().apply(result, metadata=True).to_topic(results)
    app.run()


if __name__ == "__main__":
    main()
