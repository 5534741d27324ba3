"""The page of a backtest as a program reads it, beside the JSON that it must agree with."""

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from engine.policy.precedence import DECISIONS


class Page(HTMLParser):
    """The cells of each table by its id, all other text, and every attribute."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self._rows: list[list[str]] = []
        self._in_cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag == "table":
            self._rows = self.tables[dict(attrs)["id"] or ""] = []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("th", "td"):
            self._rows[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = self._in_cell and tag not in ("th", "td")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._in_cell:
            self._rows[-1][-1] += data


def check_page(text: str, result: dict[str, Any]) -> None:
    """AssertionError where a figure of the page is not that of the JSON."""
    found = Page(text).tables
    rows = {row[0]: row[1:] for row in found["figures"][1:]}
    on_page = _on_page(result["terms"]["top"], result["terms"]["currency"])
    assert rows.keys() == {*DECISIONS, *on_page}
    for title, (name, digits, scale) in on_page.items():
        running, candidate = (scale * result[side][name] for side in ("running", "candidate"))
        assert [_number(cell) for cell in rows[title]] == pytest.approx(
            [running, candidate, candidate - running], abs=0.51 * 10**-digits
        )
    for name in DECISIONS:
        assert [_number(cell) for cell in rows[name][:2]] == [
            result[side]["decisions"][name] for side in ("running", "candidate")
        ]
    cells = {(change["running"], change["candidate"]): change for change in result["changes"]}
    assert [[_number(cell) for cell in row[1:]] for row in found["matrix"][1:]] == [
        [cells[running, candidate]["events"] for candidate in DECISIONS] for running in DECISIONS
    ]
    for title, *numbers in found["changes"][1:]:
        change = cells[tuple(title.split(" → "))]
        counts = [change[name] for name in ("events", "frauds", "genuine", "unlabelled", "fraud_money")]
        assert [_number(cell) for cell in numbers] == pytest.approx(counts, abs=0.005)
    days = [[day["day"], *(f"{day[name]:,}" for name in ("events", "frauds", "running_alerts", "candidate_alerts"))]
            for day in result["days"]]  # fmt: skip
    assert found["days"][1:] == days


def _on_page(top: int, currency: str) -> dict[str, tuple[str, int, int]]:
    """How each figure of the JSON stands on the page: by its heading its key, digits, and what it is multiplied by."""
    return {
        "alerts": ("alerts", 0, 1), "alerts a day, mean": ("alerts_per_day", 1, 1),
        "alerts a day, most": ("alerts_per_day_max", 0, 1), "precision of alerts": ("precision", 2, 100),
        "recall": ("recall", 2, 100), f"card precision@{top}": ("card_precision", 2, 100),
        "frauds caught": ("frauds_caught", 0, 1), "frauds lost": ("frauds_lost", 0, 1),
        f"money caught, {currency}": ("money_caught", 2, 1),
        "share of all fraud money": ("money_caught_share", 2, 100),
        f"money lost, {currency}": ("money_lost", 2, 1), "false positives": ("false_positives", 0, 1),
        f"their money, {currency}": ("false_positives_money", 2, 1),
        f"their cost, {currency}": ("false_positives_cost", 2, 1),
        f"cost: money lost and all alerts, {currency}": ("cost", 2, 1),
    }  # fmt: skip


def _number(cell: str) -> float:
    return float(re.sub(r"[, %p+]", "", cell))
