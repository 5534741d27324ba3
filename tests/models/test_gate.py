"""Hostile models are refused, each with its reason in one line, and what runs goes on as before."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from models import trial
from models.errors import ModelError
from models.gate import check_graph
from models.graph import read_graph
from models.manifest import read_manifest
from models.runtime import Model, load_model
from models.session import open_session
from models.store import MANIFEST_FILE, MODEL_FILE, Located
from tests.models.hostile import CASES, Case, change_manifest, deep_tree, plain_model, plant, put_model
from tests.models.synthetic import DEFINITIONS, feature_matrix

OPSET = {"ai.onnx": 15, "ai.onnx.ml": 3}


@pytest.fixture(scope="module")
def running(trained: Located) -> Model:
    """A model that scores while others are refused."""
    return load_model(trained.directory.parent.parent, "fraud@champion", DEFINITIONS)


@pytest.fixture(autouse=True)
def tight_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "LIMITS", trial.Limits(memory_bytes=512 * 1024 * 1024, cpu_s=3, wall_s=60.0))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_hostile_models_are_refused(trained: Located, running: Model, tmp_path: Path, case: Case) -> None:
    matrix = feature_matrix(np.random.default_rng(4), 100)
    before = running.score(matrix)
    plant(trained.directory, tmp_path / "store", 2, case)
    with pytest.raises(ModelError, match=case.complaint) as refused:
        load_model(tmp_path / "store", "fraud/2", DEFINITIONS)
    assert str(refused.value).startswith("model fraud/2: ")
    assert str(refused.value).isprintable()
    assert "Traceback" not in str(refused.value)
    np.testing.assert_array_equal(running.score(matrix), before)


def test_there_are_enough_of_them() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 20


def test_a_good_one_is_accepted_and_tried_once(trained: Located, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_stood", set())
    tried = []
    original = trial._try
    monkeypatch.setattr(trial, "_try", lambda *of: tried.append(1) or original(*of))
    for _ in range(2):
        load_model(trained.directory.parent.parent, "fraud@champion", DEFINITIONS)
    assert tried == [1]


def test_a_linear_model_is_accepted(trained: Located, tmp_path: Path) -> None:
    """Other operators than trees, and a product that ONNX Runtime computes otherwise for one row than for many."""
    weights = np.random.default_rng(3).normal(size=(6, 1)).astype(np.float32) / 100
    nodes = [
        helper.make_node("IsNaN", ["features"], ["null"]),
        helper.make_node("Where", ["null", "zero", "features"], ["filled"]),
        helper.make_node("Gemm", ["filled", "weights"], ["sum"]),
        helper.make_node("Sigmoid", ["sum"], ["probability"]),
    ]
    constants = [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(np.float32(0), "zero")]
    model = plain_model(*nodes, initializers=constants, output_shape=["rows", 1])
    rows = np.random.default_rng(4).normal(size=(8, 6)).astype(np.float32)
    expected = 1 / (1 + np.exp(-(rows.astype(np.float64) @ weights)))

    def linear(folder: Path) -> None:
        put_model(folder, model)
        change_manifest(folder, golden={"inputs": rows.tolist(), "expected": expected.ravel().tolist()})

    plant(trained.directory, tmp_path / "store", 2, Case("linear", linear, ""))
    loaded = load_model(tmp_path / "store", "fraud/2", DEFINITIONS)
    whole = loaded.score_inputs(rows)
    np.testing.assert_array_equal(np.concatenate([loaded.score_inputs(row[None]) for row in rows]), whole)


def test_other_bytes_are_tried_again(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A manifest that says something else is another model, though the file beside it is the same."""
    load_model(store, "fraud@champion", DEFINITIONS)
    golden = read_manifest(store / "fraud" / "1" / MANIFEST_FILE).golden
    change_manifest(store / "fraud" / "1", golden={"inputs": golden.inputs, "expected": [0.5] * len(golden.expected)})
    with pytest.raises(ModelError, match="golden rows are off"):
        load_model(store, "fraud@champion", DEFINITIONS)


def test_what_was_hashed_is_what_is_loaded(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file changes as soon as it was read, and nobody looks at it again."""
    path = store / "fraud" / "1" / MODEL_FILE
    original = trial.stand_trial

    def overwritten(manifest: bytes, model: bytes) -> None:
        path.write_bytes(b"another model")
        original(manifest, model)

    monkeypatch.setattr("models.runtime.stand_trial", overwritten)
    assert load_model(store, "fraud@champion", DEFINITIONS).score(np.ones((1, len(DEFINITIONS)))) < 1


# --- the subprocess ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ("kill -SEGV $$", r"crashes whoever loads it \(SIGSEGV\)"),
        ("kill -XCPU $$", "takes more than 3 s of the processor"),
        ("exec sleep 60", "takes more than 0.5 s$"),
        ("echo what went wrong >&2; exit 1", "its trial failed: what went wrong"),
        ("exit 3", "its trial failed: exit code 3"),
    ],
)
def test_however_the_trial_ends(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, complaint: str
) -> None:
    child = tmp_path / "child"
    child.write_text(f"#!/bin/sh\n{script}\n")
    child.chmod(0o755)
    monkeypatch.setattr(trial, "_stood", set())
    monkeypatch.setattr(trial, "LIMITS", trial.Limits(cpu_s=3, wall_s=0.5))
    monkeypatch.setattr("models.trial.sys.executable", str(child))
    with pytest.raises(ModelError, match=complaint):
        load_model(store, "fraud@champion", DEFINITIONS)


def test_a_refused_model_is_tried_again(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine may have been too busy."""
    monkeypatch.setattr(trial, "_stood", set())
    with monkeypatch.context() as hurried:
        hurried.setattr(trial, "LIMITS", trial.Limits(wall_s=0.001))
        with pytest.raises(ModelError, match=r"more than 0\.001 s"):
            load_model(store, "fraud@champion", DEFINITIONS)
    assert load_model(store, "fraud@champion", DEFINITIONS).version == 1


@pytest.mark.parametrize(
    ("attempt", "error"),
    [
        ("open('/etc/hostname')", "Too many open files"),
        ("__import__('socket').socket()", "Too many open files"),
        ("__import__('os').pipe()", "Too many open files"),
        ("bytearray(1 << 30)", "MemoryError"),
    ],
)
def test_nothing_can_be_opened_once_the_bytes_are_there(attempt: str, error: str) -> None:
    code = f"import socket\nfrom models.trial_child import *\nconfine(Limits(memory_bytes=1 << 30))\n{attempt}"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert error in done.stderr.splitlines()[-1]


def test_a_tighter_limit_stays() -> None:
    code = """
import resource
from models.trial_child import *
resource.setrlimit(resource.RLIMIT_CPU, (7, 7))
confine(Limits())
print(resource.getrlimit(resource.RLIMIT_CPU))
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "(7, 7)\n"


def test_passwords_are_no_part_of_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE__KAFKA__CLIENT__SASL_PASSWORD", "secret")
    assert "secret" not in trial._environment().values()


# --- the bytes --------------------------------------------------------------------------------------------------


def test_an_oversize_file_is_refused(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.runtime.MODEL_BYTES_MAX", 1_000)
    with pytest.raises(ModelError, match="more than 1000 bytes"):
        load_model(store, "fraud@champion", DEFINITIONS)


def test_any_truncation_is_refused(trained: Located) -> None:
    model = (trained.directory / MODEL_FILE).read_bytes()
    check_graph(model, 6, OPSET)
    for size in range(0, len(model) - 100, 997):
        with pytest.raises(ModelError):
            check_graph(model[:size], 6, OPSET)


@pytest.mark.parametrize(
    "data",
    [b"", b"not a model at all", b"\xff" * 64, b"\x3a\x05abc", b"\x3a", b"\x08", b"\x08" + b"\x80" * 20, b"\x0b"],
)
def test_what_is_not_onnx_is_refused(data: bytes) -> None:
    with pytest.raises(ModelError):
        check_graph(data, 6, OPSET)


def test_damaged_bytes_are_refused_or_run_but_never_raise_anything_else(trained: Located) -> None:
    model = (trained.directory / MODEL_FILE).read_bytes()
    rng = np.random.default_rng(9)
    structure = np.r_[0:200, len(model) - 300 : len(model)]
    refused = 0
    for _ in range(80):
        damaged = bytearray(model)
        damaged[rng.choice(structure)] = rng.integers(256)
        try:
            check_graph(bytes(damaged), 6, OPSET)
            open_session(bytes(damaged))
        except ModelError:
            refused += 1
    assert refused > 25


def test_it_reads_what_the_onnx_library_reads(trained: Located) -> None:
    """The graph against that library's own reading of the file."""
    data = (trained.directory / MODEL_FILE).read_bytes()
    (graph,) = read_graph(data).graphs
    expected = onnx.load_from_string(data).graph
    assert [(node.operator, node.domain, node.inputs, node.outputs) for node in graph.nodes] == [
        (node.op_type, node.domain, list(node.input), list(node.output)) for node in expected.node
    ]
    for ours, theirs in zip(graph.nodes, expected.node, strict=True):
        assert [attribute.name for attribute in ours.attributes] == [attribute.name for attribute in theirs.attribute]
        for mine, other in zip(ours.attributes, theirs.attribute, strict=True):
            if other.ints:
                assert mine.numbers().tolist() == list(other.ints)
            assert mine.strings == list(other.strings)
    assert (graph.inputs, graph.outputs) == (["features"], ["probability"])
    assert {value.name: value.dims for value in graph.values} == {"features": (-1, 6), "probability": (-1,)}


def test_negative_and_packed_numbers() -> None:
    packed = onnx.helper.make_tensor("t", onnx.TensorProto.INT64, [3, 5], range(15)).SerializeToString()
    initializer = onnx.GraphProto(initializer=[onnx.TensorProto.FromString(packed)])
    model = onnx.ModelProto(graph=initializer).SerializeToString()
    assert read_graph(model).graphs[0].initializers[0].dims == (3, 5)
    negative = onnx.ModelProto(graph=onnx.GraphProto(initializer=[onnx.TensorProto(dims=[-7, 2**62])]))
    assert read_graph(negative.SerializeToString()).graphs[0].initializers[0].dims == (-7, 2**62)


def test_trees_of_the_greatest_depth(tmp_path: Path, trained: Located) -> None:
    for levels, fine in ((999, True), (1_000, False)):
        plant(trained.directory, tmp_path / str(levels), 1, Case("deep", deep_tree(levels), ""))
        model = (tmp_path / str(levels) / "fraud" / "1" / MODEL_FILE).read_bytes()
        if fine:
            check_graph(model, 6, OPSET)
        else:
            with pytest.raises(ModelError, match="deeper than 1000"):
                check_graph(model, 6, OPSET)
