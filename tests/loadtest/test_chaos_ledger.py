"""The checker's verdict: whatever is planted is found, and counted as what it is."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import pytest

from loadtest.chaos.contents import Content, decision_content, event_hash, letter_content
from loadtest.chaos.ledger import Ledger, Verdict

# Partition 0: a, b, a again, no JSON. Partition 1: c, no event.
INPUT = {
    (0, 0): b'{"event_id":"a"}',
    (0, 1): b'{"event_id":"b"}',
    (0, 2): b'{"event_id":"a"}',
    (0, 3): b'{"event_id"',
    (1, 0): b'{"event_id":"c"}',
    (1, 1): b'{"amount":1}',
}


class Decided(NamedTuple):
    content: Content
    place: tuple[int, int]


def decided(partition: int, offset: int, event: str, place: tuple[int, int], *, flagged: bool = False) -> Decided:
    return Decided(Content(partition, offset, 100 * partition + offset + 1, event_hash(event), flagged), place)


class Outputs(NamedTuple):
    """What the topics and the replay hold; the defaults are as they should be."""

    decisions: Sequence[Decided] = (
        decided(0, 0, "a", (0, 0)),
        decided(0, 1, "b", (0, 1), flagged=True),
        decided(1, 0, "c", (0, 2)),
    )
    letters: Sequence[tuple[Content, bytes]] = (
        (letter_content("malformed_json", 0, 3), INPUT[0, 3]),
        (letter_content("missing_field", 1, 1), INPUT[1, 1]),
    )
    alerts: Sequence[tuple[int, int]] = ((0, 1),)
    replayed: Sequence[Content] = (
        decided(0, 0, "a", (0, 0)).content,
        decided(0, 1, "b", (0, 0)).content,
        decided(1, 0, "c", (0, 0)).content,
        letter_content("missing_field", 1, 1),
    )


def verdict(outputs: Outputs) -> Verdict:
    ledger = Ledger({0: 4, 1: 2})
    for content, place in outputs.decisions:
        ledger.add_decision(content, place)
    for content, value in outputs.letters:
        ledger.add_letter(content, value)
    for alert in outputs.alerts:
        ledger.add_alert(*alert)
    for place, value in INPUT.items():
        ledger.add_record(*place, value)
    for content in outputs.replayed:
        ledger.add_replayed(content)
    return ledger.verdict()


def test_a_good_run() -> None:
    found = verdict(Outputs())
    assert found == Verdict(
        events=6,
        decisions=3,
        dead_letters=2,
        duplicates=1,
        lost=0,
        duplicated=0,
        reordered=0,
        mismatched=0,
        misalerted=0,
        unknown=0,
    )


def without(at: int) -> Callable[[Outputs], Outputs]:
    return lambda good: good._replace(decisions=[*good.decisions[:at], *good.decisions[at + 1 :]], alerts=())


def with_decision(further: Decided) -> Callable[[Outputs], Outputs]:
    return lambda good: good._replace(decisions=[*good.decisions, further])


def instead_of(at: int, changed: Callable[[Content], Content]) -> Callable[[Outputs], Outputs]:
    def plant(good: Outputs) -> Outputs:
        decisions = list(good.decisions)
        decisions[at] = Decided(changed(decisions[at].content), decisions[at].place)
        return good._replace(decisions=decisions)

    return plant


PLANTED: dict[str, tuple[Callable[[Outputs], Outputs], dict[str, int]]] = {
    "a decision is missing": (without(1), {"lost": 1, "decisions": 2}),
    "the decision of which a duplicate is one is missing": (
        without(0),
        {"lost": 2, "decisions": 2, "duplicates": 0, "misalerted": 1},
    ),
    "a dead letter is missing": (lambda good: good._replace(letters=good.letters[1:]), {"lost": 1, "dead_letters": 1}),
    "a record is decided twice": (with_decision(decided(1, 0, "c", (0, 3))), {"duplicated": 1}),
    "a duplicate is decided": (
        with_decision(decided(0, 2, "a", (0, 3))),
        {"duplicated": 1, "decisions": 4, "duplicates": 0, "mismatched": 1},
    ),
    "a record is decided and a dead letter": (
        lambda good: good._replace(letters=[*good.letters, (letter_content("oversize", 1, 0), INPUT[1, 0])]),
        {"duplicated": 1, "dead_letters": 3, "mismatched": 1},
    ),
    "two decisions of a partition change places": (
        lambda good: good._replace(decisions=[good.decisions[1], good.decisions[0], good.decisions[2]]),
        {"reordered": 1},
    ),
    "a decision says something else": (
        instead_of(2, lambda content: content._replace(digest=4711)),
        {"mismatched": 1},
    ),
    "a decision is about another event": (
        instead_of(2, lambda content: content._replace(event=event_hash("x"))),
        {"mismatched": 1},
    ),
    "a dead letter has another reason": (
        lambda good: good._replace(letters=[good.letters[0], (letter_content("oversize", 1, 1), INPUT[1, 1])]),
        {"mismatched": 1},
    ),
    "a dead letter has other bytes": (
        lambda good: good._replace(letters=[(good.letters[0][0], b"{"), good.letters[1]]),
        {"mismatched": 1},
    ),
    "what is no JSON is decided": (
        lambda good: good._replace(letters=good.letters[1:], decisions=[*good.decisions, decided(0, 3, "d", (0, 3))]),
        {"mismatched": 1, "decisions": 4, "dead_letters": 1},
    ),
    "an event is taken for a duplicate that is none": (
        lambda good: good._replace(replayed=[*good.replayed, decided(0, 2, "a", (0, 0)).content]),
        {"mismatched": 1},
    ),
    "an alert is missing": (lambda good: good._replace(alerts=()), {"misalerted": 1}),
    "an alert is doubled": (lambda good: good._replace(alerts=[(0, 1), (0, 1)]), {"misalerted": 1}),
    "an alert is about an event that needs none": (
        lambda good: good._replace(alerts=[(0, 1), (1, 0)]),
        {"misalerted": 1},
    ),
    "a decision is about a record that never was": (with_decision(decided(1, 2, "z", (0, 3))), {"unknown": 1}),
    "a dead letter is about a partition that never was": (
        lambda good: good._replace(letters=[*good.letters, (letter_content("oversize", 7, 0), b"")]),
        {"unknown": 1},
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found(name: str) -> None:
    plant, changes = PLANTED[name]
    planted, good = verdict(plant(Outputs())), verdict(Outputs())
    counts = {name: value for name in changes for value in [getattr(planted, name)]}
    assert counts == changes
    assert replace(planted, examples={}, mismatches=[], **{n: getattr(good, n) for n in changes}) == good
    assert all(
        planted.examples.get(name) for name in changes.keys() & {"lost", "duplicated", "reordered", "mismatched"}
    )


def test_a_record_is_no_duplicate_of_what_came_later_or_elsewhere() -> None:
    ledger = Ledger({0: 2, 1: 1})
    for place in ((0, 0), (0, 1), (1, 0)):
        ledger.add_record(*place, b'{"event_id":"a"}')
    ledger.add_decision(Content(0, 1, 1, event_hash("a")), (0, 0))
    found = ledger.verdict()
    assert (found.lost, found.duplicates, found.mismatched) == (2, 0, None)


def test_a_record_that_was_not_read_from_the_input_shows() -> None:
    ledger = Ledger({0: 2})
    ledger.add_record(0, 0, INPUT[0, 0])
    assert ledger.verdict().events == 1


DECISION = (
    b'{"decision_id":"in-3-17","event_id":"a","decided_at":1,"source":{"topic":"in","partition":3,"offset":17},'
    b'"decision":"review","probability":0.25}'
)


def test_all_of_a_decision_counts_but_when_it_was_made() -> None:
    content = decision_content(DECISION)
    assert content[:2] == (3, 17)
    assert content.flagged
    assert decision_content(DECISION.replace(b'"decided_at":1', b'"decided_at":2')) == content
    for part, other in (
        (b"0.25", b"0.250000000001"),
        (b'"in-3-17"', b'"in-3-18"'),
        (b'"topic":"in"', b'"topic":"out"'),
        (b'"a"', b'"b"'),
    ):
        assert decision_content(DECISION.replace(part, other)).digest != content.digest
    assert not decision_content(DECISION.replace(b"review", b"approve")).flagged
