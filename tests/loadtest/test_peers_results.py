"""How results are held against the oracle, and what becomes of them in the table."""

import io
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from rich.console import Console

from loadtest.errors import LoadTestError
from loadtest.peers.measure import Figures, figures
from loadtest.peers.peer import Peer, Run
from loadtest.peers.registry import PEERS
from loadtest.peers.results import Result, Results, Truth, differing, tabled, wrongly_scored
from loadtest.peers.table import row, table, with_ratios
from loadtest.peers.tidegate import TIDEGATE
from loadtest.peers.usage import Usage

TRUTH = Truth(np.array([1, 2, 3]), np.array([100, 250, 399]), np.array([0.1, 0.2, 0.3]))
RIGHT = [(0.0, 10.0, 1.0, 1.0, 0.1, 0.0), (1.0, 11.0, 2.0, 2.5, 0.2, 0.0), (2.0, 12.0, 3.0, 3.99, 0.3, 0.0)]


class EvenUsage(Usage):
    """A program that needs a tenth of a processor."""

    def __init__(self) -> None:
        super().__init__(0)

    def between(self, began_s: float, ended_s: float) -> float:
        return (ended_s - began_s) / 10


def test_a_result_is_read_from_both_shapes() -> None:
    small = b'{"event_id":"e1","card":"4","count_1h":2,"sum_1h":2.5,"probability":0.25}'
    decision = (
        b'{"event_id":"e1","probability":0.25,"features":{"card.count.1h":2.0,"card.sum.amount.1h":2.5,"x":null}}'
    )
    decode = msgspec.json.Decoder(Result).decode
    assert decode(small).values() == decode(decision).values() == (2.0, 2.5, 0.25, False)
    assert np.isnan(decode(b'{"event_id":"e1","probability":null}').values()[:3]).all()
    assert decode(b'{"event_id":"e1","inexact":["card.1h"]}').values()[3]


def test_right_values_differ_nowhere() -> None:
    found = tabled(RIGHT)
    assert (len(found), found.repeated, differing(found, TRUTH), wrongly_scored(found, TRUTH)) == (3, 0, 0.0, 0.0)


@pytest.mark.parametrize("wrong", [(2.0, 3.99), (3.0, 3.98), (3.0, np.nan), (np.nan, 3.99)])
def test_another_count_or_sum_or_none_differs(wrong: tuple[float, float]) -> None:
    found = tabled([*RIGHT[:2], (2.0, 12.0, *wrong, 0.3, 0.0)])
    assert differing(found, TRUTH) == differing(found, TRUTH, flagged=False) == pytest.approx(1 / 3)
    said = tabled([*RIGHT[:2], (2.0, 12.0, *wrong, 0.3, 1.0)])
    assert (differing(said, TRUTH), differing(said, TRUTH, flagged=False)) == (pytest.approx(1 / 3), 0.0)
    assert wrongly_scored(found, TRUTH) == 0.0


@pytest.mark.parametrize("probability", [0.31, np.nan])
def test_another_probability_for_right_values_is_wrongly_scored(probability: float) -> None:
    found = tabled([*RIGHT[:2], (2.0, 12.0, 3.0, 3.99, probability, 0.0)])
    assert wrongly_scored(found, TRUTH) == pytest.approx(1 / 3)
    assert wrongly_scored(found, replace(TRUTH, probabilities=None)) == 0.0


def test_of_an_event_the_result_that_was_written_first_counts() -> None:
    found = tabled([(1.0, 13.0, 9.0, 9.0, 0.9, 0.0), *RIGHT])
    assert (found.repeated, found.rows.tolist(), found.counts.tolist()) == (1, [0, 1, 2], [1.0, 2.0, 3.0])


def written_at(moments_s: list[float]) -> Results:
    count = len(moments_s)
    rows, ones = np.arange(count) % 3, np.ones(count)
    return Results(rows, np.array(moments_s), ones, ones, ones, ones == 0, 0)


def test_figures_leave_out_the_warm_up_and_what_came_after_the_end() -> None:
    found = figures(written_at([*np.arange(0.05, 10, 0.1), 500.0]), EvenUsage(), 12.0, 2.0, TRUTH)
    assert found.events in (79, 80)
    assert found.events_per_second == pytest.approx(10.0, rel=0.02)
    assert found.cpu_us_per_event == pytest.approx(10_000.0, rel=0.02)


def test_who_stands_still_is_measured_to_the_end() -> None:
    found = figures(written_at([*np.arange(0.05, 10, 0.1)]), EvenUsage(), 100.05, 2.0, TRUTH)
    assert found.events_per_second == pytest.approx(79 / 98, rel=0.02)


def test_who_stands_still_within_the_warm_up_has_no_figures() -> None:
    with pytest.raises(LoadTestError, match="stalled: 3 results"):
        figures(written_at([0.0, 1.0, 1.0]), EvenUsage(), 100.0, 10.0, TRUTH)


def test_who_is_through_within_the_warm_up_is_measured_over_the_second_half() -> None:
    assert figures(tabled(RIGHT), EvenUsage(), 20.0, 60.0, TRUTH).events == 1


def test_too_few_results_are_no_figures() -> None:
    with pytest.raises(LoadTestError, match="too few"):
        figures(tabled(RIGHT[:1]), EvenUsage(), 20.0, 2.0, TRUTH)


def run_of(rate: float, cost: float) -> Figures:
    return Figures(1_000, rate, cost, 1_000, 0, 0.0, 0.0, 0.0)


def test_ratios_are_medians_of_ratios_within_a_run() -> None:
    ours = row(TIDEGATE, [run_of(100.0, 2.0), run_of(300.0, 2.0), run_of(200.0, 2.0)], {})
    theirs = row(PEERS["quix"], [run_of(10.0, 30.0), run_of(10.0, 20.0), run_of(10.0, 50.0)], {})
    assert with_ratios([ours, theirs])[1]["tidegate_events_ratio"] == pytest.approx(20.0)
    assert theirs["tidegate_cpu_ratio"] == pytest.approx(15.0)
    assert ours["tidegate_cpu_ratio"] == 1.0
    assert with_ratios([row(PEERS["quix"], [run_of(1.0, 1.0)], {})])[0]["tidegate_cpu_ratio"] is None


def test_the_table_says_who_failed_and_which_pace_was_not_held() -> None:
    rows = with_ratios([row(TIDEGATE, [run_of(1_000.0, 2.0)], {"own_rate": 500.0, "own_p99_ms": None})])
    rows.append({"peer": "faust", "window": "tumbling", "failed": "ended with exit code 1"})
    out = io.StringIO()
    Console(file=out, width=200).print(table(rows, "the small job"))
    shown = out.getvalue()
    assert "not held at 500/s" in shown
    assert "failed: ended with" in shown


@pytest.mark.parametrize("peer", PEERS.values(), ids=PEERS)
def test_who_computes_another_window_says_so(peer: Peer) -> None:
    assert peer.exact == (peer.window == "sliding")


def test_every_program_is_told_the_same(tmp_path: Path) -> None:
    options = Run("run", "host:1", "in", "out", 4, 1, "at_least_once", None, tmp_path, tmp_path).options()
    assert options[::2] == [
        "--bootstrap",
        "--input",
        "--output",
        "--group",
        "--state",
        "--delivery",
        "--model",
        "--partitions",
        "--parallelism",
    ]
    assert options[13] == ""
