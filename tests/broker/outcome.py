"""What came out of an application whose workers were killed, stopped and replaced, beside a replay that never was."""

import numpy as np
import orjson
from confluent_kafka import Message

from engine.config import Config
from engine.events import Records
from engine.progress import decode_progress
from engine.replay import ReplayFiles, replay
from tests.broker.application import Application
from tests.broker.test_worker import place_of, timeless

Outputs = dict[tuple[int, int], bytes]


def judged(
    application: Application,
    vector: dict[int, int],
    *,
    once: bool = True,
    **settings: str | int | float | bool | list[str],
) -> tuple[int, list[str]]:
    """How many events were decided, and what is otherwise than if nothing had failed.

    `vector`: where the state of the last worker stands. `once`: no decision may be there twice. `settings`: what the
    worker had of them that shows in its decisions.
    """
    decisions, alerts = application.read_all(application.decisions), application.read_all(application.alerts)
    found, found_alerts = _by_place(decisions), _by_place(alerts)
    letters = [_source(message.headers()) for message in application.read_all(application.dead_letters)]
    expected, expected_alerts, expected_letters = _undisturbed(application, application.config(**settings), once=once)
    ends = application.ends()
    checks = {
        "an event was decided twice": len(found) == len(decisions) or not once,
        "decisions are missing": expected.keys() <= found.keys(),
        "there are further decisions": found.keys() <= expected.keys(),
        "decisions differ": all(found[place] == expected[place] for place in found.keys() & expected.keys()),
        "there is an alert twice": len(found_alerts) == len(alerts) or not once,
        "alerts differ": found_alerts == expected_alerts and len(alerts) > 0,
        "dead letters differ": (sorted(letters) if once else sorted(set(letters))) == sorted(expected_letters),
        "offsets differ": application.committed() == ends,
        "the state is not at the end": vector == ends,
    }
    return len(found), [problem for problem, well in checks.items() if not well]


def _undisturbed(
    application: Application, config: Config, *, once: bool
) -> tuple[Outputs, Outputs, list[tuple[int, int]]]:
    """What a replay without a broker puts out, in the order that `progress` says; for one partition, in its own."""
    sent = {(record.partition, record.offset): record for record in application.sent}
    messages = application.read_all(application.progress)
    runs = [run for m in messages for run in decode_progress(m.value(), m.offset()).runs]
    places = [(p, offset) for p, start, to in runs for offset in range(start, to) if (p, offset) in sent]
    if not once:
        assert application.partitions == 1, "what was decided again may be interleaved otherwise"
        places = sorted(set(places))
    assert len(places) == len(sent) == len(set(places))
    records = Records(
        application.input,
        [sent[place].value for place in places],
        np.array([partition for partition, _ in places], np.int64),
        np.array([offset for _, offset in places], np.int64),
        np.array([sent[place].timestamp_ms for place in places], np.int64),
    )
    paths = [application.folder / f"{name}.jsonl" for name in ("decisions", "alerts", "dead")]
    replay(iter([records]), config, ReplayFiles(*paths), with_features=True)
    decisions, alerts, letters = (path.read_bytes().splitlines() for path in paths)
    return (
        {place_of(orjson.loads(line)): timeless(line) for line in decisions},
        {place_of(orjson.loads(line)): timeless(line) for line in alerts},
        [place_of(orjson.loads(line)) for line in letters],
    )


def _by_place(messages: list[Message]) -> Outputs:
    return {place_of(orjson.loads(message.value())): timeless(message.value()) for message in messages}


def _source(headers: list[tuple[str, bytes]]) -> tuple[int, int]:
    found = dict(headers)
    return int(found["tidegate.partition"]), int(found["tidegate.offset"])
