"""The figures of a backtest as people read them: the same words and numbers in the terminal and on the page."""

from collections.abc import Callable
from typing import NamedTuple

from engine.backtest.result import Backtest, Change, SideFigures
from engine.policy.precedence import DECISIONS

NOTHING = "–"  # noqa: RUF001


class Line(NamedTuple):
    """One figure of both sides, and how far apart they are; `better` is 1 for the candidate, -1 for the running one.

    0 where they are equal, or more of it is neither good nor bad.
    """

    title: str
    running: str
    candidate: str
    difference: str
    better: int


def lines(result: Backtest) -> list[Line]:
    """All figures, in the order in which they are read."""
    currency, terms = result.terms.currency, result.terms
    rows: list[tuple[str, str, Callable[[float], str], int]] = [
        ("alerts", "alerts", whole, 0),
        ("alerts a day, mean", "alerts_per_day", rate, 0),
        ("alerts a day, most", "alerts_per_day_max", whole, 0),
        ("precision of alerts", "precision", share, 1),
        ("recall", "recall", share, 1),
        (f"{terms.card} precision@{terms.top}", "card_precision", share, 1),
        ("frauds caught", "frauds_caught", whole, 1),
        ("frauds lost", "frauds_lost", whole, -1),
        (f"money caught, {currency}", "money_caught", money, 1),
        ("  share of all fraud money", "money_caught_share", share, 1),
        (f"money lost, {currency}", "money_lost", money, -1),
        ("false positives", "false_positives", whole, -1),
        (f"  their money, {currency}", "false_positives_money", money, -1),
        (f"  their cost, {currency}", "false_positives_cost", money, -1),
        (f"cost: money lost and all alerts, {currency}", "cost", money, -1),
    ]
    found = [_line(title, getattr(result.running, name), getattr(result.candidate, name), shown, sign)
             for title, name, shown, sign in rows]  # fmt: skip
    return [*_decisions(result), *found]


def _decisions(result: Backtest) -> list[Line]:
    sides = (result.running.decisions, result.candidate.decisions)
    return [_line(name, sides[0][name], sides[1][name], whole, 0) for name in DECISIONS]


def _line(title: str, running: float | None, candidate: float | None, shown: Callable[[float], str], sign: int) -> Line:
    if running is None or candidate is None:
        texts = [NOTHING if value is None else shown(value) for value in (running, candidate)]
        return Line(title, texts[0], texts[1], NOTHING, 0)
    difference = signed(candidate - running, shown)
    # What is too small to be shown is neither better nor worse.
    better = {"+": sign, "-": -sign}.get(difference[0], 0)
    return Line(title, shown(running), shown(candidate), difference, better)


def changed(result: Backtest) -> list[Change]:
    """The pairs of different decisions that there are, most events first."""
    there = [change for change in result.changes if change.events and change.running != change.candidate]
    return sorted(there, key=lambda change: -change.events)


def heading(result: Backtest) -> str:
    """What was held against what."""
    return f"{side_name(result.candidate)} against {side_name(result.running)}"


def side_name(side: SideFigures) -> str:
    """As in: policy rules/2, model fraud/7."""
    return f"policy {side.policy}, model {side.model}"


def basis(result: Backtest) -> str:
    """Which events it was."""
    if not result.days:
        return "no events"
    first, last = result.days[0].day, result.days[-1].day
    days = "1 day" if len(result.days) == 1 else f"{len(result.days):,} days"
    return (
        f"{result.events:,} events on {days} from {first} to {last} (UTC): {result.frauds:,} frauds worth "
        f"{money(result.fraud_money)} {result.terms.currency}, {result.genuine:,} genuine, "
        f"{result.unlabelled:,} without a label"
    )


def conclusion(result: Backtest) -> str:
    """What the candidate would have changed, in one sentence."""
    before, after = result.running, result.candidate
    if not result.changed:
        return "The candidate decides nothing otherwise."
    moved = [_moved("alert", after.alerts - before.alerts)]
    if result.frauds:
        moved.append(_moved("caught fraud", after.frauds_caught - before.frauds_caught))
    if result.genuine:
        moved.append(_moved("false positive", after.false_positives - before.false_positives))
    text = f"The candidate decides {result.changed:,} of {result.events:,} events otherwise: {', '.join(moved)}"
    if not (result.frauds or result.genuine):
        return f"{text}."
    saved = before.cost - after.cost
    return f"{text}. It costs {money(abs(saved))} {result.terms.currency} {'less' if saved >= 0 else 'more'}."


def _moved(thing: str, difference: int) -> str:
    if not difference:
        return f"as many {thing}s"
    plural = "" if abs(difference) == 1 else "s"
    return f"{abs(difference):,} {'more' if difference > 0 else 'fewer'} {thing}{plural}"


def whole(value: float) -> str:
    """A whole number."""
    return f"{value:,.0f}"


def rate(value: float) -> str:
    """A mean of whole numbers."""
    return f"{value:,.1f}"


def share(value: float) -> str:
    """In per cent."""
    return f"{100 * value:.2f} %"


def money(value: float) -> str:
    """In major units."""
    return f"{value:,.2f}"


def signed(value: float, shown: Callable[[float], str]) -> str:
    """A difference, with its sign where it is not zero; of shares in percentage points."""
    text = shown(abs(value)).replace(" %", " pp")
    if not any(digit in "123456789" for digit in text):
        return text
    return f"{'+' if value > 0 else '-'}{text}"
