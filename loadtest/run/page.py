"""The report as one HTML page that needs nothing else: no script, no font, no other file."""

from base64 import b64encode
from collections.abc import Iterable, Mapping
from html import escape
from string import Template
from typing import Any

_PAGE = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>$title</title>
<style>
:root { color-scheme: light; }
body { margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 62rem; background: #fff; color: #1c2329;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", "Liberation Sans", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.75rem; margin: 0 0 .25rem; } h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; }
.basis, figcaption, footer { color: #55606b; }
.bad { border-left: 3px solid #a3211a; padding-left: 1rem; color: #a3211a; }
.good { border-left: 3px solid #11662f; padding-left: 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .9rem; border-bottom: 1px solid #e5e8eb; text-align: right; }
th { font-weight: 600; } tbody th { font-weight: 400; } thead th { border-bottom: 2px solid #b8c0c8; }
th:first-child { text-align: left; padding-left: 0; }
figure { margin: 1rem 0 2rem; } img { max-width: 100%; height: auto; display: block; }
footer { margin-top: 3rem; font-size: .875rem; overflow-wrap: anywhere; }
@media print { figure, tr { break-inside: avoid; } }
</style>
</head>
<body>
<h1>$title</h1>
<p class="basis">$basis</p>
$verdict
$body
<footer>$footer</footer>
</body>
</html>
""")

_CAPTIONS = {
    "percentiles.png": ("Latency by percentile", "From when an event was due to the arrival of its decision."),
    "latency.png": ("Latency over time", "By the second in which events were due; the grey part is not counted."),
    "throughput.png": ("Throughput and lag", "Events due, decisions that arrived, and what waited."),
    "worker.png": ("CPU and memory of the worker", "Once a second, of the whole process; 1 is one core."),
    "stages.png": ("Cost of each stage", "Wall time in the pipeline's thread, counted part of the run."),
    "capacity.png": ("Latency over throughput", "One point for each rate that was tried."),
}
# Key in the JSON, title, unit by which it is shown.
_FIGURES = (
    ("sent", "records sent", ""),
    ("decided", "events decided", ""),
    ("dead_letters", "dead letters", ""),
    ("duplicated", "decided twice", ""),
    ("missing", "missing", ""),
    ("events_counted", "events counted", ""),
    ("p50_ms", "p50", "ms"),
    ("p99_ms", "p99", "ms"),
    ("p999_ms", "p99.9", "ms"),
    ("max_ms", "largest", "ms"),
    ("events_per_second", "events/s", ""),
    ("send_delay_ms_max", "largest delay of the generator", "ms"),
    ("cpu_us_per_event", "CPU of the worker per event", "us"),
    ("rss_bytes_first", "RSS when counting began", "bytes"),
    ("rss_bytes_last", "RSS at the end", "bytes"),
)


def run_page(figures: Mapping[str, Any], pictures: Mapping[str, bytes]) -> str:
    """The page of one run; each cell of the table `figures` has the JSON's key and full value beside it."""
    rows = "".join(_figure(key, title, unit, figures[key]) for key, title, unit in _FIGURES)
    attacks = _table(
        "attacks",
        ("attack", "begun", "found", "recall", "median time to first alert"),
        [
            (a["kind"].replace("_", " "), f"{a['started']:,}", f"{a['found']:,}", _share(a["recall"]),
             "-" if a["seconds_to_alert_median"] is None else f"{a['seconds_to_alert_median']:.2f} s")
            for a in figures["attacks"]
        ],
    )  # fmt: skip
    body = (
        f'<h2>Figures</h2><table id="figures"><tbody>{rows}</tbody></table>{_pictures(pictures)}'
        f"<h2>Attacks</h2>{attacks}"
    )
    basis = (
        f"Profile {figures['profile']}, seed {figures['seed']}, {figures['delivery']}, read by a "
        f"{figures['isolation']} consumer: {figures['intended_events']:,} events in "
        f"{figures['seconds']:g} s, of which the first {figures['warm_up_s']:g} s are not counted"
    )
    return _page("Load test", basis, figures["invalid_because"], body, figures["machine"])


def capacity_page(figures: Mapping[str, Any], pictures: Mapping[str, bytes]) -> str:
    """The page of a search for capacity."""
    rows = "".join(
        _figure(key, title, unit, figures[key])
        for key, title, unit in (
            ("capacity_per_second", "highest rate held, events/s", ""),
            ("knee_per_second", "knee, events/s", ""),
            ("p99_bound_ms", "bound of p99", "ms"),
        )
    )
    steps = _table(
        "steps",
        ("events/s", "held", "p50, ms", "p99, ms", "p99.9, ms", "CPU, us/event"),
        [
            (f"{s['rate']:,.0f}", "yes" if s["held"] else "no",
             *(_number(s[key]) for key in ("p50_ms", "p99_ms", "p999_ms", "cpu_us_per_event")))
            for s in figures["steps"]
        ],
    )  # fmt: skip
    body = (
        f'<h2>Figures</h2><table id="figures"><tbody>{rows}</tbody></table>{_pictures(pictures)}<h2>Steps</h2>{steps}'
    )
    basis = f"Profile {figures['profile']}, {figures['delivery']}; {figures['ended_because']}"
    return _page("Capacity", basis, figures["invalid_because"], body, figures["machine"])


def _page(title: str, basis: str, reasons: list[str], body: str, machine: Mapping[str, Any]) -> str:
    verdict = (
        "".join(f'<p class="bad">Not valid: {escape(reason)}.</p>' for reason in reasons)
        if reasons
        else '<p class="good">Valid: the load was sent as intended.</p>'
    )
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    footer = (
        f"{machine['measured_at']}, {machine['system']}, {machine['cpus']} CPUs {machine['processor']}, "
        f"Python {machine['python']}; {versions}. report.json has every figure with all digits."
    )
    return _PAGE.substitute(
        title=title, basis=escape(basis), verdict=verdict, body=body, footer=escape(footer)
    )  # fmt: skip


def _figure(key: str, title: str, unit: str, value: float | None) -> str:
    full = "" if value is None else f' data-value="{value!r}"'
    shown = _number(value / 2**20 if unit == "bytes" and value is not None else value)
    unit = "" if value is None else "MiB" if unit == "bytes" else unit
    return f'<tr><th scope="row">{escape(title)}</th><td data-key="{key}"{full}>{shown} {unit}</td></tr>'


def _number(value: float | None) -> str:
    if value is None:
        return "not known"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _table(name: str, titles: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in titles)
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    )
    return f'<table id="{name}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _pictures(pictures: Mapping[str, bytes]) -> str:
    found = []
    for name, content in pictures.items():
        title, caption = _CAPTIONS[name]
        source = f"data:image/png;base64,{b64encode(content).decode()}"
        found.append(
            f'<h2>{escape(title)}</h2><figure><img src="{source}" alt="{escape(title)}">'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )
    return "\n".join(found)
