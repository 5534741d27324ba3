"""The result of the promotion gate, as a person reads it: lines for a terminal, and Markdown with pictures."""

from pathlib import Path

from models.contest import Contest
from models.labelled import AMOUNT
from models.plots import plot_precision_recall, plot_scores
from models.promotion import LESS_IS_BETTER, Check, Promotion

REPORT_FILE, CURVE_FILE, SCORES_FILE = "report.md", "precision-recall.png", "scores.png"


def lines(result: Promotion) -> list[str]:
    """What was compared on what, a line for each check, and the verdict."""
    texts = [f"{result.challenger.model} against {result.champion.model}: {_rows(result)}"]
    texts += [f"note: {note}" for note in result.notes]
    texts += [f"{check.verdict:10} {check.name}: {_line(check)}" for check in result.checks]
    return [*texts, conclusion(result)]


def conclusion(result: Promotion) -> str:
    """One line: passed, or the names of the checks that are in the way."""
    wrong = [
        f"{', '.join(names)} {verdict}"
        for verdict in ("failed", "not made")
        if (names := [check.name for check in result.checks if check.verdict == verdict])
    ]
    verdict = "passed" if result.passed else f"did not pass: {'; '.join(wrong)}"
    return f"{result.challenger.model} {verdict}"


def write_report(folder: Path, result: Promotion, contest: Contest) -> None:
    """Writes `report.md`, `precision-recall.png` and `scores.png`; OSError where that does not go."""
    folder.mkdir(parents=True, exist_ok=True)
    probabilities = {
        f"challenger {contest.challenger.reference}": contest.challenger.probabilities,
        f"champion {contest.champion.reference}": contest.champion.probabilities,
    }
    plot_precision_recall(folder / CURVE_FILE, contest.rows.labels, probabilities)
    plot_scores(folder / SCORES_FILE, contest.rows.labels, probabilities)
    (folder / REPORT_FILE).write_text(markdown(result), "utf-8")


def markdown(result: Promotion) -> str:
    """The report."""
    table = [
        f"| {check.name} | {_shown(check, check.challenger)} | {_shown(check, check.champion)} | {_limit(check)} "
        f"| {_difference(check)} | {check.verdict} | {check.detail} |"
        for check in result.checks
    ]
    terms = result.terms
    lost = AMOUNT if terms.cost_fraud is None else f"{AMOUNT}, or {terms.cost_fraud:g} where the table has none"
    text = f"""# {result.challenger.model} against {result.champion.model}

**{conclusion(result)}**

| check | challenger | champion | limit | difference, 95 % | verdict | |
| --- | --- | --- | --- | --- | --- | --- |
{chr(10).join(table)}

Recall is that at 0.1 % false positives; card precision is the share of cards with a fraud among the 100 that are looked
at each day; cost is in major units for all rows; parity is the greatest difference of a probability from that of the
original; latency is the median time of 256 rows in milliseconds. The intervals hold 95 % of {result.resamples} draws of
{result.units:,} {result.resampled}, on each of which both models were judged.

| | |
| --- | --- |
| rows | {_rows(result)} |
| table | sha256 {result.table_sha256} |
| challenger | {result.challenger.model}, sha256 {result.challenger.sha256} |
| champion | {result.champion.model}, sha256 {result.champion.sha256} |
| approved | risk scores below {terms.challenge} |
| costs | {terms.cost_alert:g} for an event not approved, for a missed fraud {lost} |
| margins | {terms.margin:g} of rates, {terms.cost_margin:g} of the cost |

"""
    notes = "".join(f"Note: {note}.\n\n" for note in result.notes)
    return f"{text}{notes}![Precision over recall]({CURVE_FILE})\n\n![Probabilities]({SCORES_FILE})\n"


def _rows(result: Promotion) -> str:
    with_fraud = "" if result.resampled == "events" else f" on {result.units_with_fraud:,} cards"
    return f"{result.rows:,} rows with a label, {result.unlabelled:,} without; {result.frauds:,} frauds{with_fraud}"


def _line(check: Check) -> str:
    if check.challenger is None:
        return check.detail
    text = f"{_shown(check, check.challenger)}, champion {_shown(check, check.champion)}"
    text += f", {_limit(check)}" if check.limit is not None else ""
    text += f", difference {_difference(check)}" if check.difference is not None else ""
    return f"{text}; {check.detail}" if check.detail else text


def _limit(check: Check) -> str:
    if check.limit is None:
        return "-"
    return f"{'at most' if check.name in LESS_IS_BETTER else 'at least'} {_shown(check, check.limit)}"


def _difference(check: Check) -> str:
    if check.difference is None:
        return "-"
    low, high = check.difference
    return f"{_shown(check, low)} to {_shown(check, high)}"


def _shown(check: Check, value: float | None) -> str:
    if value is None:
        return "-"
    formats = {"cost": ",.2f", "parity": ".3g", "latency": ".3f"}
    return format(value, formats.get(check.name, ".4f"))
