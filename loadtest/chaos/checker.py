"""The checker: reads every topic anew as a consumer of what is committed, and judges without knowing the engine.

input, decisions, alerts, dead letters --> ledger --> lost, duplicated, reordered
progress --> order of the input --> file --> tidegate replay --> ledger --> mismatched
"""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

from confluent_kafka import Message

from loadtest.chaos.application import Application
from loadtest.chaos.contents import decision_content, fields_of, letter_content
from loadtest.chaos.journal import Progress, Run, decode_progress, journal_faults, runs_in_order
from loadtest.chaos.ledger import Ledger, Verdict
from loadtest.chaos.offline import Offline, differences, event_line
from loadtest.chaos.probe import Offsets, Probe
from loadtest.errors import LoadTestError
from loadtest.reading import read_in_order, read_one, read_topic

DIFFERENCES_MAX = 4


@dataclass(frozen=True, slots=True)
class Findings:
    """The verdict on the records, what is wrong with `progress`, and how mismatches differ, a line each."""

    verdict: Verdict
    journal_faults: list[str]
    differences: list[str]


def check(application: Application, offline: Offline) -> Findings:
    """Judges what is in the topics now, when no worker runs any more; LoadTestError where it cannot be read."""
    with closing(Probe(application)) as probe:
        _check_settled(application, probe)
        ends = probe.ends(application.input)
    records = _progress(application)
    faults = journal_faults(records, ends) if application.delivery == "exactly_once" else []
    ledger = Ledger(ends)
    _add_outputs(application, ledger)
    # At least once the same record may have been taken twice, in other company each time: no order explains both.
    replayed = application.delivery == "exactly_once" and not faults
    _add_input(application, ledger, runs_in_order(records) if replayed else _whole(ends), offline)
    if replayed:
        offline.run(sum(ends.values()))
        for content in offline.contents():
            ledger.add_replayed(content)
    verdict = ledger.verdict()
    return Findings(verdict, faults, list(_differences(application, ledger, verdict, offline)) if replayed else [])


def _check_settled(application: Application, probe: Probe) -> None:
    """Behind an open transaction nothing could be read, and so nothing be judged."""
    for topic in (application.decisions, application.alerts, application.dead_letters, application.progress):
        if probe.ends(topic) != probe.stable_ends(topic):
            raise LoadTestError(f"{topic}: a transaction is still open though no worker runs any more")


def _progress(application: Application) -> list[Progress]:
    messages = read_topic(application.bootstrap, application.progress, 1)
    found = [decode_progress(message.value()) for message in messages if message.key() == application.id.encode()]
    return [record for record in found if record.input == application.input]


def _whole(ends: Offsets) -> Iterator[Run]:
    return ((partition, 0, end) for partition, end in ends.items() if end)


def _add_outputs(application: Application, ledger: Ledger) -> None:
    for message in _read(application, application.decisions):
        ledger.add_decision(decision_content(message.value()), (message.partition(), message.offset()))
    for message in _read(application, application.alerts):
        source = (fields_of(message.value()) or {})["source"]
        ledger.add_alert(source["partition"], source["offset"])
    for message in _read(application, application.dead_letters):
        headers = {name: text.decode() for name, text in message.headers() or ()}
        place = int(headers["tidegate.partition"]), int(headers["tidegate.offset"])
        ledger.add_letter(letter_content(headers["tidegate.reason"], *place), message.value())


def _read(application: Application, topic: str) -> Iterator[Message]:
    return read_topic(application.bootstrap, topic, application.partitions)


def _add_input(application: Application, ledger: Ledger, runs: Iterator[Run], offline: Offline) -> None:
    """Takes in the records, and writes those that a file can hold: what is no JSON object cannot change the state."""
    with offline.events_file.open("wb") as file:
        for message in read_in_order(application.bootstrap, application.input, runs, application.partitions):
            value, place = message.value(), (message.partition(), message.offset())
            if ledger.add_record(*place, value) is not None:
                file.write(event_line(value, *place, message.timestamp()[1]))


def _differences(application: Application, ledger: Ledger, verdict: Verdict, offline: Offline) -> Iterator[str]:
    for partition, offset in verdict.mismatches:
        place = ledger.place(partition, offset)
        message = read_one(application.bootstrap, application.decisions, *place) if place is not None else None
        ours = fields_of(message.value()) if message is not None else None
        for line in list(differences(ours, offline.decision(partition, offset)))[:DIFFERENCES_MAX]:
            yield f"partition {partition}, offset {offset}: {line}"
