"""`tidegate models import`, from the features of generated traffic to decisions of the imported model."""

from pathlib import Path

import lightgbm
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from engine.cli import main
from engine.config import default_profile
from loadtest.render import records
from loadtest.settings import TrafficSettings
from loadtest.traffic import generate

EVENTS = 8_000
INPUTS = ["event.amount", "card.count.10s", "card.sum.amount.1m", "card.distinct.merchant.1m"]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Events, their features with labels, a model trained on these in LightGBM, and a configuration with a store."""
    monkeypatch.chdir(tmp_path)
    traffic = generate(TrafficSettings(seed=3), EVENTS)
    lines = [value for batch in records(traffic, traffic.send_times_ms) for value in batch.values]
    Path("events.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    Path("tidegate.toml").write_text(f"{default_profile()}\n[models]\nstore = 'store'\nchampion = 'fraud/1'\n")
    assert invoke("features", "backfill", "events.jsonl", "--out", "features.parquet").exit_code == 0
    table = pq.read_table("features.parquet")
    labels = (traffic.attack_kinds > 0).astype(np.int8)[: len(table)]
    pq.write_table(table.append_column("label", pa.array(labels)), "features.parquet")
    rows = np.column_stack([table[name].to_numpy() for name in INPUTS])
    data = lightgbm.Dataset(rows, labels, feature_name=INPUTS)
    lightgbm.train({"objective": "binary", "verbose": -1, "num_threads": 1}, data, 20).save_model("model.txt")
    return tmp_path


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_an_imported_model_decides(workplace: Path) -> None:
    done = invoke("models", "import", "model.txt", "--name", "fraud", "--features", "features.parquet")
    assert done.exit_code == 0, done.output
    assert f"{EVENTS:,} rows: max |dp| " in done.output
    assert "0 decided otherwise" in done.output
    assert "fraud/1 is in " in done.output
    replayed = invoke("replay", "events.jsonl", "--out", "decisions.jsonl")
    assert replayed.exit_code == 0, replayed.output
    decisions = [orjson.loads(line) for line in Path("decisions.jsonl").read_bytes().splitlines()]
    assert {decision["model"]["name"] for decision in decisions} == {"fraud"}
    scores = np.array([decision["risk_score"] for decision in decisions])
    genuine = pq.read_table("features.parquet")["label"].to_numpy() == 0
    assert (scores[genuine] >= 500).mean() == pytest.approx(0.01, abs=0.003)


def test_the_report_as_json(workplace: Path) -> None:
    done = invoke("models", "import", "model.txt", "--name", "fraud", "--features", "features.parquet", "--json")
    report = orjson.loads(done.stdout)
    assert report["rows"] == EVENTS
    assert report["max"] <= 1e-5
    assert report["flipped_rows"] == 0


def test_beyond_the_tolerance_is_refused(workplace: Path) -> None:
    done = invoke(
        "models", "import", "model.txt", "--name", "fraud", "--features", "features.parquet", "--tolerance", "1e-12"
    )
    assert done.exit_code == 2
    assert "more than 1e-12" in done.stderr
    assert not Path("store").exists()


def test_the_store_that_ships_is_not_added_to(workplace: Path) -> None:
    Path("tidegate.toml").write_text(default_profile())
    done = invoke("models", "import", "model.txt", "--name", "fraud", "--features", "features.parquet")
    assert done.exit_code == 2
    assert "models.store is not set" in done.stderr


@pytest.mark.parametrize("content", ["{}", "[1]", "no json"])
def test_inputs_must_be_names(workplace: Path, content: str) -> None:
    Path("inputs.json").write_text(content)
    options = ["--name", "fraud", "--features", "features.parquet", "--inputs", "inputs.json"]
    done = invoke("models", "import", "model.onnx", *options)
    assert done.exit_code == 2
    assert "--inputs inputs.json" in done.stderr
