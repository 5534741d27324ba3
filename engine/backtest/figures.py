"""What the decisions of both sides are worth, counted. Needs the `train` extra."""

from datetime import UTC, datetime

import msgspec
import numpy as np

from engine.backtest.columns import CANDIDATE, NO_CARD, RUNNING, Decided
from engine.backtest.result import Backtest, Change, Day, SideFigures, Terms
from engine.backtest.run import BacktestSummary, Contender
from engine.events import Bool, Int64
from engine.policy.precedence import DECISIONS
from models.metrics import DAY_MS, card_precision
from models.promotion import costs_where


def figures(
    decided: Decided, summary: BacktestSummary, sides: tuple[Contender, Contender], terms: Terms, labels: int
) -> Backtest:
    """All figures of n events, n >= 0."""
    days, of_day = np.unique(decided.times_ms // DAY_MS, return_inverse=True)
    alerts_of_days = [np.bincount(of_day[alerts], minlength=len(days)) for alerts in decided.alerts]
    found = [
        _side(decided, number, side, terms, alerts_of_days[number])
        for number, side in zip((RUNNING, CANDIDATE), sides, strict=True)
    ]
    result = Backtest(
        records=summary.records,
        dead_letters=summary.dead_letters,
        duplicates=summary.duplicates,
        earlier=summary.earlier,
        events=len(decided),
        labels=labels,
        frauds=_count(decided.frauds),
        genuine=_count(decided.genuine),
        unlabelled=_count(~decided.labelled),
        fraud_money=_money(decided, decided.frauds, terms),
        card_precision_possible=_card_precision(decided, RUNNING, terms)[1],
        terms=terms,
        running=found[RUNNING],
        candidate=found[CANDIDATE],
        changed=_count(decided.codes[RUNNING] != decided.codes[CANDIDATE]),
        changes=_changes(decided, terms),
        days=_days(decided, days, of_day, alerts_of_days),
        notes=[],
    )
    return msgspec.structs.replace(result, notes=_notes(result))


def _side(decided: Decided, number: int, side: Contender, terms: Terms, alerts_of_days: Int64) -> SideFigures:
    codes, alerts = decided.codes[number], decided.alerts[number]
    caught, false = alerts & decided.frauds, alerts & decided.genuine
    lost = ~alerts & decided.frauds
    amounts = decided.amounts_minor / terms.minor_per_major
    known = decided.labelled
    counts = np.bincount(codes, minlength=len(DECISIONS)).tolist()
    policy = side.program.policy
    return SideFigures(
        policy=policy.label,
        thresholds=policy.thresholds,
        rules=len(policy.rules),
        model=side.model.label,
        model_sha256=side.model.sha256,
        decisions=dict(zip(DECISIONS, counts, strict=True)),
        alerts=_count(alerts),
        alerts_per_day=_count(alerts) / max(1, len(alerts_of_days)),
        alerts_per_day_max=int(alerts_of_days.max(initial=0)),
        precision=_share(_count(caught), _count(caught | false)),
        recall=_share(_count(caught), _count(decided.frauds)),
        card_precision=_card_precision(decided, number, terms)[0],
        frauds_caught=_count(caught),
        frauds_lost=_count(lost),
        money_caught=_money(decided, caught, terms),
        money_lost=_money(decided, lost, terms),
        money_caught_share=_share(_money(decided, caught, terms), _money(decided, decided.frauds, terms)),
        false_positives=_count(false),
        false_positives_money=_money(decided, false, terms),
        false_positives_cost=terms.cost_alert * _count(false),
        cost=float(costs_where(~alerts[known], decided.labels[known], amounts[known], terms.cost_alert).sum()),
    )


def _card_precision(decided: Decided, number: int, terms: Terms) -> tuple[float | None, float | None]:
    """By the risk score, which the weights of rules are part of and their actions are not; and the best possible."""
    rows = decided.labelled & (decided.cards != NO_CARD)
    if not rows.any():
        return None, None
    labels, scores = decided.labels[rows], decided.scores[number, rows]
    return card_precision(labels, scores, decided.cards[rows], decided.times_ms[rows], terms.top)


def _changes(decided: Decided, terms: Terms) -> list[Change]:
    changes = []
    for before, running in enumerate(DECISIONS):
        for after, candidate in enumerate(DECISIONS):
            rows = (decided.codes[RUNNING] == before) & (decided.codes[CANDIDATE] == after)
            change = Change(
                running=running,
                candidate=candidate,
                events=_count(rows),
                frauds=_count(rows & decided.frauds),
                genuine=_count(rows & decided.genuine),
                unlabelled=_count(rows & ~decided.labelled),
                fraud_money=_money(decided, rows & decided.frauds, terms),
            )
            changes.append(change)
    return changes


def _days(decided: Decided, days: Int64, of_day: Int64, alerts_of_days: list[Int64]) -> list[Day]:
    events = np.bincount(of_day, minlength=len(days))
    frauds = np.bincount(of_day[decided.frauds], minlength=len(days))
    return [
        Day(
            day=datetime.fromtimestamp(day * DAY_MS / 1_000, UTC).date().isoformat(),
            events=count,
            frauds=fraud_count,
            running_alerts=running,
            candidate_alerts=candidate,
        )
        for day, count, fraud_count, running, candidate in zip(
            *(column.tolist() for column in (days, events, frauds, *alerts_of_days)), strict=True
        )
    ]


def _notes(result: Backtest) -> list[str]:
    """What makes the comparison say less than it seems to."""
    notes = []
    if not result.changed:
        notes.append("both sides decide every event alike")
    if not result.frauds:
        notes.append("no event is labelled as fraud, so recall and money say nothing")
    if result.unlabelled:
        notes.append(
            f"{result.unlabelled:,} of {result.events:,} events have no label and count neither as fraud nor as genuine"
        )
    if result.earlier:
        notes.append(f"{result.earlier:,} earlier events have only built the state")
    if result.dead_letters:
        notes.append(f"{result.dead_letters:,} of {result.records:,} records are no events, and decided by neither")
    return notes


def _count(rows: Bool) -> int:
    return int(np.count_nonzero(rows))


def _money(decided: Decided, rows: Bool, terms: Terms) -> float:
    """Summed in minor units, so that no cent is lost on the way."""
    return int(np.maximum(decided.amounts_minor[rows], 0).sum()) / terms.minor_per_major


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None
