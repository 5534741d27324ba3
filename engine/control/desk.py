"""Cases in their table, by group.

What follows from a record is said again whenever the record is read again: a crash between the table and the topic
leaves nothing unsaid.
"""

from collections import Counter
from collections.abc import Iterable, MutableMapping

from engine.control.cases import (
    Case,
    decode_cases,
    encode_cases,
    group_of,
    group_of_case,
    labels_of,
    with_alert,
    with_said,
)
from engine.control.records import Alert, CaseRecord, CaseSaid, Label
from engine.control.settings import Cases


class Desk:
    """All cases, and how each one stands."""

    def __init__(self, settings: Cases, table: MutableMapping[bytes, bytes]) -> None:
        self._settings = settings
        self._table = table
        self.standing: dict[str, CaseRecord] = {}

    def rebuild(self, groups: Iterable[tuple[bytes, bytes]]) -> None:
        """As the table has it."""
        self.standing = {case.case_id: case.record() for _, value in groups for case in decode_cases(value)}

    def take_alert(self, alert: Alert) -> CaseRecord:
        """The case that it belongs to, as it then stands."""
        group = group_of(alert).encode()
        before = decode_cases(self._table.get(group))
        change = with_alert(before, alert, self._settings)
        if change.changed is not None:
            self._put(group, change.cases, change.changed)
            if before and before[0].case_id != change.cases[0].case_id:
                # So many are remembered of a group, and no more: the first gave way.
                self.standing.pop(before[0].case_id, None)
            return change.changed.record()
        return next(case for case in change.cases if _has(case, alert)).record()

    def take_said(self, said: CaseSaid) -> tuple[CaseRecord | None, list[Label]]:
        """The case as it then stands, None where there is no such case, and what its outcome says of its events."""
        group = group_of_case(said.case_id).encode()
        change = with_said(decode_cases(self._table.get(group)), said)
        if change.changed is not None:
            self._put(group, change.cases, change.changed)
        case = next((case for case in change.cases if case.case_id == said.case_id), None)
        if case is None:
            return None, []
        return case.record(), labels_of(case) if case.said_at_ms == said.said_at_ms else []

    def forget(self, group: bytes, before_ms: int) -> list[str]:
        """Drops a group that was last heard of before then; the names of its cases."""
        cases = decode_cases(self._table.get(group))
        if not cases or not is_over(cases, before_ms):
            return []
        del self._table[group]
        for case in cases:
            self.standing.pop(case.case_id, None)
        return [case.case_id for case in cases]

    def over(self, before_ms: int) -> list[bytes]:
        """Groups that may be forgotten: with a case that was last heard of before then."""
        return sorted(
            {
                group_of_case(record.case_id).encode()
                for record in self.standing.values()
                if max(record.last_seen_ms, record.said_at_ms) < before_ms
            }
        )

    def counts(self) -> Counter[str]:
        """How many cases have each status; a closed one counts by its outcome."""
        return Counter(record.outcome or record.status for record in self.standing.values())

    def _put(self, group: bytes, cases: list[Case], changed: Case) -> None:
        self._table[group] = encode_cases(cases)
        self.standing[changed.case_id] = changed.record()


def is_over(cases: list[Case], before_ms: int) -> bool:
    """Whether nothing was heard of any of them since."""
    return all(max(case.last_ms, case.said_at_ms) < before_ms for case in cases)


def _has(case: Case, alert: Alert) -> bool:
    return any(member.alert_id == alert.alert_id for member in case.members)
