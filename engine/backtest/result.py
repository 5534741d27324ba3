"""The result of a backtest: one object, from which JSON, table and page are all made.

An alert is an event that is not approved. A fraud is caught where it is an alert, and lost where it is approved.
Whatever compares with labels leaves out the events that have none.
"""

import msgspec


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What the events are judged by.

    `cost_alert`: of an event that is not approved, in major units of `currency`, which has `minor_per_major`. `top`:
    how many cards are looked at each day. `card`: the entity that cards are.
    """

    currency: str
    minor_per_major: int
    card: str
    cost_alert: float
    top: int


class SideFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One side.

    Money is in major units, and nothing where an amount is below zero. `precision`, `recall`, `card_precision` and
    `money_caught_share` are shares, None where there is nothing to take a share of. `cost`: money lost, and
    `cost_alert` for each labelled event that is not approved.
    """

    policy: str
    thresholds: tuple[int, int, int]
    rules: int
    model: str
    model_sha256: str
    decisions: dict[str, int]
    alerts: int
    alerts_per_day: float
    alerts_per_day_max: int
    precision: float | None
    recall: float | None
    card_precision: float | None
    frauds_caught: int
    frauds_lost: int
    money_caught: float
    money_lost: float
    money_caught_share: float | None
    false_positives: int
    false_positives_money: float
    false_positives_cost: float
    cost: float


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """The events that one side decided so, and the other so."""

    running: str
    candidate: str
    events: int
    frauds: int
    genuine: int
    unlabelled: int
    fraud_money: float


class Day(msgspec.Struct, frozen=True, kw_only=True):
    """One day (UTC) that has events."""

    day: str
    events: int
    frauds: int
    running_alerts: int
    candidate_alerts: int


class Backtest(msgspec.Struct, frozen=True, kw_only=True):
    """The result. `changes` has each of the 4 x 4 pairs of decisions, `changed` counts the events off the diagonal.

    `earlier` events have only built the state. `labels`: those in the file. `card_precision_possible`: what the best
    ranking would have.
    """

    records: int
    dead_letters: int
    duplicates: int
    earlier: int
    events: int
    labels: int
    frauds: int
    genuine: int
    unlabelled: int
    fraud_money: float
    card_precision_possible: float | None
    terms: Terms
    running: SideFigures
    candidate: SideFigures
    changed: int
    changes: list[Change]
    days: list[Day]
    notes: list[str]
