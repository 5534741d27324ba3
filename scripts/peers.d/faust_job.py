"""The small job on Faust: an agent and a table with a tumbling window, in RocksDB.

The extras that its documentation names for speed are installed (`fast`, `uvloop`, `rocksdict`). Events are taken one by
one, since a table must not be written inside `take`; so the model is given one row at a time, too.
"""

import sys
from datetime import timedelta
from pathlib import Path

import faust
from options import options, scorer

GIVEN = options()
SCORE = scorer(GIVEN.model)


class Event(faust.Record, serializer="json"):
    """What comes in, of which the job needs this much."""

    event_id: str
    card: str
    amount: float


app = faust.App(
    GIVEN.group,
    broker=f"kafka://{GIVEN.bootstrap}",
    store="rocksdb://",
    datadir=str(Path(GIVEN.state)),
    processing_guarantee=GIVEN.delivery,
    consumer_auto_offset_reset="earliest",
    topic_partitions=GIVEN.partitions,
    topic_allow_declare=True,
    web_enabled=False,
)
events = app.topic(GIVEN.input, value_type=Event, key_type=str, internal=False)
results = app.topic(GIVEN.output, value_serializer="json", key_type=str)
hours = app.Table("hours", default=lambda: (0, 0.0), options={"driver": "rocksdict"}).tumbling(
    timedelta(hours=1), expires=timedelta(hours=2)
)


@app.agent(events)
async def total(stream: faust.StreamT[Event]) -> None:
    """Per event, count and sum of its card in the hour of the clock in which the event is."""
    async for event in stream:
        count, amount = hours[event.card].current()
        count, amount = count + 1, amount + event.amount
        hours[event.card] = (count, amount)
        found = {"event_id": event.event_id, "card": event.card, "count_1h": count, "sum_1h": amount}
        if SCORE is not None:
            found["probability"] = SCORE(event.amount, count, amount)
        await results.send(key=event.card, value=found)


if __name__ == "__main__":
    sys.argv = [sys.argv[0], "worker", "--loglevel=warn", "--without-web"]
    app.main()
