"""`tidegate backtest`: equal to two replays and sums by hand; and what it says where there is nothing to say."""

import json
import math
import shutil
import sys
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from engine.backtest.columns import Decided
from engine.backtest.curves import THRESHOLDS, curve_of
from engine.backtest.figures import figures
from engine.backtest.page import page
from engine.backtest.report import write_report
from engine.backtest.result import Backtest, Terms
from engine.backtest.run import BacktestSummary, Contender
from engine.backtest.text import conclusion
from engine.config import default_profile
from engine.policy.precedence import DECISIONS
from engine.policy.settings import Policy
from loadtest.render import render
from loadtest.settings import TrafficSettings
from loadtest.traffic import generate
from models.store import MANIFEST_FILE, shipped_store
from tests.backtest_page import Page, check_page
from tests.commands import STATE, Ended, Run, invoke, lines, refused
from tests.pipelines import START_MS, decider_of, demo_model

EVENTS, DAYS, TOP, COST_ALERT = 900, 5, 7, 3.5
DAY_MS = 86_400_000
RUNNING = "challenge = 2\nreview = 5\ndecline = 900\n"
# Reads fields that no rule of the running policy reads, adds to scores, and approves what the model would not.
CANDIDATE = """
name = "strict & <fast>"
version = "2"
challenge = 3
review = 8
decline = 60
texts = ["entry_mode"]
[[rules]]
id = "online"
when = 'entry_mode == "online" and amount > 60'
action = "review"
[[rules]]
id = "busy"
when = "card.count.24h > 4"
weight = 6
[[rules]]
id = "small"
when = "amount < 5"
action = "approve"
"""


# --- what is compared with -------------------------------------------------------------------------------------


def write_inputs() -> None:
    """Traffic of five days with some poison and duplicates; of the labels, every seventh is missing."""
    values = render(generate(TrafficSettings(cards=60, merchants=9, poison_share=0.02), EVENTS))
    rng, rows = np.random.default_rng(8), []
    for row, value in enumerate(values):
        try:
            fields = orjson.loads(value)
            fields["event_time"] += row * DAYS * DAY_MS // EVENTS
            values[row] = orjson.dumps(fields)
            rows.append(fields)
        except (orjson.JSONDecodeError, KeyError, TypeError):
            continue
    values[60::97] = values[13::97][: len(values[60::97])]
    Path("events.jsonl").write_bytes(b"\n".join(values))
    with Path("labels.jsonl").open("wb") as file:
        for number, fields in enumerate(rows):
            if number % 7:
                label = {"event_id": fields.get("event_id"), "label": int(rng.random() < 0.2), "labelled_at": START_MS}
                file.write(orjson.dumps(label) + b"\n")
    Path("running.toml").write_text(f"{default_profile()}\n{RUNNING}\n{STATE}")
    Path("candidate.toml").write_text(CANDIDATE)
    Path("beside.toml").write_text(
        f"{default_profile().partition('[policy]')[0]}[policy]\nfile='candidate.toml'\n{STATE}"
    )


def backtest(run: Run, *more: str) -> Ended:
    terms = ("--top", str(TOP), "--cost-alert", str(COST_ALERT))
    return run(
        "backtest", "events.jsonl", "--config", "running.toml", "--labels", "labels.jsonl", *terms, "--json", *more
    )


def replayed(run: Run, config: str) -> list[dict[str, Any]]:
    ended = run("replay", "events.jsonl", "--config", config, "--out", "d.jsonl", "--dead-letters", "x.jsonl")
    assert ended.exit_code == 0, ended.err
    return lines("d.jsonl")


def side_by_hand(decisions: list[dict[str, Any]], labels: dict[str, int], events: dict[str, Any]) -> dict[str, Any]:
    """The figures of one side, event by event."""
    found: dict[str, Any] = dict.fromkeys(
        ("alerts", "frauds_caught", "frauds_lost", "false_positives", "caught", "lost", "false", "cost"), 0
    )
    kinds, of_days, cards = defaultdict(int), defaultdict(int), defaultdict(dict)
    for made in decisions:
        label, alert = labels.get(made["event_id"]), made["decision"] != "approve"
        cents, day = round(float(events[made["event_id"]]["amount"]) * 100), made["event_time"] // DAY_MS
        kinds[made["decision"]] += 1
        of_days[day] += alert
        found["alerts"] += alert
        if label is None:
            continue
        found["cost"] += COST_ALERT * 100 if alert else cents * label
        if label:
            found["frauds_caught" if alert else "frauds_lost"] += 1
            found["caught" if alert else "lost"] += cents
        elif alert:
            found["false_positives"] += 1
            found["false"] += cents
        card = events[made["event_id"]]["card"]
        score, fraud = cards[day].get(card, (0, 0))
        cards[day][card] = (max(score, made["risk_score"]), max(fraud, label))
    return {"kinds": kinds, "of_days": of_days, "cards": cards, **found}


# --- equal to two replays --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Both:
    """The backtest, the decisions of two replays, the labels, the events by id, and where all that is."""

    result: dict[str, Any]
    decisions: list[list[dict[str, Any]]]
    labels: dict[str, int]
    events: dict[str, Any]
    dead_letters: int
    folder: Path


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Both:
    """Made once: each run is a whole pipeline."""
    folder = tmp_path_factory.mktemp("both")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("TIDEGATE_CONFIG", raising=False)
        write_inputs()
        ended = backtest(invoke, "--policy", "candidate.toml", "--out", "out")
        assert ended.exit_code == 0, ended.err
        decisions = [replayed(invoke, config) for config in ("running.toml", "beside.toml")]
        labels = {row["event_id"]: row["label"] for row in lines("labels.jsonl")}
        events: dict[str, Any] = {}
        for line in Path("events.jsonl").read_bytes().splitlines():
            with suppress(orjson.JSONDecodeError, KeyError, TypeError):
                fields = orjson.loads(line)
                events.setdefault(fields["event_id"], fields)
        return Both(orjson.loads(ended.out), decisions, labels, events, len(lines("x.jsonl")), folder)


def test_it_equals_two_replays_counted_by_hand(both: Both) -> None:
    result, decisions, labels, events = both.result, both.decisions, both.labels, both.events
    accepted = [made["event_id"] for made in decisions[0]]
    frauds = [events[event_id]["amount"] for event_id in accepted if labels.get(event_id) == 1]
    assert result["events"] == len(accepted)
    assert result["dead_letters"] == both.dead_letters > 0
    assert result["duplicates"] == result["records"] - result["dead_letters"] - result["events"] > 0
    assert result["unlabelled"] == sum(event_id not in labels for event_id in accepted) > 0
    assert result["frauds"] == len(frauds) > 20
    assert result["genuine"] == sum(labels.get(event_id) == 0 for event_id in accepted)
    assert result["fraud_money"] == pytest.approx(sum(map(float, frauds)), abs=1e-6)
    for name, made in zip(("running", "candidate"), decisions, strict=True):
        check_side(result[name], side_by_hand(made, labels, events), result)


def check_side(side: dict[str, Any], hand: dict[str, Any], result: dict[str, Any]) -> None:
    """Every figure of one side."""
    assert side["decisions"] == {name: hand["kinds"][name] for name in DECISIONS}
    for name in ("alerts", "frauds_caught", "frauds_lost", "false_positives"):
        assert side[name] == hand[name] > 0
    assert len(hand["of_days"]) == len(result["days"]) == DAYS
    assert side["alerts_per_day"] == hand["alerts"] / DAYS
    assert side["alerts_per_day_max"] == max(hand["of_days"].values())
    assert side["precision"] == hand["frauds_caught"] / (hand["frauds_caught"] + hand["false_positives"])
    assert side["recall"] == hand["frauds_caught"] / result["frauds"]
    for name, cents in (("money_caught", "caught"), ("money_lost", "lost"), ("false_positives_money", "false")):
        assert side[name] == hand[cents] / 100
    assert side["money_caught_share"] == pytest.approx(hand["caught"] / (hand["caught"] + hand["lost"]))
    assert side["false_positives_cost"] == COST_ALERT * hand["false_positives"]
    assert side["cost"] == pytest.approx(hand["cost"] / 100)
    check_card_precision(side["card_precision"], hand["cards"])
    assert result["card_precision_possible"] == pytest.approx(
        np.mean([min(TOP, sum(fraud for _, fraud in day.values())) / TOP for day in hand["cards"].values()])
    )


def check_card_precision(found: float, cards: dict[int, dict[str, tuple[int, int]]]) -> None:
    """Which of the cards with equal scores are looked at is free, so there is a least and a most."""
    least, most = [], []
    for day in cards.values():
        for shares, fraud_first in ((least, False), (most, True)):
            ranked = sorted(day.values(), key=lambda pair: (-pair[0], -pair[1] if fraud_first else pair[1]))
            shares.append(sum(fraud for _, fraud in ranked[:TOP]) / TOP)
    assert np.mean(least) - 1e-12 <= found <= np.mean(most) + 1e-12
    assert np.mean(most) > 0


def test_what_changes_is_what_two_replays_decide_otherwise(both: Both) -> None:
    result, (before, after), labels, events = both.result, both.decisions, both.labels, both.events
    assert [made["event_id"] for made in before] == [made["event_id"] for made in after]
    cells: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for running, candidate in zip(before, after, strict=True):
        cells[running["decision"], candidate["decision"]].append(running["event_id"])
    assert len(result["changes"]) == 16
    for change in result["changes"]:
        ids = cells[change["running"], change["candidate"]]
        assert change["events"] == len(ids)
        assert change["frauds"] == sum(labels.get(event_id) == 1 for event_id in ids)
        assert change["genuine"] == sum(labels.get(event_id) == 0 for event_id in ids)
        assert change["unlabelled"] == sum(event_id not in labels for event_id in ids)
        money = sum(float(events[event_id]["amount"]) for event_id in ids if labels.get(event_id) == 1)
        assert change["fraud_money"] == pytest.approx(money, abs=1e-6)
    otherwise = {pair: ids for pair, ids in cells.items() if pair[0] != pair[1]}
    assert result["changed"] == sum(map(len, otherwise.values()))
    # Stricter by threshold, weight and rule, and milder by the rule that approves.
    assert {("approve", "review"), ("challenge", "review"), ("challenge", "approve")} <= otherwise.keys()


def test_days_are_those_of_utc(both: Both) -> None:
    def of_day(made: dict[str, Any]) -> str:
        return datetime.fromtimestamp(made["event_time"] / 1_000, UTC).date().isoformat()

    for day in both.result["days"]:
        rows = [[made for made in side if of_day(made) == day["day"]] for side in both.decisions]
        assert day["events"] == len(rows[0]) > 0
        assert day["frauds"] == sum(both.labels.get(made["event_id"]) == 1 for made in rows[0])
        alerts = [sum(made["decision"] != "approve" for made in side) for side in rows]
        assert [day["running_alerts"], day["candidate_alerts"]] == alerts


def test_what_is_earlier_only_builds_the_state(both: Both, run: Run) -> None:
    files = [both.folder / name for name in ("events.jsonl", "running.toml", "labels.jsonl", "candidate.toml")]
    day = both.result["days"][2]["day"]
    ended = run(
        "backtest", files[0], "--config", files[1], "--labels", files[2], "--policy", files[3], "--json", "--from", day
    )
    result = orjson.loads(ended.out)
    assert result["days"] == both.result["days"][2:]
    assert result["earlier"] == sum(day["events"] for day in both.result["days"][:2])
    assert result["notes"][-2].startswith(f"{result['earlier']} earlier events")


# --- models and refusals ---------------------------------------------------------------------------------------


def test_another_model_decides_by_its_own_scores(run: Run) -> None:
    """The same trees under a calibration that makes of every probability a higher risk score."""
    write_inputs()
    shutil.copytree(shipped_store(), "store")
    shutil.copytree("store/demo/1", "store/demo/2")
    manifest = json.loads(Path("store/demo/2", MANIFEST_FILE).read_text())
    points = {"probabilities": [0.0, 0.001, 1.0], "risk_scores": [0.0, 900.0, 1000.0]}
    manifest |= {"version": 2, "calibration": {**points, "rows": 1, "genuine": False}}
    Path("store/demo/2", MANIFEST_FILE).write_text(json.dumps(manifest))
    Path("running.toml").write_text(f"{default_profile()}\n{RUNNING}\n{STATE}\n[models]\nstore = 'store'\n")
    result = orjson.loads(backtest(run, "--model", "demo/2").out)
    assert (result["running"]["model"], result["candidate"]["model"]) == ("demo/1", "demo/2")
    assert result["running"]["policy"] == result["candidate"]["policy"]
    Path("other.toml").write_text(Path("running.toml").read_text() + "champion = 'demo/2'\n")
    decisions = replayed(run, "other.toml")
    counts = {name: sum(made["decision"] == name for made in decisions) for name in DECISIONS}
    assert result["candidate"]["decisions"] == counts != result["running"]["decisions"]


def test_the_same_policy_changes_nothing(run: Run) -> None:
    write_inputs()
    Path("same.toml").write_text(f"name = 'same'\n{RUNNING}")
    result = orjson.loads(backtest(run, "--policy", "same.toml").out)
    assert result["changed"] == 0
    assert "both sides decide every event alike" in result["notes"]
    sides = [result[name] | {"policy": ""} for name in ("running", "candidate")]
    assert sides[0] == sides[1]
    assert all(change["running"] == change["candidate"] for change in result["changes"] if change["events"])


def test_the_terminal_has_the_same_figures(both: Both, run: Run) -> None:
    files = [both.folder / name for name in ("events.jsonl", "running.toml", "labels.jsonl", "candidate.toml")]
    ended = run("backtest", files[0], "--config", files[1], "--labels", files[2], "--policy", files[3])
    assert ended.exit_code == 0
    running, candidate = (100 * both.result[name]["recall"] for name in ("running", "candidate"))
    row = next(line for line in ended.out.splitlines() if line.startswith("recall"))
    assert " ".join(row.split()) == f"recall {running:.2f} % {candidate:.2f} % {candidate - running:+.2f} pp"
    assert "policy strict & <fast>/2" in ended.out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "--policy, --model: give at least one"),
        (("--policy", "none.toml"), "policy file none.toml cannot be read"),
        (("--policy", "bad.toml"), "policy file bad.toml: rules.r.when: "),
        (("--model", "demo/9"), "--model 'demo/9': "),
        (("--policy", "candidate.toml", "--out", "events.jsonl"), "--out events.jsonl cannot be written: File exists"),
        (("--policy", "candidate.toml", "--labels", "none.csv"), "none.csv: there is no such file"),
    ],
)
def test_what_cannot_be_used_is_named(run: Run, arguments: tuple[str, ...], complaint: str) -> None:
    write_inputs()
    Path("bad.toml").write_text("[[rules]]\nid = 'r'\nwhen = 'no.such.feature > 1'\naction = 'review'\n")
    ended = backtest(run, *arguments)
    assert ended.exit_code == 2
    assert complaint in refused(ended)


def test_without_the_extra_it_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    write_inputs()
    for module in ("engine.backtest.report", "engine.backtest.plots"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    said = refused(backtest(run, "--policy", "candidate.toml"))
    assert said == "tidegate: there is no matplotlib.figure: pip install 'tidegate[train]'"


def test_without_rules_a_side_lies_on_its_own_line() -> None:
    decided = decided_of(MIXED)
    curve, running = curve_of(decided, 0), result_of(decided).running
    # Scores of 300, 600 and 900 are challenge, review and decline, so that any score at all is an alert.
    assert (curve.precision[0], curve.recall[0]) == (running.precision, running.recall)
    assert (curve.false_alerts[0], curve.money_caught[0]) == (running.false_positives, 100 * running.money_caught)


# --- by hand, where something is missing -----------------------------------------------------------------------


def decided_of(rows: list[tuple[int, float, int, int, str, str]]) -> Decided:
    """Events as (day, amount, card, label, running decision, candidate decision), label -1 for none."""
    days, amounts, cards, labels, running, candidate = zip(*rows, strict=True) if rows else [()] * 6
    codes = np.array([[DECISIONS.index(word) for word in side] for side in (running, candidate)], np.int8)
    return Decided(
        times_ms=START_MS + DAY_MS * np.array(days, np.int64),
        amounts_minor=np.rint(100 * np.array(amounts, np.float64)).astype(np.int64),
        cards=np.array(cards, np.uint64),
        labels=np.array(labels, np.int8),
        codes=codes.reshape(2, len(rows)),
        scores=(300 * codes.reshape(2, len(rows)).astype(np.int16)),
    )


def result_of(decided: Decided, name: str = "other", top: int = 1) -> Backtest:
    sides = tuple(
        Contender(decider_of(policy).program, demo_model()) for policy in (Policy(), Policy(name=name, challenge=400))
    )
    summary = BacktestSummary(records=len(decided), events=len(decided))
    terms = Terms(currency="EUR", minor_per_major=100, card="card", cost_alert=2.0, top=top)
    return figures(decided, summary, (sides[0], sides[1]), terms, int(decided.labelled.sum()))


MIXED = [
    (0, 10.0, 1, 1, "decline", "approve"),
    (0, 20.5, 2, 0, "approve", "review"),
    (0, 30.0, 3, -1, "review", "decline"),
    (2, 40.0, 1, 1, "approve", "challenge"),
    (2, -5.0, 0, 1, "approve", "approve"),
    (2, 60.0, 4, 0, "approve", "approve"),
]


def test_a_handful_of_events() -> None:
    result = result_of(decided_of(MIXED))
    running, candidate = result.running, result.candidate
    assert (result.events, result.frauds, result.genuine, result.unlabelled) == (6, 3, 2, 1)
    assert [(day.day, day.running_alerts, day.candidate_alerts) for day in result.days] == [
        ("2025-01-01", 2, 2), ("2025-01-03", 0, 1),
    ]  # fmt: skip
    assert (running.alerts_per_day, candidate.alerts_per_day) == (1.0, 1.5)
    # The unlabelled event is an alert, and neither right nor wrong.
    assert (running.precision, candidate.precision) == (1.0, 0.5)
    assert (running.recall, candidate.recall) == (1 / 3, 1 / 3)
    # A refund that is fraud loses nothing.
    assert (result.fraud_money, running.money_caught, running.money_lost) == (50.0, 10.0, 40.0)
    assert (candidate.money_caught, candidate.money_lost) == (40.0, 10.0)
    assert (running.false_positives_cost, candidate.false_positives_cost) == (0.0, 2.0)
    assert (running.cost, candidate.cost) == (40.0 + 2.0, 10.0 + 2 * 2.0)
    # Day 1 looks at card 1 (fraud) or card 2 (genuine); day 3 at card 1 or 4, which score alike, or at card 1 alone.
    assert (running.card_precision, candidate.card_precision) == (1.0, 0.5)
    assert result.changed == 4
    assert conclusion(result) == (
        "The candidate decides 4 of 6 events otherwise: 1 more alert, as many caught frauds, 1 more false positive. "
        "It costs 28.00 EUR less."
    )


def test_no_label_at_all() -> None:
    result = result_of(decided_of([(*row[:3], -1, *row[4:]) for row in MIXED]))
    for side in (result.running, result.candidate):
        assert side.precision is side.recall is side.card_precision is side.money_caught_share is None
        assert side.cost == side.money_lost == side.false_positives == 0
    assert result.unlabelled == 6
    assert any("6 of 6 events have no label" in note for note in result.notes)
    assert conclusion(result) == "The candidate decides 4 of 6 events otherwise: 1 more alert."


def test_no_fraud_at_all() -> None:
    result = result_of(decided_of([(*row[:3], 0, *row[4:]) for row in MIXED]))
    assert result.running.recall is result.running.money_caught_share is None
    assert (result.running.precision, result.running.card_precision) == (0.0, 0.0)
    assert any("no event is labelled as fraud" in note for note in result.notes)


def test_no_alert_at_all() -> None:
    result = result_of(decided_of([(*row[:4], "approve", "approve") for row in MIXED]))
    assert (result.running.precision, result.running.recall) == (None, 0.0)
    assert (result.running.alerts, result.running.alerts_per_day, result.running.cost) == (0, 0.0, 50.0)
    assert conclusion(result) == "The candidate decides nothing otherwise."


def test_no_event_at_all(tmp_path: Path) -> None:
    result = result_of(decided_of([]))
    assert (result.events, result.days, result.running.alerts_per_day) == (0, [], 0.0)
    write_report(tmp_path, result, decided_of([]))
    assert "no events" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("rows", [MIXED, [(*row[:3], -1, *row[4:]) for row in MIXED], MIXED[:1]])
def test_every_result_has_a_report(tmp_path: Path, rows: list[Any]) -> None:
    decided = decided_of(rows)
    write_report(tmp_path, result_of(decided), decided)
    pictures = sorted(tmp_path.glob("*.png"))
    assert [picture.name for picture in pictures] == ["alerts-per-day.png", "money.png", "thresholds.png"]
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)


def test_curves_count_every_threshold() -> None:
    rng = np.random.default_rng(2)
    amounts, labels = rng.integers(-50, 900, 300).tolist(), rng.integers(-1, 2, 300).tolist()
    decided = decided_of(
        [(0, amount, 1, label, "approve", "approve") for amount, label in zip(amounts, labels, strict=True)]
    )
    decided.scores[0] = rng.integers(0, 900, 300)
    curve = curve_of(decided, 0)
    for at, threshold in enumerate(THRESHOLDS.tolist()):
        alerts = decided.scores[0] >= threshold
        caught, false = alerts & (decided.labels == 1), alerts & (decided.labels == 0)
        assert curve.false_alerts[at] == false.sum()
        assert curve.money_caught[at] == np.maximum(decided.amounts_minor[caught], 0).sum()
        assert curve.recall[at] == caught.sum() / (decided.labels == 1).sum()
        if caught.any() or false.any():
            assert curve.precision[at] == caught.sum() / (caught.sum() + false.sum())
        else:
            assert math.isnan(curve.precision[at])


# --- the page --------------------------------------------------------------------------------------------------


def test_the_page_has_the_figures_of_the_json(both: Both) -> None:
    assert orjson.loads((both.folder / "out" / "report.json").read_bytes()) == both.result
    check_page((both.folder / "out" / "report.html").read_text(), both.result)


def test_the_page_needs_nothing_else_and_escapes_what_came_in(both: Both) -> None:
    parsed = Page((both.folder / "out" / "report.html").read_text())
    assert "policy strict & <fast>/2, model demo/1" in parsed.text
    assert {"fast", "script", "link", "iframe", "object"}.isdisjoint(parsed.tags)
    sources = [value for name, value in parsed.attributes if name in ("src", "href", "srcset", "action")]
    assert len(sources) == 3
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "url(" not in parsed.text
    assert "@import" not in parsed.text


def test_a_name_can_break_out_of_nothing() -> None:
    name = "$x\"><script>alert(1)</script>'&${y}"
    parsed = Page(page(result_of(decided_of(MIXED), name), {}))
    assert "script" not in parsed.tags
    assert parsed.text.count(name) == 2
