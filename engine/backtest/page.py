"""The report of a backtest as one HTML page that needs nothing else: no script, no font, no other file.

Everything that is not written here is escaped. The page's own policy forbids whatever would be loaded from elsewhere.
"""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape
from string import Template

from engine.backtest.result import Backtest, Change, SideFigures
from engine.backtest.text import (
    Line,
    basis,
    changed,
    conclusion,
    heading,
    lines,
    money,
    side_name,
    whole,
)
from engine.policy.precedence import DECISIONS
from engine.policy.settings import NEVER_REACHED

_PAGE = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>Backtest: $heading</title>
<style>
:root { color-scheme: light; }
body { margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 62rem; background: #fff; color: #1c2329;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", "Liberation Sans", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .25rem; }
h2 { font-size: 1.2rem; margin: 2.75rem 0 .5rem; }
p, dd { max-width: 46rem; }
.sides, .basis, figcaption, caption, footer { color: #55606b; }
.sides { margin: 0; overflow-wrap: anywhere; }
.conclusion { font-size: 1.15rem; margin: 1.25rem 0; }
.notes { border-left: 3px solid #d9a50b; margin: 1rem 0; padding: .1rem 0 .1rem 1rem; list-style: none; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .5rem; }
th, td { padding: .3rem .9rem; border-bottom: 1px solid #e5e8eb; text-align: right; white-space: nowrap; }
th { font-weight: 600; }
thead th { border-bottom: 2px solid #b8c0c8; vertical-align: bottom; }
tbody th { font-weight: 400; }
th:first-child, td.text { text-align: left; padding-left: 0; }
td.text { padding-left: .9rem; }
tr.part th { padding-left: 1.4rem; color: #55606b; }
tbody + tbody tr:first-child > * { border-top: 2px solid #b8c0c8; }
.better { color: #11662f; } .worse { color: #a3211a; }
td.same { background: #f2f4f6; } td.stricter { background: #fdeee0; } td.milder { background: #e4eff9; }
td.none { color: #7b8690; }
.key { padding: 0 .35rem; } .key.stricter { background: #fdeee0; } .key.milder { background: #e4eff9; }
figure { margin: 1.25rem 0 2rem; } img { max-width: 100%; height: auto; display: block; }
dt { font-weight: 600; margin-top: .6rem; } dd { margin: 0; }
summary { cursor: pointer; } details table { margin-top: .75rem; }
footer { margin-top: 3rem; font-size: .875rem; overflow-wrap: anywhere; }
@media (max-width: 40rem) {
  body { padding: 1.5rem 1rem 3rem; font-size: 14px; }
  th, td { padding: .3rem .4rem; } tbody th { white-space: normal; }
}
@media print { body { max-width: none; padding: 0; } figure, tr { break-inside: avoid; } }
</style>
</head>
<body>
<header>
<h1>Backtest</h1>
<p class="sides"><strong>Candidate</strong> $candidate<br><strong>Running</strong> $running</p>
</header>
<main>
<p class="conclusion">$conclusion</p>
<p class="basis">$basis.</p>
$notes
<h2>Figures</h2>
<div class="scroll">$figures</div>
$pictures
<h2>What changes</h2>
<div class="scroll">$matrix</div>
$changes
<h2>Days</h2>
<details><summary>$days_title</summary><div class="scroll">$days</div></details>
<h2>What the figures mean</h2>
$meanings
</main>
<footer>$footer</footer>
</body>
</html>
""")

_CAPTIONS = {
    "alerts-per-day.png": ("Alerts a day", "Events that each side does not approve, by day (UTC), and the frauds."),
    "thresholds.png": (
        "Precision and recall",
        "Lines: what the risk score alone would reach at each challenge threshold. Points: what was decided, by rules "
        "and all.",
    ),
    "money.png": (
        "Money caught and false positives",
        "Lines: what the risk score alone could trade. Points: what was decided; further up and further left is "
        "better.",
    ),
}


def page(result: Backtest, pictures: dict[str, bytes]) -> str:
    """The page; `pictures` are PNG by name of file, shown in that order."""
    return _PAGE.substitute(
        heading=escape(heading(result)),
        candidate=_side(result.candidate),
        running=_side(result.running),
        conclusion=escape(conclusion(result)),
        basis=escape(basis(result)),
        notes=_notes(result.notes),
        figures=_figures(result),
        pictures="\n".join(_picture(name, content) for name, content in pictures.items()),
        matrix=_matrix(result),
        changes=_changes(result),
        days_title=escape(f"{len(result.days):,} days with events"),
        days=_days(result),
        meanings=_meanings(result),
        footer=_footer(result),
    )


def _side(side: SideFigures) -> str:
    names = ("challenge", "review", "decline")
    thresholds = ", ".join(
        f"{name} {'never' if at == NEVER_REACHED else f'from {at}'}"
        for name, at in zip(names, side.thresholds, strict=True)
    )
    rules = "no rules" if not side.rules else "1 rule" if side.rules == 1 else f"{side.rules:,} rules"
    return escape(f"{side_name(side)}: {thresholds}, {rules}")


def _notes(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    return f'<ul class="notes">{"".join(f"<li>{escape(note)}</li>" for note in notes)}</ul>'


def _figures(result: Backtest) -> str:
    found = lines(result)
    decisions, worth = found[: len(DECISIONS)], found[len(DECISIONS) :]
    bodies = "".join(f"<tbody>{''.join(map(_figure, part))}</tbody>" for part in (decisions, worth))
    return f'<table id="figures">{_head("", "running", "candidate", "difference")}{bodies}</table>'


def _figure(line: Line) -> str:
    part = ' class="part"' if line.title.startswith(" ") else ""
    colour = {1: ' class="better"', -1: ' class="worse"'}.get(line.better, "")
    cells = f"<td>{escape(line.running)}</td><td>{escape(line.candidate)}</td>"
    return (
        f'<tr{part}><th scope="row">{escape(line.title.strip())}</th>{cells}<td{colour}>{escape(line.difference)}</td>'
        "</tr>"
    )


def _picture(name: str, content: bytes) -> str:
    title, caption = _CAPTIONS[name]
    source = f"data:image/png;base64,{b64encode(content).decode()}"
    return (
        f'<h2>{escape(title)}</h2><figure><img src="{source}" alt="{escape(title)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _matrix(result: Backtest) -> str:
    cells = {(change.running, change.candidate): change for change in result.changes}
    rows = []
    for running in DECISIONS:
        row = "".join(_cell(cells[running, candidate]) for candidate in DECISIONS)
        rows.append(f'<tr><th scope="row">{escape(running)}</th>{row}</tr>')
    caption = (
        "<caption>Events by the running decision (rows) and the candidate's (columns): "
        '<span class="key stricter">stricter</span> <span class="key milder">milder</span></caption>'
    )
    head = _head("running \\ candidate", *DECISIONS)
    return f'<table id="matrix">{caption}{head}<tbody>{"".join(rows)}</tbody></table>'


def _cell(change: Change) -> str:
    before, after = DECISIONS.index(change.running), DECISIONS.index(change.candidate)
    kind = "same" if before == after else "none" if not change.events else "stricter" if after > before else "milder"
    return f'<td class="{kind}">{whole(change.events)}</td>'


def _changes(result: Backtest) -> str:
    there = changed(result)
    if not there:
        return ""
    rows = [
        [
            f"{change.running} → {change.candidate}",
            *(whole(number) for number in (change.events, change.frauds, change.genuine, change.unlabelled)),
            money(change.fraud_money),
        ]
        for change in there
    ]
    head = _head("", "events", "frauds", "genuine", "no label", f"fraud, {result.terms.currency}")
    caption = "<caption>The changed events, and what they turned out to be</caption>"
    return f'<h2>Who is decided otherwise</h2><div class="scroll">{_table("changes", head, rows, caption)}</div>'


def _days(result: Backtest) -> str:
    rows = [
        [day.day, *map(whole, (day.events, day.frauds, day.running_alerts, day.candidate_alerts))]
        for day in result.days
    ]
    return _table("days", _head("day", "events", "frauds", "running alerts", "candidate alerts"), rows)


def _table(name: str, head: str, rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """The first cell of a row is its heading."""
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    )
    return f'<table id="{name}">{caption}{head}<tbody>{body}</tbody></table>'


def _head(*titles: str) -> str:
    cells = "".join(f'<th scope="col">{escape(title)}</th>' for title in titles)
    return f"<thead><tr>{cells}</tr></thead>"


def _meanings(result: Backtest) -> str:
    terms = result.terms
    possible = result.card_precision_possible
    best = "" if possible is None else f" The best ranking possible would have {100 * possible:.2f} %."
    meanings = {
        "Alert": "An event that is not approved: challenged, reviewed or declined.",
        "Precision, recall": "The share of labelled alerts that are fraud; the share of frauds that are alerts.",
        f"{terms.card} precision@{terms.top}": (
            f"Each day the {terms.top:,} with the highest risk score are looked at: the share of them with a fraud on "
            f"that day, as the mean of all days.{best}"
        ),
        "Caught, lost": "A fraud is caught where it is not approved, and lost where it is.",
        "Cost": (
            f"A fraud that is lost costs its amount, an alert costs {money(terms.cost_alert)} {terms.currency}, fraud "
            "or not. The cost of false positives is that of the alerts on genuine events."
        ),
        "Lists": "Were empty for both sides.",
    }
    texts = "".join(f"<dt>{escape(word)}</dt><dd>{escape(meaning)}</dd>" for word, meaning in meanings.items())
    return f"<dl>{texts}</dl>"


def _footer(result: Backtest) -> str:
    models = {side.model: side.model_sha256 for side in (result.running, result.candidate)}
    texts = [
        f"{result.records:,} records, {result.dead_letters:,} of them no events, {result.duplicates:,} duplicates; "
        f"{result.labels:,} labels.",
        *(f"Model {name}: sha256 {digest}." for name, digest in models.items()),
        "report.json has every figure of this page with all digits.",
    ]
    return "<br>".join(map(escape, texts))
