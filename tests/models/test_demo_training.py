"""The way the demo model is made, on less of everything: generator, the engine's own kernels, training, ONNX, store."""

import subprocess
import sys
from pathlib import Path

from engine.config import default_profile, parse_config
from models.manifest import read_manifest
from models.runtime import load_model
from models.store import MANIFEST_FILE, resolve

SCRIPT = Path(__file__).parents[2] / "scripts" / "train"


def test_a_small_model_finds_attacks_in_streams_it_never_saw(tmp_path: Path) -> None:
    """Episodes a day apart, each with cards, merchants and attacks of its own; the last one is the later slice."""
    small = ["--episodes", "4", "--events", "40000", "--name", "small", "--store", str(tmp_path)]
    done = subprocess.run([sys.executable, SCRIPT, *small], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    located = resolve(tmp_path, "small@champion")
    manifest = read_manifest(located.directory / MANIFEST_FILE)
    assert manifest.training.test_positives > 100
    assert manifest.metrics["auc"] > 0.95
    assert manifest.metrics["average_precision"] > 0.5
    definitions = parse_config(default_profile(), tmp_path, {}).feature_spec().features
    assert load_model(tmp_path, "small@champion", definitions).version == located.version
