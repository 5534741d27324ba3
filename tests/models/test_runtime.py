"""A model scores only after everything about it was checked, and then the same way in every batch."""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from features.spec import FeatureDef
from models.errors import ModelError
from models.gate import check_graph
from models.manifest import Manifest, read_manifest, write_manifest
from models.runtime import load_model
from models.session import open_session
from models.store import MANIFEST_FILE, MODEL_FILE
from tests.models.synthetic import DEFINITIONS, NAMES, SPEC, feature_matrix

BATCH_ROWS = (1, 2, 7, 64, 512, 4_096)


def rewrite(store: Path, change: Callable[[Manifest], Manifest]) -> None:
    path = store / "fraud" / "1" / MANIFEST_FILE
    write_manifest(path, change(read_manifest(path)))


def replace_model(store: Path, model: bytes) -> None:
    """Another file, with a manifest that vouches for it."""
    (store / "fraud" / "1" / MODEL_FILE).write_bytes(model)
    rewrite(store, lambda manifest: msgspec.structs.replace(manifest, sha256=sha256(model).hexdigest()))


def onnx_model(store: Path) -> onnx.ModelProto:
    return onnx.load(store / "fraud" / "1" / MODEL_FILE)


def test_a_row_gets_the_same_bits_in_every_batch(store: Path) -> None:
    model = load_model(store, "fraud@champion", DEFINITIONS)
    matrix = feature_matrix(np.random.default_rng(5), 4_096)
    matrix[::17] = np.nan
    whole = model.score(matrix)
    assert whole.dtype == np.float32
    assert len(np.unique(whole)) > 100
    for rows in BATCH_ROWS:
        parts = [model.score(matrix[i : i + rows]) for i in range(0, len(matrix), rows)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_a_model_picks_its_columns_by_name(store: Path) -> None:
    model = load_model(store, "fraud@champion", DEFINITIONS)
    matrix = feature_matrix(np.random.default_rng(6), 100)
    reversed_model = load_model(store, "fraud@champion", DEFINITIONS[::-1])
    np.testing.assert_array_equal(model.score(matrix), reversed_model.score(matrix[:, ::-1]))
    assert [SPEC.names[column] for column in model.columns] == NAMES


def test_no_rows_no_scores(store: Path) -> None:
    model = load_model(store, "fraud@champion", DEFINITIONS)
    assert model.score(np.empty((0, len(DEFINITIONS)))).shape == (0,)


def test_more_features_than_needed_are_fine_fewer_are_named(store: Path) -> None:
    extra = FeatureDef("card.count.7d", "0" * 16)
    assert load_model(store, "fraud@champion", [extra, *DEFINITIONS]).columns.min() > 0
    without = [definition for definition in DEFINITIONS if definition.name != "card.since_last"]
    with pytest.raises(ModelError, match=r"fraud/1.*does not have: card\.since_last$"):
        load_model(store, "fraud@champion", without)


def test_another_definition_is_refused(store: Path) -> None:
    changed = [FeatureDef(d.name, "f" * 16) if d.name == "card.count.1m" else d for d in DEFINITIONS]
    with pytest.raises(ModelError, match=r"other definitions of: card\.count\.1m$"):
        load_model(store, "fraud@champion", changed)


def test_a_changed_file_is_refused(store: Path) -> None:
    path = store / "fraud" / "1" / MODEL_FILE
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(ModelError, match="sha256"):
        load_model(store, "fraud@champion", DEFINITIONS)


def test_a_missing_file_is_named(store: Path) -> None:
    (store / "fraud" / "1" / MODEL_FILE).unlink()
    with pytest.raises(ModelError, match=r"model\.onnx does not exist"):
        load_model(store, "fraud@champion", DEFINITIONS)


def test_a_manifest_in_the_wrong_place_is_refused(store: Path) -> None:
    rewrite(store, lambda manifest: msgspec.structs.replace(manifest, version=4))
    with pytest.raises(ModelError, match="its manifest is that of fraud/4"):
        load_model(store, "fraud@champion", DEFINITIONS)


def shift_one_golden_row(store: Path, shift: float) -> None:
    def change(manifest: Manifest) -> Manifest:
        expected = [value + shift * (i == 3) for i, value in enumerate(manifest.golden.expected)]
        golden = msgspec.structs.replace(manifest.golden, expected=expected)
        return msgspec.structs.replace(manifest, golden=golden)

    rewrite(store, change)


def test_golden_rows_must_match(store: Path) -> None:
    shift_one_golden_row(store, 1e-5)
    with pytest.raises(ModelError, match="golden rows are off by 1e-05"):
        load_model(store, "fraud@champion", DEFINITIONS)


def test_golden_rows_may_differ_by_rounding(store: Path) -> None:
    shift_one_golden_row(store, 5e-7)
    load_model(store, "fraud@champion", DEFINITIONS)


def test_scores_that_depend_on_the_batch_are_refused(store: Path) -> None:
    """A graph that scores every row like the worst of its batch."""
    model = onnx_model(store)
    model.graph.output[0].name = "shifted"
    model.graph.node.append(helper.make_node("ReduceMax", ["probability"], ["worst"], keepdims=1))
    model.graph.node.append(helper.make_node("Max", ["probability", "worst"], ["shifted"]))
    replace_model(store, model.SerializeToString())
    highest = read_manifest(store / "fraud" / "1" / MANIFEST_FILE).golden.expected
    rewrite(
        store,
        lambda m: msgspec.structs.replace(
            m,
            output="shifted",
            golden=msgspec.structs.replace(m.golden, expected=[max(highest)] * len(highest)),
        ),
    )
    with pytest.raises(ModelError, match="alone than in a batch"):
        load_model(store, "fraud@champion", DEFINITIONS)


def with_external_data(model: onnx.ModelProto) -> onnx.ModelProto:
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    return model


def with_foreign_domain(model: onnx.ModelProto) -> onnx.ModelProto:
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


def with_foreign_node(model: onnx.ModelProto) -> onnx.ModelProto:
    model.graph.node.append(helper.make_node("EPContext", ["probability"], ["x"], domain="com.microsoft"))
    return model


def with_subgraph(model: onnx.ModelProto) -> onnx.ModelProto:
    inner = helper.make_graph([], "inner", [], [])
    model.graph.node.append(helper.make_node("If", ["probability"], ["x"], then_branch=inner, else_branch=inner))
    return model


def with_function(model: onnx.ModelProto) -> onnx.ModelProto:
    model.functions.add(name="f", domain="ai.onnx")
    return model


def with_external_constant(model: onnx.ModelProto) -> onnx.ModelProto:
    tensor = helper.make_tensor("c", TensorProto.FLOAT, [1], [1.0])
    tensor.data_location = TensorProto.EXTERNAL
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))
    return model


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (with_external_data, "outside its file"),
        (with_external_constant, "outside its file"),
        (with_foreign_domain, "com.microsoft"),
        (with_foreign_node, "com.microsoft"),
        (with_subgraph, "a subgraph"),
        (with_function, "functions"),
    ],
)
def test_the_gate_refuses_more_than_a_plain_graph(
    store: Path, change: Callable[[onnx.ModelProto], onnx.ModelProto], complaint: str
) -> None:
    replace_model(store, change(onnx_model(store)).SerializeToString())
    with pytest.raises(ModelError, match=complaint):
        load_model(store, "fraud@champion", DEFINITIONS)


def test_the_gate_refuses_an_oversize_file(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.gate.MODEL_BYTES_MAX", 1_000)
    with pytest.raises(ModelError, match="more than 1000 bytes"):
        load_model(store, "fraud@champion", DEFINITIONS)


def test_the_gate_survives_any_truncation(store: Path) -> None:
    model = (store / "fraud" / "1" / MODEL_FILE).read_bytes()
    check_graph(model)
    for size in range(0, len(model) - 100, 997):
        with pytest.raises(ModelError):
            check_graph(model[:size])


@pytest.mark.parametrize("data", [b"", b"not a model at all", b"\xff" * 64, b"\x3a\x05abc"])
def test_the_gate_refuses_what_is_not_onnx(data: bytes) -> None:
    with pytest.raises(ModelError):
        check_graph(data)


def test_a_graph_that_onnx_runtime_refuses(store: Path) -> None:
    model = onnx_model(store)
    model.graph.node.append(helper.make_node("NoSuchOperator", ["probability"], ["x"]))
    replace_model(store, model.SerializeToString())
    with pytest.raises(ModelError, match="ONNX Runtime refuses"):
        load_model(store, "fraud@champion", DEFINITIONS)


def test_damaged_bytes_are_refused_or_run_but_never_raise_anything_else(store: Path) -> None:
    model = (store / "fraud" / "1" / MODEL_FILE).read_bytes()
    rng = np.random.default_rng(9)
    structure = np.r_[0:200, len(model) - 300 : len(model)]
    refused = 0
    for _ in range(80):
        damaged = bytearray(model)
        damaged[rng.choice(structure)] = rng.integers(256)
        try:
            check_graph(bytes(damaged))
            open_session(bytes(damaged))
        except ModelError:
            refused += 1
    assert refused > 25


def test_a_graph_of_another_shape(store: Path) -> None:
    model = onnx_model(store)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 99
    replace_model(store, model.SerializeToString())
    with pytest.raises(ModelError, match="one float matrix of 6 columns"):
        load_model(store, "fraud@champion", DEFINITIONS)


def test_a_graph_without_the_output(store: Path) -> None:
    rewrite(store, lambda manifest: msgspec.structs.replace(manifest, output="score"))
    with pytest.raises(ModelError, match="no float output 'score'"):
        load_model(store, "fraud@champion", DEFINITIONS)
