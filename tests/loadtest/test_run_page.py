"""The page has the figures of the JSON, and needs nothing from elsewhere."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import orjson
import pytest

from loadtest.run.report import write_capacity_report, write_report
from tests.loadtest.test_run_capacity import CAPACITY
from tests.loadtest.test_run_outcome import decide, figures, progress, told

pytest.importorskip("matplotlib")


class Page(HTMLParser):
    """Values by their key, and whatever the page would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.values: dict[str, str | None] = {}
        self.sources: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.add(tag)
        if key := found.get("data-key"):
            self.values[key] = found.get("data-value")
        self.sources += [value for name in ("src", "href") if (value := found.get(name))]


def run_figures() -> dict[str, Any]:
    from loadtest.measure import Tally

    tally = Tally(str)
    told(tally)
    decide(tally, range(300), took_ms=20)
    return figures(tally, progress())


def written(folder: Path) -> tuple[Page, str, dict[str, Any]]:
    text = (folder / "report.html").read_text()
    return Page(text), text, orjson.loads((folder / "report.json").read_bytes())


def test_the_figures_of_the_page_are_those_of_the_json(tmp_path: Path) -> None:
    write_report(tmp_path, run_figures())
    page, text, known = written(tmp_path)
    assert known == orjson.loads(orjson.dumps(run_figures() | {"machine": known["machine"]}))
    assert len(page.values) == 15
    for key, value in page.values.items():
        assert value is not None
        assert float(value) == known[key], key
    assert f"seed {known['seed']}" in text
    assert known["machine"]["versions"]["confluent-kafka"] in text
    assert 'class="good"' in text
    assert re.search(r'data-key="decided"[^>]*>300 <', text)


def test_the_page_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    write_report(tmp_path, run_figures())
    page, text, _ = written(tmp_path)
    assert len(page.sources) == 5
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert page.tags.isdisjoint({"script", "link", "iframe"})
    assert "default-src 'none'" in text
    assert len(list(tmp_path.glob("*.png"))) == 5


def test_what_is_not_valid_is_said_first_and_what_is_not_known_is_said(tmp_path: Path) -> None:
    found = run_figures() | {"valid": False, "invalid_because": ["a < b"], "cpu_us_per_event": None}
    write_report(tmp_path, found)
    page, text, _ = written(tmp_path)
    assert "Not valid: a &lt; b." in text
    assert page.values["cpu_us_per_event"] is None
    assert "not known us" not in text


def test_a_capacity_has_a_page_too(tmp_path: Path) -> None:
    write_capacity_report(tmp_path, CAPACITY)
    page, _, known = written(tmp_path)
    assert known["capacity_per_second"] == 7_000
    assert {key: float(value or "nan") for key, value in page.values.items()} == {
        key: known[key] for key in ("capacity_per_second", "knee_per_second", "p99_bound_ms")
    }
