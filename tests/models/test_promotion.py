"""`tidegate models gate`: a better or equal challenger passes, a worse one fails by name, and nothing passes unmade."""

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

import models.latency
from engine.commands import model_gate
from engine.policy.settings import Policy
from loadtest.render import render
from loadtest.settings import TrafficSettings
from loadtest.traffic import generate
from models.calibration import Calibration, risk_scores
from models.contest import Contest, hold
from models.manifest import Import, Manifest, read_manifest
from models.metrics import card_precision, recall_at
from models.parity import Parity
from models.promotion import CHECKS, FIGURES, Check, Promotion, Terms, costs_of, judge, not_worse
from models.promotion_report import conclusion
from models.runtime import load_model
from models.store import MANIFEST_FILE, MODEL_FILE, Located, publish
from models.train import train
from tests.commands import Ended, invoke, refused
from tests.models.conftest import PARAMS
from tests.models.synthetic import CONFIG, DEFINITIONS, NAMES, write_features
from tests.pipelines import blank_batch, decider_of

ROWS, UNLABELLED_ROWS, CARDS = 8_000, 250, 2_000
DAY_MS = 86_400_000
COST_ALERT = 3.0
GOOD, NOISE = "fraud/1", "fraud/2"


@pytest.fixture(scope="session")
def rivals(tmp_path_factory: pytest.TempPathFactory, trained: Located) -> Path:
    """A store with a model that learnt something, and one that learnt from shuffled labels."""
    folder = tmp_path_factory.mktemp("rivals")
    shutil.copytree(trained.directory.parent.parent, folder / "store")
    write_features(folder / "shuffled.parquet", rows=12_000, seed=2, shuffle_labels=True)
    names = {"feature_names": NAMES, "definitions": DEFINITIONS}
    train(folder / "shuffled.parquet", folder / "store", "fraud", **names, seed=1, params=PARAMS)
    return folder / "store"


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """As backfill writes it with labels and keys: events of four days, some of no card, and some not labelled yet."""
    path = tmp_path_factory.mktemp("labelled") / "table.parquet"
    write_features(path, rows=ROWS, seed=77)
    table, rng = pq.read_table(path), np.random.default_rng(5)
    times_ms = 1_700_000_000_000 + np.sort(rng.integers(0, 4 * DAY_MS, ROWS))
    cards = rng.choice(rng.integers(2**63, 2**64 - 1, CARDS, np.uint64, endpoint=True), ROWS)
    label = pa.array(table["label"].to_numpy().astype(np.int8), mask=np.arange(ROWS) >= ROWS - UNLABELLED_ROWS)
    table = table.set_column(table.column_names.index("event_time"), "event_time", pa.array(times_ms))
    table = table.set_column(table.column_names.index("label"), "label", label)
    return table.append_column("card.key", pa.array(cards, mask=rng.random(ROWS) < 0.05))


@pytest.fixture
def folder(rivals: Path, labelled: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration, a store, and a labelled table; both models take as long as each other."""
    shutil.copytree(rivals, tmp_path / "store")
    (tmp_path / "tidegate.toml").write_text(CONFIG)
    pq.write_table(labelled, tmp_path / "labelled.parquet")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TIDEGATE_CONFIG", raising=False)
    take(monkeypatch, 0.001, 0.001)
    return tmp_path


def take(monkeypatch: pytest.MonkeyPatch, challenger_s: float, champion_s: float) -> None:
    """As if the models had been measured so."""
    monkeypatch.setattr(models.latency, "median_seconds", lambda *_: (challenger_s, champion_s))


def gate(challenger: str, *more: str) -> Ended:
    return invoke("models", "gate", challenger, "--features", "labelled.parquet", *more)


def result_of(challenger: str, *more: str) -> tuple[int, Promotion]:
    ended = gate(challenger, "--json", *more)
    return ended.exit_code, msgspec.json.decode(ended.out, type=Promotion)


def verdicts(result: Promotion) -> dict[str, str]:
    return {check.name: check.verdict for check in result.checks}


def variant(folder: Path, version: int, change: Callable[[Manifest], dict[str, Any]]) -> str:
    """The good model again, under another manifest."""
    source = folder / "store" / "fraud" / "1"
    manifest = read_manifest(source / MANIFEST_FILE)
    manifest = msgspec.structs.replace(manifest, version=version, **change(manifest))
    publish(folder / "store", manifest, (source / MODEL_FILE).read_bytes())
    return f"fraud/{version}"


def imported(difference: float) -> Callable[[Manifest], dict[str, Any]]:
    parity = Parity(rows=500, max=difference, p99=difference, flipped_rows=0, worst=[])
    origin = Import(
        format="onnx",
        file_sha256="0" * 64,
        reference_sha256="1" * 64,
        rows=500,
        labelled_rows=0,
        positives=0,
        parity=parity,
        libraries={},
    )
    return lambda manifest: {"training": None, "imported": origin}


# --- better, equal, worse --------------------------------------------------------------------------------------


def test_a_better_one_passes(folder: Path) -> None:
    code, result = result_of(GOOD, "--against", NOISE)
    assert (code, result.passed) == (0, True)
    expected = dict.fromkeys(CHECKS, "passed") | {"parity": "not needed"}
    assert verdicts(result) == expected
    gained = {check.name: check.challenger - check.champion for check in result.checks if check.name in FIGURES}
    assert gained["auc"] > 0.3
    assert gained["cost"] < 0


def test_an_equal_one_passes_with_nothing_to_spare(folder: Path) -> None:
    code, result = result_of(GOOD)
    assert code == 0
    assert (result.challenger, result.challenger.model) == (result.champion, "fraud/1")
    for check in result.checks:
        if check.name in FIGURES:
            assert check.challenger == check.champion == check.limit
            assert check.difference == (0, 0)


def test_a_worse_one_fails_and_the_checks_are_named(folder: Path) -> None:
    ended = gate(NOISE)
    assert (ended.exit_code, ended.err) == (1, "")
    *_, last = ended.out.splitlines()
    assert last == "fraud/2 did not pass: auc, average_precision, recall, card_precision, cost failed"
    (auc,) = [line for line in ended.out.splitlines() if line.startswith("failed     auc: ")]
    assert "champion 0.99" in auc
    assert "at least 0.9" in auc
    code, result = result_of(NOISE)
    assert (code, result.passed) == (1, False)


def test_a_slower_one_fails_by_its_latency_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take(monkeypatch, 0.0021, 0.001)
    ended = gate(GOOD)
    assert ended.exit_code == 1
    *_, latency, last = ended.out.splitlines()
    assert latency == ("failed     latency: 2.100, champion 1.000, at most 2.000; 2.10 times the champion's, at most 2")
    assert last == "fraud/1 did not pass: latency failed"
    assert gate(GOOD, "--slower-max", "2.2").exit_code == 0


def test_one_that_alarms_more_often_fails_by_its_cost_alone(folder: Path) -> None:
    nervous = Calibration(probabilities=[0.0, 1e-9, 1.0], risk_scores=[0.0, 600.0, 1000.0], rows=1, genuine=True)
    challenger = variant(folder, 3, lambda manifest: {"calibration": nervous})
    code, result = result_of(challenger)
    assert (code, conclusion(result)) == (1, "fraud/3 did not pass: cost failed")
    (cost,) = [check for check in result.checks if check.name == "cost"]
    assert cost.challenger > cost.limit >= cost.champion
    excess = str(cost.challenger / cost.champion - 1 + 1e-9)
    assert gate(challenger, "--cost-margin", excess).exit_code == 0


def test_an_import_that_is_far_from_its_original_fails(folder: Path) -> None:
    challenger = variant(folder, 3, imported(2e-5))
    ended = gate(challenger)
    assert ended.exit_code == 1
    assert "failed     parity: 2e-05, champion -, at most 1e-05; on the 500 rows of its import" in ended.out
    assert gate(challenger, "--tolerance", "1e-4").exit_code == 0
    code, result = result_of(GOOD, "--against", challenger)
    assert (code, verdicts(result)["parity"]) == (0, "not needed")


# --- within noise and beyond -----------------------------------------------------------------------------------


def test_only_what_is_beyond_noise_and_margin_fails() -> None:
    """challenger - champion = -0.02, and 95 % of the draws between -0.03 and -0.01."""
    draws = -0.02 + np.linspace(-0.5, 0.5, 401) * 0.02 / 0.95
    expected = {0.0: "failed", 0.009: "failed", 0.011: "passed"}
    for margin, verdict in expected.items():
        check = not_worse("auc", 0.88, 0.90, draws, margin)
        assert check.verdict == verdict
        assert check.limit == pytest.approx(0.90 - margin - 0.01)
        assert check.difference == pytest.approx((-0.03, -0.01))
    assert not_worse("auc", 0.88, 0.90, draws + 0.011, 0.0).verdict == "passed"
    assert not_worse("cost", 92.0, 90.0, -100 * draws, 0.0).verdict == "failed"
    assert not_worse("cost", 92.0, 90.0, -100 * draws, 1.1).verdict == "passed"
    assert not_worse("cost", 92.0, 90.0, -100 * draws, 0.0).limit == pytest.approx(91.0)


def test_a_better_one_is_never_failed_by_skewed_draws() -> None:
    draws = np.full(401, -0.5)
    assert not_worse("auc", 0.91, 0.90, draws, 0.0).verdict == "passed"
    assert not_worse("cost", 89.0, 90.0, -draws, 0.0).verdict == "passed"


def test_no_figure_is_no_pass() -> None:
    assert not_worse("auc", np.nan, 0.9, np.zeros(5), 0.0).verdict == "failed"
    assert not_worse("cost", np.nan, 0.9, np.zeros(5), 0.0).verdict == "failed"


# --- the figures -----------------------------------------------------------------------------------------------


def test_the_figures_are_those_computed_apart(folder: Path, labelled: pa.Table) -> None:
    _, result = result_of(NOISE, "--cost-alert", str(COST_ALERT))
    known = labelled.slice(0, ROWS - UNLABELLED_ROWS)
    labels = known["label"].to_numpy()
    inputs = np.column_stack([known[name].to_numpy() for name in NAMES]).astype(np.float32)
    of_card = np.array(known["card.key"].is_valid())
    cards = np.array(known["card.key"].filter(pa.array(of_card)).to_pylist(), np.uint64)
    for reference, value in ((NOISE, "challenger"), (GOOD, "champion")):
        scores = load_model(folder / "store", reference, DEFINITIONS).score_inputs(inputs)
        found = {check.name: getattr(check, value) for check in result.checks}
        assert found["auc"] == pytest.approx(roc_auc_score(labels, scores))
        assert found["average_precision"] == pytest.approx(average_precision_score(labels, scores))
        assert found["recall"] == recall_at(labels, scores, 0.001)
        assert found["card_precision"] == pytest.approx(
            card_precision(labels[of_card], scores[of_card], cards, known["event_time"].to_numpy()[of_card])[0]
        )
        cost = 0.0
        for score, label, amount in zip(scores, labels, known["event.amount"].to_pylist(), strict=True):
            if round(float(score) * 1000) >= 500:
                cost += COST_ALERT
            elif label:
                cost += amount
        assert found["cost"] == pytest.approx(cost)


def test_rows_without_a_label_are_left_out_and_counted(folder: Path, labelled: pa.Table) -> None:
    _, result = result_of(NOISE)
    assert (result.rows, result.unlabelled) == (ROWS - UNLABELLED_ROWS, UNLABELLED_ROWS)
    assert result.frauds == sum(label == 1 for label in labelled["label"].to_pylist())
    pq.write_table(labelled.slice(0, ROWS - UNLABELLED_ROWS), "labelled.parquet")
    _, without = result_of(NOISE)
    assert without.checks == result.checks
    assert without.unlabelled == 0


def test_the_same_files_give_the_same_result(folder: Path) -> None:
    assert gate(NOISE, "--json").out == gate(NOISE, "--json").out


def test_a_table_that_a_model_was_made_with_is_named(folder: Path, features_file: Path) -> None:
    shutil.copy(features_file, "labelled.parquet")
    ended = gate(NOISE, "--without", "card_precision")
    assert ended.exit_code == 1
    assert "note: fraud/1 was trained, or calibrated at its import, with this very table\n" in ended.out


# --- what cannot be checked ------------------------------------------------------------------------------------


def test_without_cards_the_check_is_not_made_and_does_not_pass(folder: Path, labelled: pa.Table) -> None:
    pq.write_table(labelled.drop_columns("card.key"), "labelled.parquet")
    ended = gate(GOOD)
    assert ended.exit_code == 1
    assert "not made   card_precision: the table has no column card.key: `features backfill --keys`" in ended.out
    assert ended.out.endswith("fraud/1 did not pass: card_precision not made\n")
    code, result = result_of(GOOD, "--without", "card_precision")
    assert (code, verdicts(result)["card_precision"], result.resampled) == (0, "left out", "events")


def test_another_column_may_identify_the_card(folder: Path, labelled: pa.Table) -> None:
    _, expected = result_of(NOISE)
    tokens = pa.array([None if key is None else f"token-{key:020}" for key in labelled["card.key"].to_pylist()])
    pq.write_table(labelled.drop_columns("card.key").append_column("pan_token", tokens), "labelled.parquet")
    _, result = result_of(NOISE, "--card-column", "pan_token")
    assert result.checks == expected.checks
    assert (result.resampled, result.units) == ("cards", expected.units)


@pytest.mark.parametrize(
    ("column", "said"),
    [("event_time", "the table has no column event_time"), ("card.key", "no labelled row has a card.key")],
)
def test_what_card_precision_lacks_is_said(folder: Path, labelled: pa.Table, column: str, said: str) -> None:
    changed = labelled.drop_columns(column)
    if column == "card.key":
        changed = changed.append_column(column, pa.nulls(ROWS, pa.uint64()))
    pq.write_table(changed, "labelled.parquet")
    ended = gate(GOOD)
    assert ended.exit_code == 1
    assert f"not made   card_precision: {said}" in ended.out


def test_too_few_frauds_prove_nothing(folder: Path) -> None:
    ended = gate(GOOD, "--frauds-min", "100000")
    assert ended.exit_code == 1
    assert ended.out.count(" with a fraud are fewer than the 100000 that it takes") == len(FIGURES)
    assert ended.out.endswith("did not pass: auc, average_precision, recall, card_precision, cost not made\n")


def contest(folder: Path, challenger: str = GOOD, champion: str = GOOD) -> Contest:
    return hold(folder / "store", challenger, champion, DEFINITIONS, folder / "labelled.parquet", "card.key")


def cost_of(result: Promotion) -> Check:
    return next(check for check in result.checks if check.name == "cost")


def test_without_amounts_a_fraud_costs_what_is_said(folder: Path) -> None:
    held = contest(folder)
    held = replace(held, rows=replace(held.rows, amounts=None))
    unknown = judge(held, Terms(challenge=500), None)
    assert (cost_of(unknown).verdict, unknown.passed) == ("not made", False)
    assert "--cost-fraud" in cost_of(unknown).detail
    fixed = judge(held, Terms(challenge=500, cost_alert=0.0, cost_fraud=70.0), None)
    missed = np.count_nonzero((held.rows.labels == 1) & (np.rint(held.champion.probabilities * 1000.0) < 500))
    assert cost_of(fixed).champion == pytest.approx(70.0 * missed)


@pytest.mark.parametrize("calibrated", [False, True])
def test_an_alert_is_what_a_worker_would_not_approve(folder: Path, calibrated: bool) -> None:
    calibration = Calibration(probabilities=[0.0, 0.2, 1.0], risk_scores=[0.0, 500.0, 1000.0], rows=1, genuine=True)
    reference = variant(folder, 3, lambda manifest: {"calibration": calibration}) if calibrated else GOOD
    held = contest(folder, reference)
    side = held.challenger
    scores = risk_scores(side.model.manifest.calibration, side.probabilities)
    for challenge in np.unique(scores)[1::20].tolist():
        decider = decider_of(Policy(challenge=challenge, review=1000, decline=1001), side.model)
        decided = decider.decide(
            blank_batch(len(scores)), np.zeros((len(scores), len(DEFINITIONS))), side.probabilities
        )
        costs = costs_of(side, held.rows, Terms(challenge=challenge, cost_alert=1e9))
        assert (costs == 1e9).tolist() == (decided.codes > 0).tolist()


def test_a_refunded_fraud_earns_nothing(folder: Path) -> None:
    held = contest(folder)
    held = replace(held, rows=replace(held.rows, amounts=-held.rows.amounts))
    assert cost_of(judge(held, Terms(challenge=500, cost_alert=0.0), None)).champion == 0


def test_checks_that_are_not_asked_for_are_not_made(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> tuple[float, float]:
        raise AssertionError

    monkeypatch.setattr(models.latency, "median_seconds", never)
    code, result = result_of(NOISE, *(part for name in CHECKS for part in ("--without", name)))
    assert code == 0
    assert verdicts(result) == dict.fromkeys(CHECKS, "left out")


# --- the report ------------------------------------------------------------------------------------------------


def test_the_report_has_every_check_and_both_pictures(folder: Path) -> None:
    ended = gate(NOISE, "--report", "out/report")
    assert ended.exit_code == 1
    report = (folder / "out" / "report" / "report.md").read_text()
    assert report.startswith("# fraud/2 against fraud/1\n\n**fraud/2 did not pass: auc, average_precision, ")
    _, result = result_of(NOISE)
    for check in result.checks:
        (row,) = [line for line in report.splitlines() if line.startswith(f"| {check.name} |")]
        assert f" | {check.verdict} | " in row
    auc = result.checks[0]
    assert f"| auc | {auc.challenger:.4f} | {auc.champion:.4f} | at least {auc.limit:.4f} | " in report
    assert result.table_sha256 in report
    assert "| approved | risk scores below 500 |\n| costs | 5 for an event not approved, " in report
    for picture in ("precision-recall.png", "scores.png"):
        assert f"]({picture})" in report
        assert (folder / "out" / "report" / picture).read_bytes().startswith(b"\x89PNG")


def test_a_report_that_cannot_be_written_is_said(folder: Path) -> None:
    Path("taken").write_text("")
    ended = gate(GOOD, "--report", "taken")
    assert ended.exit_code == 2
    assert refused(ended) == "tidegate: --report taken cannot be written: File exists"


def test_what_backfill_writes_is_what_it_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TIDEGATE_CONFIG", raising=False)
    take(monkeypatch, 0.001, 0.001)
    traffic = generate(TrafficSettings(seed=3), 6_000)
    values = render(traffic)
    labels = [
        {"event_id": orjson.loads(value)["event_id"], "label": int(kind > 0), "labelled_at": "2025-01-02"}
        for value, kind in zip(values, traffic.attack_kinds, strict=True)
    ]
    Path("events.jsonl").write_bytes(b"\n".join(values))
    Path("labels.jsonl").write_bytes(b"\n".join(map(orjson.dumps, labels[:5_000])))
    arguments = ("--labels", "labels.jsonl", "--as-of", "2025-01-03", "--keys", "--out", "labelled.parquet")
    assert invoke("features", "backfill", "events.jsonl", *arguments).exit_code == 0
    code, result = result_of("demo@champion", "--frauds-min", "1")
    assert conclusion(result) == "demo/1 passed"
    assert (code, result.challenger.model, result.rows, result.unlabelled) == (0, "demo/1", 5_000, 1_000)
    assert result.frauds == sum(label["label"] for label in labels[:5_000])
    assert result.resampled == "cards"
    assert set(verdicts(result).values()) == {"passed", "not needed"}


# --- wrong arguments, unusable data ----------------------------------------------------------------------------


def test_a_refused_model_is_one_line(folder: Path) -> None:
    model = folder / "store" / "fraud" / "2" / MODEL_FILE
    model.write_bytes(model.read_bytes()[:-1])
    for arguments in ((NOISE,), (GOOD, "--against", NOISE)):
        ended = gate(*arguments)
        assert ended.exit_code == 2
        assert refused(ended).startswith("tidegate: model fraud/2: sha256 of model.onnx is ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("fraud/9",), "has no version 9"),
        (("fraud",), "'fraud' names no model"),
        ((GOOD, "--against", "fraud@challenger"), "fraud has no alias 'challenger'"),
        ((GOOD, "--features", "no.parquet"), "no.parquet"),
        ((GOOD, "--features", "tidegate.toml"), "tidegate.toml"),
        ((GOOD, "--features", "."), ". cannot be read as Parquet"),
        ((GOOD, "--features", "cut.parquet"), "cut.parquet"),
    ],
)
def test_what_is_not_there_is_one_line(folder: Path, arguments: tuple[str, ...], said: str) -> None:
    Path("cut.parquet").write_bytes(Path("labelled.parquet").read_bytes()[:5_000])
    ended = gate(*arguments)
    assert ended.exit_code == 2
    assert said in refused(ended)


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("label", None, "needs labelled rows of both kinds, 0 and 1: it has no label"),
        ("label", [0] * ROWS, "needs labelled rows of both kinds, 0 and 1: 8,000 rows with 0"),
        ("label", [0, 1, 2, 3] * (ROWS // 4), "2,000 rows with 2"),
        ("event.amount", None, "lacks columns: event.amount"),
        ("card.count.10s", ["many"] * ROWS, "has columns that hold no numbers: card.count.10s"),
        ("event_time", [None] + [1] * (ROWS - 1), "has labelled rows without event_time"),
        ("event.amount", [None] + [1.0] * (ROWS - 1), "has labelled rows without event.amount"),
    ],
)
def test_unusable_data_is_one_line(
    folder: Path, labelled: pa.Table, column: str, values: list[Any] | None, said: str
) -> None:
    changed = labelled.drop_columns(column)
    if values is not None:
        changed = changed.append_column(column, pa.array(values))
    pq.write_table(changed, "labelled.parquet")
    ended = gate(GOOD)
    assert ended.exit_code == 2
    assert said in refused(ended)


def test_the_extra_that_it_needs_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("models.plots", "models.promotion_report"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert refused(gate(GOOD)) == "tidegate: there is no matplotlib.figure: pip install 'tidegate[train]'"


def test_the_option_knows_every_check() -> None:
    assert model_gate.CHECKS == CHECKS


def test_json_is_the_whole_result(folder: Path) -> None:
    figures = orjson.loads(gate(GOOD, "--json").out)
    assert [check["name"] for check in figures["checks"]] == list(CHECKS)
    assert figures["passed"] is True
    assert figures["challenger"]["sha256"] == read_manifest(folder / "store" / "fraud" / "1" / MANIFEST_FILE).sha256
