"""How good decisions were, estimated from those that were sampled and whose labels are known.

                  fraud       genuine
flagged           caught      false alarm      all are sampled: weight 1
approved          missed      passed           some are: each stands for `weight` of them

Sums of weights (Horvitz and Thompson, 1952) have the right expectation whatever the rate is, and whenever it changed.
Counts are kept per distinct weight, as whole numbers: what is added can be taken back to the last digit, so that the
figures depend on the facts and not on the order in which they came.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from engine.control.facts import Decided, Fact, Known
from engine.control.intervals import Interval, of_known, share_interval, sum_interval

DAY_MS = 86_400_000


class Group(NamedTuple):
    """What figures are told apart by. `day` of the decision, since 1970."""

    day: int
    model: str
    channel: str
    country: str
    currency: str


@dataclass(slots=True)
class Sums:
    """Of the events of one weight: how many, their amounts, and the squares of these."""

    events: int = 0
    amount: int = 0
    amount_squares: int = 0

    def add(self, other: "Sums", times: int = 1) -> None:
        """Adds it so many times."""
        self.events += times * other.events
        self.amount += times * other.amount
        self.amount_squares += times * other.amount_squares


# By whether it was flagged, whether it was fraud, and the weight.
Cell: TypeAlias = dict[tuple[bool, bool, float], Sums]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its 95% interval; None where there is nothing to tell it by."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Figures:
    """Of some of the decisions. Amounts in minor units; `labelled`: how many labels they rest on."""

    labelled: int
    precision: Estimate
    recall: Estimate
    false_positive_rate: Estimate
    value_caught: Estimate
    value_missed: Estimate


@dataclass(slots=True)
class Quality:
    """The labelled facts, summed up by group; cards that were flagged, by day."""

    cells: dict[Group, Cell] = field(default_factory=lambda: defaultdict(dict))
    # day -> card -> event -> (risk score, fraud)
    cards: dict[int, dict[str, dict[bytes, tuple[int, bool]]]] = field(default_factory=dict)

    def change(self, event: bytes, before: Fact, after: Fact) -> None:
        """Another thing is known of an event than before."""
        if before != after:
            self._count(event, before, -1)
            self._count(event, after, 1)

    def _count(self, event: bytes, fact: Fact, times: int) -> None:
        if fact.decided is None or fact.known is None:
            return
        decided, known = fact.decided, fact.known
        group = Group(
            decided.decided_at_ms // DAY_MS, decided.model, decided.channel, decided.country, decided.currency
        )
        kind = (decided.flagged, known.label == 1, decided.weight)
        cell = self.cells[group]
        sums = cell.setdefault(kind, Sums())
        sums.add(Sums(1, decided.amount_minor, decided.amount_minor**2), times)
        if not sums.events:
            del cell[kind]
        if decided.flagged and decided.card:
            self._count_card(event, decided, known, times)

    def _count_card(self, event: bytes, decided: Decided, known: Known, times: int) -> None:
        of_day = self.cards.setdefault(decided.decided_at_ms // DAY_MS, {})
        events = of_day.setdefault(decided.card, {})
        if times > 0:
            events[event] = (decided.risk_score, known.label == 1)
        else:
            events.pop(event, None)
            if not events:
                del of_day[decided.card]

    def figures(self, wanted: Callable[[Group], bool] = lambda group: True) -> Figures:
        """Over the groups that are wanted."""
        total: Cell = {}
        for group, cell in self.cells.items():
            if wanted(group):
                for kind, sums in cell.items():
                    total.setdefault(kind, Sums()).add(sums)
        return figures_of(total)

    def card_precision(self, cards: int, first_day: int = 0) -> float | None:
        """Of so many flagged cards a day, those of the highest risk scores, the share that had fraud; the days' mean.

        As in Le Borgne and others (2022), Reproducible machine learning for credit card fraud detection, chapter 4:
        what somebody finds who can look at so many a day. Equal scores stand in the order of the cards' keys.
        """
        shares = [_fraud_share(of_day, cards) for day, of_day in self.cards.items() if day >= first_day and of_day]
        return sum(shares) / len(shares) if shares else None


def _fraud_share(of_day: dict[str, dict[bytes, tuple[int, bool]]], cards: int) -> float:
    ranked = sorted(
        (-max(score for score, _ in events.values()), card, any(fraud for _, fraud in events.values()))
        for card, events in of_day.items()
    )
    first = ranked[:cards]
    return sum(fraud for _, _, fraud in first) / len(first)


def figures_of(cell: Cell) -> Figures:
    """The figures of these sums."""
    caught, false_alarms = _kind(cell, True, True), _kind(cell, True, False)
    missed, passed = _kind(cell, False, True), _kind(cell, False, False)
    # What one that was missed, and never seen, would have stood for.
    weight_max = max((weight for flagged, _, weight in cell if not flagged), default=0.0)
    alarms, frauds = caught.total + false_alarms.total, caught.total + missed.total
    return Figures(
        labelled=sum(sums.events for sums in cell.values()),
        precision=_estimate(
            caught.total, alarms, share_interval(caught.total, alarms, caught.squares + false_alarms.squares)
        ),
        recall=_estimate(caught.total, frauds, of_known(caught.total, missed.interval(weight_max))),
        false_positive_rate=_estimate(
            false_alarms.total,
            false_alarms.total + passed.total,
            of_known(false_alarms.total, passed.interval(weight_max)),
        ),
        value_caught=_value(caught),
        value_missed=_value(missed),
    )


@dataclass(frozen=True, slots=True)
class _Weighted:
    """Sums of weights and of weighted amounts, and of their squares."""

    total: float
    squares: float
    value: float
    value_squares: float

    def interval(self, weight_max: float) -> Interval:
        """Of how many there were."""
        return sum_interval(self.total, self.squares, weight_max)


def _kind(cell: Cell, flagged: bool, fraud: bool) -> _Weighted:
    # In one order, so that rounding is the same wherever the sums came from.
    found = sorted((kind[2], sums) for kind, sums in cell.items() if kind[:2] == (flagged, fraud))
    return _Weighted(
        total=sum(weight * sums.events for weight, sums in found),
        squares=sum(weight**2 * sums.events for weight, sums in found),
        value=sum(weight * sums.amount for weight, sums in found),
        value_squares=sum(weight**2 * sums.amount_squares for weight, sums in found),
    )


def _estimate(part: float, whole: float, interval: Interval) -> Estimate:
    return Estimate(part / whole, interval.low, interval.high) if whole > 0 else Estimate(None)


def _value(kind: _Weighted) -> Estimate:
    if kind.value <= 0:
        return Estimate(0.0)
    if kind.squares == kind.total:
        return Estimate(kind.value, kind.value, kind.value)
    low, high = sum_interval(kind.value, kind.value_squares, kind.value_squares / kind.value)
    return Estimate(kind.value, low, high)


def segments(groups: Iterable[Group], key: str) -> list[str]:
    """The values that a part of the group has, such as the channels."""
    return sorted({getattr(group, key) for group in groups})
