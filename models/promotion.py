"""Whether a challenger may take the champion's place: the checks of `tidegate models gate`.

Worse counts only beyond noise. A figure fails where 95 % of the resampled differences lie wholly on the worse side:

    challenger - champion   ----------------[=====|=====]---------------->   passes: it may as well be better
                            ---[=====|=====]----------------------------->   fails
                                               -margin   0
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.calibration import risk_scores
from models.contest import Contest, Side
from models.labelled import AMOUNT, NO_CARD, TIME, LabelledRows
from models.ranking import CardRanking, Ranking, card_ranking_of, ranking_of
from models.resample import RESAMPLES, Units, draws, interval_of, units_of

Float64 = NDArray[np.float64]
Int8 = NDArray[np.int8]
Int64 = NDArray[np.int64]
Verdict: TypeAlias = Literal["passed", "failed", "not made", "not needed", "left out"]

RATES = ("auc", "average_precision", "recall", "card_precision")
FIGURES = (*RATES, "cost")
CHECKS = (*FIGURES, "parity", "latency")
# Of these a challenger must not have more.
LESS_IS_BETTER = ("cost", "parity", "latency")


@dataclass(frozen=True, slots=True)
class Terms:
    """What the challenger is held to.

    `margin`: how much lower a rate may be, beyond noise; `cost_margin`: how much higher the cost, as a share of the
    champion's. `challenge`: the risk score from which an event is not approved, which costs `cost_alert`. A fraud that
    is approved costs its amount, or `cost_fraud` where the table has no amounts. `tolerance`: |dp| of an imported
    model against its original. `slower_max`: times the champion's time. `frauds_min`: cards with a fraud, below which
    no figure says anything. `without`: checks that are not asked for.
    """

    challenge: int
    margin: float = 0.0
    cost_margin: float = 0.0
    cost_alert: float = 5.0
    cost_fraud: float | None = None
    tolerance: float = 1e-5
    slower_max: float = 2.0
    frauds_min: int = 30
    without: tuple[str, ...] = ()


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the result.

    Rates are shares, `cost` is in major units for all rows, `parity` the greatest |dp|, `latency` the median
    milliseconds for 256 rows. `limit`: the worst that passes. `difference`: the 95 % interval of challenger - champion.
    None where there is no such value; `detail` says why.
    """

    name: str
    verdict: Verdict
    challenger: float | None = None
    champion: float | None = None
    limit: float | None = None
    difference: tuple[float, float] | None = None
    detail: str = ""


class Contender(msgspec.Struct, frozen=True, kw_only=True):
    """Which model it was."""

    model: str
    sha256: str


class Promotion(msgspec.Struct, frozen=True, kw_only=True):
    """The result; `passed` where every check has passed, is not needed or was left out.

    `rows` have a label, `unlabelled` do not and were left out. What was resampled, `units` in number, are `cards` or
    `events`, `units_with_fraud` of them with a fraud.
    """

    passed: bool
    challenger: Contender
    champion: Contender
    terms: Terms
    table_sha256: str
    rows: int
    unlabelled: int
    frauds: int
    resampled: Literal["cards", "events"]
    units: int
    units_with_fraud: int
    resamples: int
    checks: list[Check]
    notes: list[str]


def judge(contest: Contest, terms: Terms, seconds: tuple[float, float] | None) -> Promotion:
    """All checks; the same for the same models, rows and terms, but for `seconds`.

    `seconds`: the median time of an inference of the challenger and of the champion; None where it is not asked for.
    """
    rows, units = contest.rows, units_of(contest.rows.labels, contest.rows.cards)
    checks = [*_figure_checks(contest, terms, units), _parity(contest, terms.tolerance)]
    if seconds is not None:
        checks.append(_latency(seconds, terms.slower_max))
    made = {check.name: check for check in checks}
    left_out = {name: Check(name=name, verdict="left out", detail="not asked for") for name in terms.without}
    ordered = [(made | left_out)[name] for name in CHECKS if name in made or name in left_out]
    return Promotion(
        passed=all(check.verdict not in ("failed", "not made") for check in ordered),
        challenger=Contender(model=contest.challenger.reference, sha256=contest.challenger.model.sha256),
        champion=Contender(model=contest.champion.reference, sha256=contest.champion.model.sha256),
        terms=terms,
        table_sha256=rows.sha256,
        rows=len(rows.labels),
        unlabelled=rows.unlabelled,
        frauds=int(rows.labels.sum()),
        resampled="cards" if units.cards else "events",
        units=units.number,
        units_with_fraud=units.frauds,
        resamples=RESAMPLES,
        checks=ordered,
        notes=_notes(contest),
    )


@dataclass(frozen=True, slots=True)
class _Judged:
    """What the figures of one model are made of."""

    ranking: Ranking
    cards: CardRanking | None
    cost: Float64 | None

    def figures(self, drawn: Int64, units: Units) -> list[float]:
        """FIGURES, with each unit counted as often as it was drawn; NaN for what there is no column for."""
        weights = drawn[units.of]
        return [
            *self.ranking.figures(weights),
            np.nan if self.cards is None else self.cards.precision(drawn[: units.cards]),
            np.nan if self.cost is None else float(weights @ self.cost),
        ]


def _judged(side: Side, rows: LabelledRows, terms: Terms) -> _Judged:
    ranking = ranking_of(rows.labels, side.probabilities)
    return _Judged(ranking, _card_ranking(side, rows), costs_of(side, rows, terms))


def _card_ranking(side: Side, rows: LabelledRows) -> CardRanking | None:
    if rows.cards is None or rows.times_ms is None or not (rows.cards != NO_CARD).any():
        return None
    of_card = rows.cards != NO_CARD
    return card_ranking_of(
        rows.labels[of_card], side.probabilities[of_card], rows.cards[of_card], rows.times_ms[of_card]
    )


def costs_of(side: Side, rows: LabelledRows, terms: Terms) -> Float64 | None:
    """What each row [n] costs as the model has it decided; None where nobody knows what a fraud costs."""
    if rows.amounts is None and terms.cost_fraud is None:
        return None
    lost = np.full(len(rows.labels), terms.cost_fraud) if rows.amounts is None else rows.amounts
    approved = risk_scores(side.model.manifest.calibration, side.probabilities) < terms.challenge
    return costs_where(approved, rows.labels, lost, terms.cost_alert)


def costs_where(approved: NDArray[np.bool_], labels: Int8, amounts: Float64, cost_alert: float) -> Float64:
    """What each row [n] costs.

    A fraud that is approved costs its amount, nothing where that is below zero; any row that is not approved costs an
    alert.
    """
    return np.where(approved, np.where(labels == 1, np.maximum(amounts, 0.0), 0.0), cost_alert)


def _figure_checks(contest: Contest, terms: Terms, units: Units) -> list[Check]:
    wanted = [(at, name) for at, name in enumerate(FIGURES) if name not in terms.without]
    if not wanted:
        return []
    sides = [_judged(side, contest.rows, terms) for side in (contest.challenger, contest.champion)]
    once = np.ones(units.number, np.int64)
    found = np.array([side.figures(once, units) for side in sides])
    if units.frauds >= terms.frauds_min:
        drawn = [[side.figures(draw, units) for side in sides] for draw in draws(units, contest.rows.labels)]
        differences = np.array(drawn)[:, 0] - np.array(drawn)[:, 1]
    checks = []
    for at, name in wanted:
        challenger, champion = found[:, at].tolist()
        if missing := _missing(name, contest, terms):
            checks.append(Check(name=name, verdict="not made", detail=missing))
        elif units.frauds < terms.frauds_min:
            kind = "cards" if units.cards else "events"
            detail = f"{units.frauds} {kind} with a fraud are fewer than the {terms.frauds_min} that it takes"
            checks.append(Check(name=name, verdict="not made", challenger=challenger, champion=champion, detail=detail))
        else:
            margin = terms.cost_margin * champion if name == "cost" else terms.margin
            checks.append(not_worse(name, challenger, champion, differences[:, at], margin))
    return checks


def not_worse(name: str, challenger: float, champion: float, differences: Float64, margin: float) -> Check:
    """Fails where the interval of the resampled differences (challenger - champion) lies wholly beyond the margin."""
    low, high = interval_of(differences)
    difference = challenger - champion
    if name in LESS_IS_BETTER:
        limit = champion + margin + max(0.0, difference - low)
        passed = challenger <= limit
    else:
        limit = champion - margin - max(0.0, high - difference)
        passed = challenger >= limit
    return Check(
        name=name,
        verdict="passed" if passed else "failed",
        challenger=challenger,
        champion=champion,
        limit=limit,
        difference=(low, high),
    )


def _missing(name: str, contest: Contest, terms: Terms) -> str:
    """Why a figure cannot be had from these rows; empty where it can."""
    rows = contest.rows
    if name == "cost" and rows.amounts is None and terms.cost_fraud is None:
        return f"the table has no {AMOUNT}, and there is no fixed cost of a fraud (--cost-fraud)"
    if name != "card_precision":
        return ""
    if rows.cards is None:
        return (
            f"the table has no column {contest.card_column}: `features backfill --keys` writes card.key, "
            "--card-column names another"
        )
    if rows.times_ms is None:
        return f"the table has no column {TIME}"
    return "" if (rows.cards != NO_CARD).any() else f"no labelled row has a {contest.card_column}"


def _parity(contest: Contest, tolerance: float) -> Check:
    """What the manifest says of the import: how far the model is from its original."""
    origin, before = contest.challenger.model.manifest.imported, contest.champion.model.manifest.imported
    champion = None if before is None else before.parity.max
    if origin is None:
        return Check(
            name="parity", verdict="not needed", champion=champion, detail="it was trained here, it has no original"
        )
    return Check(
        name="parity",
        verdict="passed" if origin.parity.max <= tolerance else "failed",
        challenger=origin.parity.max,
        champion=champion,
        limit=tolerance,
        detail=f"on the {origin.parity.rows:,} rows of its import",
    )


def _latency(seconds: tuple[float, float], slower_max: float) -> Check:
    challenger, champion = (1_000 * value for value in seconds)
    limit = slower_max * champion
    return Check(
        name="latency",
        verdict="passed" if challenger <= limit else "failed",
        challenger=challenger,
        champion=champion,
        limit=limit,
        detail=f"{challenger / champion:.2f} times the champion's, at most {slower_max:g}",
    )


def _notes(contest: Contest) -> list[str]:
    """What makes the comparison less than it seems."""
    notes = []
    for side in (contest.challenger, contest.champion):
        manifest = side.model.manifest
        known = {
            *([manifest.training.data_sha256] if manifest.training else []),
            *([manifest.imported.reference_sha256] if manifest.imported else []),
        }
        if contest.rows.sha256 in known:
            notes.append(f"{side.reference} was trained, or calibrated at its import, with this very table")
    return notes
