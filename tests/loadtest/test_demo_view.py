"""What the demo shows, rendered to text."""

import io
from dataclasses import replace

import pytest
from rich.console import Console, RenderableType

from loadtest.figures import AlertLine, AttackCount, Figures, Latency
from loadtest.view import frame, line, screen, summary
from tests.loadtest.test_demo_measure import GOOD

FIGURES = Figures(
    target="the embedded broker",
    elapsed_s=12.0,
    seconds=60.0,
    rate=5_000.0,
    sent=60_010,
    to_decide=60_000,
    decided=59_958,
    dead_letters=6,
    duplicates=4,
    kinds={"approve": 59_900, "challenge": 30, "review": 18, "decline": 10},
    latency=Latency(14.25, 28.5, 41.0, 55.0),
    alerts=58,
    attacks=[AttackCount("card_testing", 3, 2, 0.42), AttackCount("account_takeover", 0, 0, None)],
    last_alerts=[
        AlertLine(
            1.7e9,
            "decline",
            999,
            "************1234",
            "1,045.97 EUR",
            "card.count.10s = 9, above 99% of the reference",
            "card_testing",
        ),
        AlertLine(1.7e9, "review", 801, "************9876", "0.75 EUR", "card.since_last = 0.1, below 98%", None),
    ],
    per_second=[2_500.0, 5_000.0],
    p99_ms=[30.0, 15.0],
)


def rendered(content: RenderableType, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(content)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(("width", "height"), [(120, 40), (80, 24)])
def test_the_frame_fills_the_screen_and_tells_everything(width: int, height: int) -> None:
    text = rendered(frame(FIGURES, width, height), width)
    assert len(text.splitlines()) <= height
    assert max(map(len, text.splitlines())) == width
    for told in (
        "12 of 60 s on the embedded broker",
        "60,010",
        "59,958",
        "42",
        "14.2 ms",
        "28.5 ms",
        "41.0 ms",
        "▄█",
        "█▄",
        "2 of 3",
        "420 ms",
        "0 of 0",
        "****1234",
        "card.count.10s = 9",
        "card testing",
        "no attack",
    ):
        assert told in text
    assert ("1,045.97 EUR" in text) == (width == 120)


def test_a_line_when_there_is_no_terminal() -> None:
    assert line(FIGURES) == (
        "  12 s  60,010 sent  59,958 decided  lag 42  p50 14.2 ms  p99 28.5 ms  p99.9 41.0 ms  "
        "58 alerts  2 of 3 attacks found"
    )


def test_lines_come_every_few_seconds() -> None:
    console = Console(file=io.StringIO(), width=80)
    with screen(console) as show:
        for elapsed_s in (0.0, 4.0, 5.1, 6.0, 9.9, 10.0):
            show(replace(FIGURES, elapsed_s=elapsed_s))
    assert isinstance(console.file, io.StringIO)
    assert [told.split(" s ")[0].strip() for told in console.file.getvalue().splitlines()] == ["5", "10"]


def test_a_terminal_is_left_as_it_was_found() -> None:
    console = Console(file=io.StringIO(), width=120, height=40, force_terminal=True)
    with screen(console) as show:
        show(FIGURES)
    assert isinstance(console.file, io.StringIO)
    assert "59,958" in console.file.getvalue()


def test_the_summary_tells_how_it_went() -> None:
    text = rendered(summary(GOOD), 80)
    for told in (
        "1,000",
        "100/s of 100/s",
        "of 2 records sent broken",
        "20.0 ms",
        "90.0%",
        "of 4 attacks found, after 250 ms",
    ):
        assert told in text
    assert "✓ decisions + dead letters + duplicates = events" in text


def test_the_summary_tells_what_went_wrong() -> None:
    bad = replace(
        GOOD, sent=replace(GOOD.sent, events=1_001, behind=True), interrupted=True, overrun="given up: too much"
    )
    text = rendered(summary(bad), 80)
    assert "behind by up to 4 ms" in text
    assert "interrupted" in text
    assert "✗ given up: too much" in text
    assert "✗ 1,001 events were sent, but 1,000 are accounted for" in text
    assert "✓" not in text
