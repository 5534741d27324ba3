"""The report of a run as one HTML page that needs nothing else: no script, no font, no other file."""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape
from string import Template

from loadtest.run.outcome import Outcome
from loadtest.run.text import conclusion, figures, plan_text

_PAGE = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>Load test: $profile</title>
<style>
:root { color-scheme: light; }
body { margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 62rem; background: #fff; color: #1c2329;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", "Liberation Sans", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .25rem; }
h2 { font-size: 1.2rem; margin: 2.75rem 0 .5rem; }
.plan, figcaption, footer { color: #55606b; }
.conclusion { font-size: 1.15rem; margin: 1.25rem 0; }
.failures { border-left: 3px solid #a3211a; margin: 1rem 0; padding: .1rem 0 .1rem 1rem; list-style: none; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .9rem; border-bottom: 1px solid #e5e8eb; text-align: right; white-space: nowrap; }
th { font-weight: 400; }
thead th { font-weight: 600; border-bottom: 2px solid #b8c0c8; }
th:first-child { text-align: left; padding-left: 0; }
figure { margin: 1.25rem 0 2rem; } img { max-width: 100%; height: auto; display: block; }
footer { margin-top: 3rem; font-size: .875rem; overflow-wrap: anywhere; }
@media print { body { max-width: none; padding: 0; } figure, tr { break-inside: avoid; } }
</style>
</head>
<body>
<header>
<h1>Load test: $profile</h1>
<p class="plan">$plan</p>
</header>
<main>
<p class="conclusion">$conclusion</p>
$failures
<h2>Figures</h2>
<div class="scroll">$figures</div>
$pictures
<h2>Attacks</h2>
<div class="scroll">$attacks</div>
</main>
<footer>$footer</footer>
</body>
</html>
""")

_CAPTIONS = {
    "percentiles.png": (
        "Latency by percentile",
        "From the time at which an event was to be sent to the arrival of its decision at a consumer.",
    ),
    "latency.png": ("Latency over time", "Events by the second in which they were to be sent."),
    "throughput.png": (
        "Throughput and lag",
        "Events due and decisions that arrived in each second, and how many events waited at its end.",
    ),
    "worker.png": ("The worker's process", "As it says itself at /metrics."),
    "stages.png": ("Where a batch's time goes", "Wall time of each stage, waiting included, per event that counts."),
}


def page(outcome: Outcome, pictures: dict[str, bytes]) -> str:
    """The page; `pictures` are PNG by name of file, shown in that order."""
    return _PAGE.substitute(
        profile=escape(outcome.profile),
        plan=escape(plan_text(outcome)),
        conclusion=escape(conclusion(outcome)),
        failures=_failures(outcome.failures),
        figures=_table("figures", ["", ""], figures(outcome)),
        pictures="\n".join(_picture(name, content) for name, content in pictures.items()),
        attacks=_attacks(outcome),
        footer=_footer(outcome),
    )


def _failures(failures: Sequence[str]) -> str:
    return f'<ul class="failures">{"".join(f"<li>{escape(one)}</li>" for one in failures)}</ul>' if failures else ""


def _picture(name: str, content: bytes) -> str:
    title, caption = _CAPTIONS[name]
    source = f"data:image/png;base64,{b64encode(content).decode()}"
    return (
        f'<h2>{escape(title)}</h2><figure><img src="{source}" alt="{escape(title)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _attacks(outcome: Outcome) -> str:
    rows = [
        (
            one.kind.replace("_", " "),
            f"{one.started:,}",
            f"{one.detected:,}",
            "" if one.recall is None else f"{100 * one.recall:.1f} %",
            "" if one.seconds_to_alert is None else f"{one.seconds_to_alert:.2f} s",
        )
        for one in outcome.attacks
    ]
    return _table("attacks", ["", "began", "found", "recall", "median to the first alert"], rows)


def _table(name: str, titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The first cell of a row is its heading."""
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in titles)
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    )
    return f'<table id="{name}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _footer(outcome: Outcome) -> str:
    texts = (
        f"Seed {outcome.seed}.",
        ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in outcome.machine.items()) + ".",
        ", ".join(f"{name} {value}" for name, value in outcome.versions.items()) + ".",
        "report.json has every figure of this page with all digits, and each second.",
    )
    return "<br>".join(map(escape, texts))
