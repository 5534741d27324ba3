"""`python -m loadtest run`: its figures, and on a real broker what it makes of a worker that stands still."""

import json
import re
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from html import unescape
from pathlib import Path
from textwrap import dedent

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from loadtest.__main__ import main
from loadtest.chaos.worker import Worker
from loadtest.driver import Progress
from loadtest.errors import LoadTestError
from loadtest.measure import Decision, Tally
from loadtest.run import commands
from loadtest.run.outcome import Outcome, by_second, own_figures
from loadtest.run.page import page
from loadtest.run.plots import plots
from loadtest.run.profile import Profile, read_profile, shipped
from loadtest.run.run import Asked, outcome, run
from loadtest.run.scrape import Sample, sample, scrape
from loadtest.run.stage import Target, own
from loadtest.run.text import figures
from loadtest.truth import Truth
from tests.conftest import ROOT

BEGAN_MS = 1_700_000_000_000
OURS = "t00000001-"


def truth(events: int, every_ms: int = 100, duplicates: int = 0, poison: int = 0) -> Truth:
    """Events that are due one after another; the last ones broken, and after them some of the first ones again."""
    whole = events + duplicates
    numbers = np.concatenate((np.arange(events), np.arange(duplicates)))
    repeated = np.arange(whole) >= events
    broken = (np.arange(whole) >= events - poison) & ~repeated
    times_ms = BEGAN_MS + every_ms * np.arange(whole)
    none = np.full(whole, -1)
    return Truth(numbers, times_ms, none.astype(np.int8), none, repeated, broken)


def decisions(*numbers: int, ours: str = OURS) -> list[Decision]:
    return [Decision(f"{ours}{number:010d}", "approve") for number in numbers]


def figures_of(tally: Tally, progress: Progress, samples: list[Sample] | None = None) -> Outcome:
    profile = msgspec.convert(
        {"plan": [{"seconds": 2, "rate": 10}], "warm_up_s": 1, "marks": [{"at_s": 1, "text": "here"}]}, Profile
    )
    target = Target("", "", "", "", "", "exactly_once", None, None)
    return outcome(
        Asked("test", profile, 7), profile.settings(7, BEGAN_MS), profile.planned(), target, progress, tally,
        samples or [],
    )  # fmt: skip


def test_latency_counts_from_the_intended_time_and_not_in_the_warm_up() -> None:
    tally, progress = Tally(str, OURS), Progress(events=30)
    tally.expect(truth(30))
    tally.add_decisions(decisions(*range(10)), (BEGAN_MS + 9_000) * 1_000)  # of the warm-up: slow, and not counted
    for number in range(10, 30):
        tally.add_decisions(decisions(number), (BEGAN_MS + number * 100 + number) * 1_000)
    found = figures_of(tally, progress)
    assert (found.counted, found.missing, found.duplicated, found.failures) == (20, 0, 0, [])
    assert (found.p50_ms, found.max_ms) == (pytest.approx(19, rel=0.01), pytest.approx(29, rel=0.01))
    assert [second.due for second in found.seconds[:3]] == [10, 10, 10]
    assert [second.at_s for second in found.seconds[:3]] == [-1, 0, 1]
    assert sum(second.decided for second in found.seconds) == 30


def test_what_is_missing_doubled_and_broken_is_counted() -> None:
    tally = Tally(str, OURS)
    progress = Progress(events=12, duplicates=2, poison=3)
    tally.expect(truth(10, duplicates=2, poison=3))
    tally.add_decisions(decisions(0, 1, 2, 2, 4), (BEGAN_MS + 900) * 1_000)
    tally.add_decisions(decisions(1, ours="t00000002-"), (BEGAN_MS + 950) * 1_000)  # somebody else's
    tally.dead_letters = 1
    found = figures_of(tally, progress)
    assert (found.sent, found.decided, found.missing, found.duplicated, found.dead_letters) == (12, 4, 3, 1, 1)
    assert len(found.failures) == 3
    assert sum(second.due for second in found.seconds) == 7, "no decision is due for what is broken"


def test_a_generator_that_fell_behind_makes_the_result_invalid() -> None:
    tally, progress = Tally(str, OURS), Progress(events=100, late=2)
    tally.expect(truth(100))
    tally.add_decisions(decisions(*range(100)), (BEGAN_MS + 20_000) * 1_000)
    found = figures_of(tally, progress)
    assert not found.valid
    assert len(found.failures) == 1
    assert "fell behind" in found.failures[0]


def test_seconds_without_a_decision_have_no_latency() -> None:
    found = by_second(np.array([0, 2_500]), np.array([1_000, 3_000_000]), np.array([0, 1_200, 2_500]), 0)
    assert [(one.due, one.decided, one.p50_ms) for one in found] == [
        (1, 1, 1.0), (1, 0, None), (1, 0, 3_000.0), (0, 0, None), (0, 0, None), (0, 1, None),
    ]  # fmt: skip


def test_cost_is_what_was_spent_between_the_samples() -> None:
    first = Sample(0, 10.0, 1, 1_000, 0, 0, {"decode": 1.0})
    last = Sample(10_000, 10.5, 2, 11_000, 0, 0, {"decode": 1.1, "flush": 0.02})
    assert own_figures([first, last]) == (50.0, {"decode": 10.0, "flush": 2.0})
    assert own_figures([first]) == (None, {})


def test_metrics_of_something_else_are_refused() -> None:
    with pytest.raises(LoadTestError, match="no metrics of Tidegate"):
        sample("# TYPE up gauge\nup 1\n", 0)


@pytest.mark.parametrize("name", shipped())
def test_profiles_that_ship_can_be_read(name: str) -> None:
    assert read_profile(name).planned().seconds > 60


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "plan"),
        ("plan = []", "no pieces"),
        ("plan = [{seconds = 1, rate = 0}]", "must be positive"),
        ("plan = [{seconds = 1, rate = 1, speed = 2}]", "speed"),
        ("plan = [{seconds = 1, rate = 1}]\nrush = 1", "rush"),
        ("plan = [{seconds = 1, rate = 1}]\ntraffic.card = 1", "traffic.card: no such key"),
        ("plan = [{seconds = 1, rate = 1}]\ntraffic.poison_share = 2", "poison_share"),
        ('plan = [{seconds = 1, rate = 1}]\ntraffic.cards = "x"', "profile"),
        ('plan = [{seconds = 1, rate = 1}]\ndelivery = "once"', "delivery"),
        ("plan =", "profile"),
    ],
)
def test_a_profile_that_makes_no_sense_is_refused_by_key(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(LoadTestError, match=says):
        read_profile(str(file))


def test_the_profile_in_the_documentation_can_be_read(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "loadtest.md").read_text("utf-8")
    block = text.partition("same form:\n")[2].partition("## Capacity")[0]
    file = tmp_path / "mine.toml"
    file.write_text(dedent(block))
    assert read_profile(str(file)).planned().seconds == 140


def test_the_documentation_has_every_profile_and_every_figure() -> None:
    text = (ROOT / "docs" / "loadtest.md").read_text("utf-8")
    assert all(f"| `{name}` |" in text for name in shipped())
    assert [field for field in Outcome.__struct_fields__ if f"`{field}`" not in text] == []


def test_an_unknown_profile_names_those_there_are() -> None:
    with pytest.raises(LoadTestError, match="smoke"):
        read_profile("smoky")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "--external"], "say where"),
        (["run", "--metrics", "http://x"], "only with --external"),
        (["run", "--profile", "nothing"], "no profile"),
        (["capacity", "--profile", "nothing"], "no profile"),
    ],
)
def test_what_cannot_be_is_said(monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str) -> None:
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code != 0
    assert says in done.output


def test_the_page_says_what_the_json_says() -> None:
    tally, progress = Tally(str, OURS), Progress(events=300)
    tally.expect(truth(300, every_ms=10))
    for number in range(300):
        tally.add_decisions(decisions(number), (BEGAN_MS + number * 10 + 5 + number) * 1_000)
    samples = [
        Sample(BEGAN_MS + 1_000 * at, at / 10, 1_000 * at, 10 * at, at, 0, {"decode": 0.1 * at}) for at in range(4)
    ]
    found = figures_of(tally, progress, samples)
    text = page(found, plots(found))
    table = re.search(r'<table id="figures">(.*?)</table>', text, re.DOTALL)
    assert table is not None
    rows = re.findall(r'<th scope="row">(.*?)</th><td>(.*?)</td>', table[1])
    told = json.loads(msgspec.json.encode(found))
    shown = {unescape(title): unescape(value) for title, value in rows}
    for title, key in (
        ("p50", "p50_ms"),
        ("p90", "p90_ms"),
        ("p99", "p99_ms"),
        ("p99.9", "p999_ms"),
        ("slowest", "max_ms"),
    ):
        assert shown[title] == f"{told[key]:,.1f} ms"
    assert len({told[key] for key in ("p50_ms", "p90_ms", "p99_ms")}) == 3
    for title, key in (("sent", "sent"), ("decided", "decided"), ("counted (after the warm-up)", "counted")):
        assert shown[title] == f"{told[key]:,}"
    assert shown["the worker's CPU per event"] == f"{told['cpu_us_per_event']:.1f} us"
    assert len(shown) == len(figures(found))
    assert text.count("data:image/png;base64,") == 5
    assert not re.findall(r'(?:src|href)="(?!data:)', text), "nothing is loaded from elsewhere"


def test_what_was_started_is_taken_away_on_sigterm(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    @contextmanager
    def own_target(*_: object) -> Iterator[Target]:
        try:
            yield Target("", "", "", "", "", "exactly_once", None, None)
        finally:
            done.append("taken away")

    def ended(*_: object) -> Outcome:
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("the signal was lost")

    monkeypatch.setattr(commands, "own", own_target)
    monkeypatch.setattr(commands, "run_profile", ended)
    before = signal.getsignal(signal.SIGTERM)
    assert CliRunner().invoke(main, ["run", "--bootstrap", "nowhere:1"]).exit_code == 1
    assert done == ["taken away"]
    assert signal.getsignal(signal.SIGTERM) == before


# --- on a real broker -------------------------------------------------------------------------------------------

BRIEF = """
warm_up_s = 3
partitions = 4

[[plan]]
seconds = 4
rate = 500
to = 1500

[traffic]
duplicate_share = 0.01
poison_share = 0.01

[engine.state]
cache_bytes_max = 67_108_864
dirty_bytes_max = 16_777_216
"""


@pytest.mark.broker
def test_every_event_of_a_run_has_its_outcome(tmp_path: Path, kafka_bootstrap: str) -> None:
    file = tmp_path / "brief.toml"
    file.write_text(BRIEF)
    report = tmp_path / "report"
    arguments = ["run", "--profile", str(file), "--bootstrap", kafka_bootstrap, "--json", "--report", str(report)]
    done = CliRunner().invoke(main, arguments)
    found = json.loads(done.stdout)
    assert found["missing"] == found["duplicated"] == found["unknown"] == 0
    assert found["sent"] == found["decided"] + found["dead_letters"] + found["sent_again"]
    assert 4_500 < found["sent"] < 6_500, "3 s of 500 events/s, then 4 s of 1,000 on average"
    assert found["counted"] > 3_000
    assert done.exit_code == (0 if found["valid"] else 1)
    assert json.loads((report / "report.json").read_bytes()) == found
    assert (report / "report.html").is_file()


def stand_still(worker: Worker, metrics: str | None) -> None:
    """Stops it for two seconds once it has begun to decide."""
    assert metrics is not None
    never, give_up_at = threading.Event(), time.monotonic() + 60.0
    while scrape(metrics).events < 100:
        assert time.monotonic() < give_up_at
        never.wait(0.02)
    worker.freeze()
    never.wait(2.0)
    worker.thaw()


@pytest.mark.broker
def test_the_wait_for_a_worker_that_stands_still_counts(tmp_path: Path, kafka_bootstrap: str) -> None:
    """Events that are due meanwhile are sent meanwhile, and each waits from then on."""
    profile = msgspec.convert({"plan": [{"seconds": 6, "rate": 500}], "warm_up_s": 0, "partitions": 2}, Profile)
    with own(profile, "at_least_once", kafka_bootstrap, tmp_path) as target:
        assert isinstance(target.worker, Worker)
        with ThreadPoolExecutor(1) as pool:
            stood_still = pool.submit(stand_still, target.worker, target.metrics)
            # Its numbers cannot be had while it stands still.
            found = run(Asked("still", profile, 1), replace(target, metrics=None), lambda _: None)
            stood_still.result()
    assert found.missing == found.duplicated == 0
    assert found.max_ms is not None
    assert found.max_ms > 1_500
    slow = [one for one in found.seconds if one.max_ms is not None and one.max_ms > 1_000]
    assert slow, "the seconds in which it stood still are slow ones"
