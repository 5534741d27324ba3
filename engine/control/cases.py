"""Alerts of one entity and typology, close to one another, are one case for somebody to look at.

alerts    a  a a      a                a   a
          (----- window -----]
cases     |-----------|                |---|
"""

from typing import NamedTuple

import msgspec
import xxhash

from engine.control.records import Alert, CaseRecord, CaseSaid, CaseStatus, Label, Outcome
from engine.control.settings import Cases
from features.durations import duration_ms

# How many cases of one group are remembered; what comes again of an older one would open it anew.
CASES_KEPT = 8
LABELS: dict[Outcome, int] = {"fraud": 1, "genuine": 0}


class Member(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An alert of a case."""

    alert_id: str
    event_id: str
    time_ms: int
    amount_minor: int
    risk_score: int


class Case(msgspec.Struct, frozen=True, array_like=True):
    """One case, and what was last said of it."""

    case_id: str
    entity: str
    entity_key: str
    typology: str
    currency: str
    members: list[Member]
    status: CaseStatus = "open"
    outcome: Outcome | None = None
    author: str = ""
    said_at_ms: int = 0

    @property
    def first_ms(self) -> int:
        """Event time of its first alert."""
        return min(member.time_ms for member in self.members)

    @property
    def last_ms(self) -> int:
        """Event time of its last alert."""
        return max(member.time_ms for member in self.members)

    def record(self) -> CaseRecord:
        """As it is published."""
        return CaseRecord(
            case_id=self.case_id,
            entity=self.entity,
            entity_key=self.entity_key,
            typology=self.typology,
            status=self.status,
            outcome=self.outcome,
            author=self.author,
            said_at_ms=self.said_at_ms,
            alerts=len(self.members),
            exposure_minor=sum(member.amount_minor for member in self.members),
            currency=self.currency,
            risk_score_max=max(member.risk_score for member in self.members),
            first_seen_ms=self.first_ms,
            last_seen_ms=self.last_ms,
        )


class Change(NamedTuple):
    """A group's cases after a record, and which of them is another than before; None where none is."""

    cases: list[Case]
    changed: Case | None


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(list[Case])


def encode_cases(cases: list[Case]) -> bytes:
    """As the table holds those of one group."""
    return _encoder.encode(cases)


def decode_cases(value: bytes | None) -> list[Case]:
    """As the table holds those of one group."""
    return [] if value is None else _decoder.decode(value)


def group_of(alert: Alert) -> str:
    """What alerts are grouped by, as a name that gives no card number away."""
    entity = f"{alert.group_key.type}/{alert.group_key.value}" if alert.group_key else f"event/{alert.event_id}"
    return xxhash.xxh64_hexdigest(f"{entity}/{alert.typology}".encode())


def group_of_case(case_id: str) -> str:
    """The group that a case belongs to."""
    return case_id.partition("-")[0]


def with_alert(cases: list[Case], alert: Alert, settings: Cases) -> Change:
    """After this alert; the same where one of the cases has it."""
    if any(member.alert_id == alert.alert_id for case in cases for member in case.members):
        return Change(cases, None)
    member = Member(alert.alert_id, alert.event_id, alert.event_time, alert.amount_minor, alert.risk_score)
    for at, case in enumerate(cases):
        if _takes(case, alert, settings):
            changed = msgspec.structs.replace(case, members=[*case.members, member])
            return Change([*cases[:at], changed, *cases[at + 1 :]], changed)
    opened = Case(
        # Of the alert that opened it: whoever reads it again finds the same case.
        case_id=f"{group_of(alert)}-{xxhash.xxh64_hexdigest(alert.alert_id.encode())}",
        entity=alert.group_key.type if alert.group_key else "event",
        entity_key=alert.group_key.value if alert.group_key else alert.event_id,
        typology=alert.typology,
        currency=alert.currency,
        members=[member],
    )
    return Change([*cases, opened][-CASES_KEPT:], opened)


def _takes(case: Case, alert: Alert, settings: Cases) -> bool:
    window_ms = duration_ms(settings.window)
    near = case.first_ms - window_ms < alert.event_time < case.last_ms + window_ms
    alike = case.currency == alert.currency
    return case.status != "closed" and near and alike and len(case.members) < settings.alerts_max


def with_said(cases: list[Case], said: CaseSaid) -> Change:
    """After what somebody said; the last word holds, and what is closed can be opened again."""
    for at, case in enumerate(cases):
        if case.case_id == said.case_id and said.said_at_ms > case.said_at_ms:
            changed = msgspec.structs.replace(
                case, status=said.status, outcome=said.outcome, author=said.author, said_at_ms=said.said_at_ms
            )
            return Change([*cases[:at], changed, *cases[at + 1 :]], changed)
    return Change(cases, None)


def labels_of(case: Case) -> list[Label]:
    """What the outcome of a case says of each of its events; nothing while it has none."""
    if case.outcome is None:
        return []
    label: int = LABELS[case.outcome]
    return [
        Label(
            event_id=member.event_id,
            label=1 if label else 0,
            labelled_at=case.said_at_ms,
            label_source=f"case {case.case_id}",
            author=case.author,
        )
        for member in case.members
    ]
