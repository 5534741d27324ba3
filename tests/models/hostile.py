"""Versions that must not be loaded, each made from a good one, and what is said of it.

A maker changes the folder of a good version. Whatever it puts beside the model is named in `Case.complaint`, a pattern.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from models.manifest import Manifest, read_manifest, write_manifest
from models.store import MANIFEST_FILE, MODEL_FILE

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
# Nobody may read it; `test_store_only.py` puts it outside the store.
SECRET = "../../../secret.bin"


@dataclass(frozen=True)
class Case:
    """One way to be hostile: what makes it of a version's folder, and what has to be said of it."""

    name: str
    make: Callable[[Path], None]
    complaint: str


def put_model(folder: Path, model: bytes) -> None:
    """Another model file, with a manifest that vouches for it."""
    (folder / MODEL_FILE).write_bytes(model)
    change_manifest(folder, sha256=sha256(model).hexdigest())


def change_manifest(folder: Path, **changes: Any) -> None:
    """A manifest with other fields, which need not make sense."""
    path = folder / MANIFEST_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def manifest_of(folder: Path) -> Manifest:
    return read_manifest(folder / MANIFEST_FILE)


def graph_changed(change: Callable[[onnx.ModelProto], object]) -> Callable[[Path], None]:
    """A maker that changes the model, and has the manifest vouch for it."""

    def make(folder: Path) -> None:
        model = onnx.load(folder / MODEL_FILE)
        change(model)
        put_model(folder, model.SerializeToString())

    return make


def manifest_changed(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: change_manifest(folder, **changes)


def appended(*nodes: onnx.NodeProto) -> Callable[[Path], None]:
    """More nodes at the end, whose results nobody reads."""
    return graph_changed(lambda model: model.graph.node.extend(nodes))


def answering(*nodes: onnx.NodeProto, columns: int | None = None, element: int = FLOAT) -> Callable[[Path], None]:
    """Nodes that go on from the output `probability`; the last one gives the output, `answer`."""

    def change(model: onnx.ModelProto) -> None:
        model.graph.node.extend(nodes)
        shape = ["rows"] if columns is None else ["rows", columns]
        del model.graph.output[:]
        model.graph.output.append(helper.make_tensor_value_info("answer", element, shape))

    def make(folder: Path) -> None:
        graph_changed(change)(folder)
        change_manifest(folder, output="answer")

    return make


def plain(*nodes: onnx.NodeProto, **parts: Any) -> Callable[[Path], None]:
    """A model of its own: `features` [rows, 6] to `probability` [rows], by these nodes alone."""

    def make(folder: Path) -> None:
        put_model(folder, plain_model(*nodes, **parts))

    return make


def plain_model(
    *nodes: onnx.NodeProto,
    inputs: list[onnx.ValueInfoProto] | None = None,
    initializers: list[onnx.TensorProto] | None = None,
    output_shape: list[Any] | None = None,
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "plain",
        inputs or [helper.make_tensor_value_info("features", FLOAT, ["rows", 6])],
        [helper.make_tensor_value_info("probability", FLOAT, output_shape or ["rows"])],
        initializers or [],
    )
    opsets = [helper.make_opsetid("", 15), helper.make_opsetid("ai.onnx.ml", 3)]
    model: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    return model


def ints(name: str, *values: int) -> onnx.NodeProto:
    """A constant, int64[n]."""
    return helper.make_node("Constant", [], [name], value=helper.make_tensor(name, INT64, [len(values)], values))


def number(name: str, value: int) -> onnx.NodeProto:
    """A constant, int64[]."""
    return helper.make_node("Constant", [], [name], value=helper.make_tensor(name, INT64, [], [value]))


# --- data elsewhere ---------------------------------------------------------------------------------------------


def external_initializer(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=SECRET)


def external_unmarked(model: onnx.ModelProto) -> None:
    """Names a file, and says that its data is not there."""
    model.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")


def external_constant(model: onnx.ModelProto) -> None:
    tensor = helper.make_tensor("c", FLOAT, [1], [1.0])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=SECRET)
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))


def symlinked_model(folder: Path) -> None:
    moved = folder.parent.parent.parent / f"moved-{folder.name}.onnx"
    (folder / MODEL_FILE).rename(moved)
    (folder / MODEL_FILE).symlink_to(moved)


def symlinked_manifest(folder: Path) -> None:
    moved = folder.parent.parent.parent / f"moved-{folder.name}.json"
    (folder / MANIFEST_FILE).rename(moved)
    (folder / MANIFEST_FILE).symlink_to(moved)


def symlinked_version(folder: Path) -> None:
    moved = folder.parent.parent.parent / f"moved-{folder.name}"
    folder.rename(moved)
    folder.symlink_to(moved, target_is_directory=True)


def pipe_as_model(folder: Path) -> None:
    (folder / MODEL_FILE).unlink()
    os.mkfifo(folder / MODEL_FILE)


def folder_as_model(folder: Path) -> None:
    (folder / MODEL_FILE).unlink()
    (folder / MODEL_FILE).mkdir()


# --- graphs -----------------------------------------------------------------------------------------------------


def endless_loop(model: onnx.ModelProto) -> None:
    """A loop whose condition is always true, 2**62 times."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go_on"], ["still"])],
        "body",
        [helper.make_tensor_value_info("i", INT64, []), helper.make_tensor_value_info("go_on", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("still", TensorProto.BOOL, [])],
    )
    model.graph.node.extend([number("times", 2**62), helper.make_node("Loop", ["times", ""], [], body=body)])


def branches(model: onnx.ModelProto) -> None:
    inner = helper.make_graph([], "inner", [], [])
    model.graph.node.append(helper.make_node("If", ["probability"], ["x"], then_branch=inner, else_branch=inner))


def exploding_scan(model: onnx.ModelProto) -> None:
    inner = helper.make_graph([], "inner", [], [])
    node = helper.make_node("Scan", ["probability"], ["x"], body=inner, num_scan_inputs=1)
    model.graph.node.append(node)


def training_graph(model: onnx.ModelProto) -> None:
    model.training_info.add().algorithm.name = "step"


def sparse(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add().dims.append(1)


def own_function(model: onnx.ModelProto) -> None:
    model.functions.add(name="f", domain="ai.onnx")


def own_settings(model: onnx.ModelProto) -> None:
    settings = {"session_options": {"enable_profiling": True}}
    model.metadata_props.add(key="ort_config", value=json.dumps(settings))


def without_data(*dims: int) -> Callable[[onnx.ModelProto], None]:
    """A tensor that declares these dimensions and holds nothing."""

    def change(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer.add(name="large", data_type=FLOAT)
        tensor.dims.extend(dims)

    return change


def without_its_data(folder: Path) -> None:
    answering(helper.make_node("Add", ["probability", "large"], ["answer"]))(folder)
    graph_changed(without_data(1))(folder)


def zero_of(*dims: int) -> list[onnx.NodeProto]:
    """A number that is found only by filling a tensor of these dimensions."""
    return [
        ints("size", *dims),
        helper.make_node("ConstantOfShape", ["size"], ["zeros"]),
        helper.make_node("ReduceMax", ["zeros"], ["zero"], keepdims=0),
    ]


def declared_value(model: onnx.ModelProto) -> None:
    model.graph.value_info.append(helper.make_tensor_value_info("both", FLOAT, [2**20, 2**20]))


def two_graphs(folder: Path) -> None:
    model = (folder / MODEL_FILE).read_bytes()
    put_model(folder, model + model)


def tree(
    true: list[int], false: list[int], columns: list[int] | None = None, thresholds: list[float] | None = None
) -> Callable[[Path], None]:
    """One tree, whose nodes without children are leaves."""
    count = len(true)
    leaves = [node for node in range(count) if not true[node]]
    node = helper.make_node(
        "TreeEnsembleRegressor",
        ["features"],
        ["score"],
        domain="ai.onnx.ml",
        nodes_treeids=[0] * count,
        nodes_nodeids=list(range(count)),
        nodes_featureids=columns or [0] * count,
        nodes_modes=["BRANCH_LEQ" if child else "LEAF" for child in true],
        nodes_values=thresholds or [0.0] * count,
        nodes_truenodeids=true,
        nodes_falsenodeids=false,
        nodes_missing_value_tracks_true=[0] * count,
        target_treeids=[0] * len(leaves),
        target_nodeids=leaves,
        target_ids=[0] * len(leaves),
        target_weights=[0.5] * len(leaves),
        n_targets=1,
    )
    return plain(node, helper.make_node("Reshape", ["score", "flat"], ["probability"]), initializers=[flat()])


def flat() -> onnx.TensorProto:
    return helper.make_tensor("flat", INT64, [1], [-1])


def deep_tree(levels: int) -> Callable[[Path], None]:
    """A tree that is a chain: every other node is a leaf. ONNX Runtime ends by SIGSEGV on one of 30,000 levels."""
    count = 2 * levels + 1
    true = [node + 2 if node % 2 == 0 and node + 2 < count else 0 for node in range(count)]
    false = [node + 1 if child else 0 for node, child in enumerate(true)]
    return tree(true, false)


def ort_format(folder: Path) -> None:
    """Bytes that ONNX Runtime takes for its own format."""
    put_model(folder, b"\x20\x00\x00\x00ORTM" + bytes(64))


def truncated(folder: Path) -> None:
    put_model(folder, (folder / MODEL_FILE).read_bytes()[:-100])


def multiplied(size: int, times: int) -> list[onnx.NodeProto]:
    """A large matrix multiplied by itself, over and over: work without end in a file of some kilobytes."""
    nodes = [ints("size", size, size), helper.make_node("Shape", ["probability"], ["rows"])]
    # A size that depends on the rows is not computed beforehand.
    nodes += [
        helper.make_node("ConstantOfShape", ["size"], ["zeros"]),
        helper.make_node("ReduceMax", ["probability"], ["most"], keepdims=1),
        helper.make_node("Add", ["zeros", "most"], ["m0"]),
    ]
    nodes += [helper.make_node("MatMul", [f"m{i}", "m0"], [f"m{i + 1}"]) for i in range(times)]
    return [
        *nodes,
        helper.make_node("ReduceMax", [f"m{times}"], ["last"], keepdims=0),
        helper.make_node("Mul", ["last", "probability"], ["much"]),
        helper.make_node("Clip", ["much"], ["clipped"]),
        helper.make_node("Sigmoid", ["clipped"], ["answer"]),
    ]


def constant_answer(value: float) -> Callable[[Path], None]:
    """The probability, and this on top."""
    return answering(
        helper.make_node("Constant", [], ["c"], value=helper.make_tensor("c", FLOAT, [1], [value])),
        helper.make_node("Add", ["probability", "c"], ["answer"]),
    )


def by_worst_of_batch(folder: Path) -> None:
    """Every row scored like the worst of its batch, with golden rows that say so."""
    answering(
        helper.make_node("ReduceMax", ["probability"], ["worst"], keepdims=1),
        helper.make_node("Max", ["probability", "worst"], ["answer"]),
    )(folder)
    golden = json.loads((folder / MANIFEST_FILE).read_text())["golden"]
    highest = max(golden["expected"])
    change_manifest(folder, golden={**golden, "expected": [highest] * len(golden["expected"])})


def without_nulls(folder: Path) -> None:
    """A linear model: right on its golden rows, and without an answer where a feature is null."""
    weights = helper.make_tensor("weights", FLOAT, [6, 1], [0.0] * 6)
    nodes = [
        helper.make_node("MatMul", ["features", "weights"], ["sum"]),
        helper.make_node("Sigmoid", ["sum"], ["probability"]),
    ]
    put_model(folder, plain_model(*nodes, initializers=[weights], output_shape=["rows", 1]))
    change_manifest(folder, golden={"inputs": [[1.0] * 6] * 4, "expected": [0.5] * 4})


def lying_golden(folder: Path) -> None:
    golden = json.loads((folder / MANIFEST_FILE).read_text())["golden"]
    golden["expected"][3] += 1e-4
    change_manifest(folder, golden=golden)


def another_column(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 99


def fixed_rows(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 32


def whole_numbers(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = INT64


def second_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("more", FLOAT, ["rows"]))


def second_output(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("label", INT64, ["rows"]))


def attribute_twice(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute.append(model.graph.node[0].attribute[0])


def escaping_name(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("evil\n\x1b[2J", 1))


def manifest_written(data: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / MANIFEST_FILE).write_bytes(data) and None


def first_feature(**changes: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        features = json.loads((folder / MANIFEST_FILE).read_text())
        old = features["features"][0]
        features["features"][0] = {**old, **changes}
        if "name" in changes:
            features["reference"][changes["name"]] = features["reference"].pop(old["name"])
        (folder / MANIFEST_FILE).write_text(json.dumps(features))

    return make


_GRAPH = "subgraph, which is not allowed"
_EVENTS = "the values of events decide how large"
_MEMORY = "ONNX Runtime (refuses|fails)|more memory than it may|crashes"

CASES = [
    # data elsewhere
    Case("external data", graph_changed(external_initializer), "outside its file"),
    Case("external data that is said to be inside", graph_changed(external_unmarked), "outside its file"),
    Case("a constant with external data", graph_changed(external_constant), "outside its file"),
    Case("the model is a symlink", symlinked_model, r"model\.onnx is a symlink"),
    Case("the manifest is a symlink", symlinked_manifest, r"manifest\.json is a symlink"),
    Case("the version is a symlink", symlinked_version, "is a symlink, which is not followed"),
    Case("a pipe", pipe_as_model, "is no regular file"),
    Case("a folder", folder_as_model, "is no regular file"),
    # foreign code
    Case(
        "an opset of another domain",
        graph_changed(lambda model: model.opset_import.append(helper.make_opsetid("com.microsoft", 1))),
        "needs operators of 'com.microsoft'",
    ),
    Case(
        "EPContext",
        appended(
            helper.make_node(
                "EPContext", ["probability"], ["x"], domain="com.microsoft", embed_mode=0, ep_cache_context=SECRET
            )
        ),
        "needs operators of 'com.microsoft'",
    ),
    Case(
        "an operator of a library of its own",
        appended(helper.make_node("Steal", ["probability"], ["x"], domain="my.library")),
        "needs operators of 'my.library'",
    ),
    Case("a function of its own", graph_changed(own_function), "functions of its own"),
    Case("settings for ONNX Runtime", graph_changed(own_settings), "settings for ONNX Runtime"),
    Case("a training graph", graph_changed(training_graph), "training graph"),
    Case("another format", ort_format, "not valid ONNX"),
    # graphs that do not end
    Case("an endless loop", graph_changed(endless_loop), f"Loop holds a {_GRAPH}"),
    Case("branches", graph_changed(branches), f"If holds a {_GRAPH}"),
    Case("a scan", graph_changed(exploding_scan), f"Scan holds a {_GRAPH}"),
    Case("a deep tree", deep_tree(30_000), "deeper than 1000 nodes"),
    Case("a tree in circles", tree([1, 2, 1, 0, 0], [3, 3, 4, 0, 0]), "run in circles"),
    Case("a circle beside the tree", tree([0, 2, 1], [0, 2, 1]), "run in circles"),
    Case("a tree to nowhere", tree([1, 0, 0], [7, 0, 0]), "a node that there is none of"),
    # Only an event far out of the reference would have come to it.
    Case(
        "a tree that reads beyond its row",
        tree([2, 3, 0, 0, 0], [1, 4, 0, 0, 0], [0, 1_000_000, 0, 0, 0], [1e30] * 5),
        "a column that there is none of",
    ),
    Case(
        "too many nodes",
        appended(*(helper.make_node("Identity", ["probability"], [f"x{i}"]) for i in range(10_001))),
        "10003 nodes, more than 10000",
    ),
    Case(
        "too long a chain",
        appended(*(helper.make_node("Neg", [f"x{i}" if i else "probability"], [f"x{i + 1}"]) for i in range(1_001))),
        "a chain of more than 1000 nodes",
    ),
    Case(
        "an operator before what it reads",
        appended(helper.make_node("Neg", ["later"], ["x"]), helper.make_node("Neg", ["x"], ["later"])),
        "reads 'later' before anything gives it",
    ),
    Case("work without end", answering(*multiplied(2_048, 900)), "s of the processor"),
    # memory
    Case("a tensor of terabytes", graph_changed(without_data(2**20, 2**20)), "'large' would take 4398046511104 bytes"),
    Case("a negative dimension", graph_changed(without_data(-1)), "'large' has a negative dimension"),
    Case("a tensor without its data", without_its_data, "ONNX Runtime refuses"),
    Case("a shape of terabytes", graph_changed(declared_value), "'both' would take 4398046511104 bytes"),
    Case("a sparse tensor", graph_changed(sparse), "sparse tensor"),
    Case(
        "a constant of terabytes",
        answering(*zero_of(2**20, 2**20), helper.make_node("Add", ["probability", "zero"], ["answer"])),
        _MEMORY,
    ),
    Case(
        "a constant of gigabytes",
        answering(*zero_of(2**14, 2**14), helper.make_node("Add", ["probability", "zero"], ["answer"])),
        _MEMORY,
    ),
    Case(
        "rows times rows times rows",
        answering(
            helper.make_node("Shape", ["probability"], ["rows"]),
            helper.make_node("Concat", ["rows", "rows", "rows"], ["cube"], axis=0),
            helper.make_node("Expand", ["probability", "cube"], ["large"]),
            helper.make_node("ReduceMax", ["large"], ["answer"], axes=[0, 1], keepdims=0),
        ),
        _MEMORY,
    ),
    Case(
        "as large as an event says",
        answering(
            helper.make_node("Cast", ["probability"], ["size"], to=INT64),
            helper.make_node("ConstantOfShape", ["size"], ["answer"]),
        ),
        f"{_EVENTS} the result of operator ConstantOfShape",
    ),
    Case(
        "a range up to an amount",
        answering(
            number("zero", 0),
            number("one", 1),
            helper.make_node("ReduceMax", ["probability"], ["most"], keepdims=0),
            helper.make_node("Cast", ["most"], ["limit"], to=INT64),
            helper.make_node("Range", ["zero", "limit", "one"], ["answer"]),
        ),
        f"{_EVENTS} the result of operator Range",
    ),
    # operators
    Case(
        "another result each time",
        answering(
            helper.make_node("RandomUniformLike", ["probability"], ["x"]),
            helper.make_node("Mul", ["x", "probability"], ["answer"]),
        ),
        "'RandomUniformLike' is not among those that are allowed",
    ),
    Case(
        "an operator that there is none of",
        appended(helper.make_node("NoSuch", ["probability"], ["x"])),
        "'NoSuch' is not among those that are allowed",
    ),
    Case("an attribute twice", graph_changed(attribute_twice), "has an attribute twice"),
    Case("operators of another version", manifest_changed(opset={"ai.onnx": 14, "ai.onnx.ml": 3}), "manifest says"),
    Case("a name that clears the screen", graph_changed(escaping_name), r"operators of 'evil\\n\\x1b\[2J'"),
    # interface
    Case("another number of columns", graph_changed(another_column), "one float matrix of 6 columns"),
    Case("a fixed number of rows", graph_changed(fixed_rows), "any number of rows, not"),
    Case("whole numbers as input", graph_changed(whole_numbers), "one float matrix of 6 columns|ONNX Runtime refuses"),
    Case("two inputs", graph_changed(second_input), "takes 2 inputs"),
    Case("two outputs", graph_changed(second_output), "as its one output, and it has 'probability', 'label'"),
    Case("another output", manifest_changed(output="score"), "'score' as its one output"),
    Case(
        "two columns",
        answering(
            ints("two", 1, 2),
            ints("last", 1),
            helper.make_node("Unsqueeze", ["probability", "last"], ["column"]),
            helper.make_node("Expand", ["column", "two"], ["answer"]),
            columns=2,
        ),
        r"one float per row, not tensor\(float\) \['rows', 2\]",
    ),
    Case(
        "doubles",
        answering(helper.make_node("Cast", ["probability"], ["answer"], to=TensorProto.DOUBLE), element=11),
        r"one float per row, not tensor\(double\)",
    ),
    # damage
    Case("a truncated file", truncated, "not valid ONNX"),
    Case("an empty file", lambda folder: put_model(folder, b""), "holds no ONNX graph"),
    Case("no model at all", lambda folder: put_model(folder, b"not a model at all"), "not valid ONNX"),
    Case("two graphs in one file", two_graphs, "holds two graphs"),
    Case("no model file", lambda folder: (folder / MODEL_FILE).unlink(), r"model\.onnx does not exist"),
    Case("no manifest", lambda folder: (folder / MANIFEST_FILE).unlink(), r"manifest\.json does not exist"),
    # answers
    Case(
        "NaN",
        answering(
            helper.make_node("Sub", ["probability", "probability"], ["zero"]),
            helper.make_node("Div", ["zero", "zero"], ["answer"]),
        ),
        "gives nan for golden row 0",
    ),
    Case("more than 1", constant_answer(2.0), r"gives 2[.\d]* for golden row 0, which is no probability"),
    Case("less than 0", constant_answer(-2.0), r"gives -[.\d]+ for golden row 0, which is no probability"),
    Case("no answer to nulls", without_nulls, "gives nan for probe 0"),
    Case("answers by the batch", by_worst_of_batch, "another probability"),
    # manifests that lie or are none
    Case("another sha256", manifest_changed(sha256="0" * 64), "the manifest says 0000"),
    Case("another name", manifest_changed(name="other"), "its manifest is that of other/"),
    Case("golden rows that do not come out", lying_golden, "golden rows are off by 0.0001"),
    Case("no golden rows", manifest_changed(golden={"inputs": [], "expected": []}), "needs at least one row"),
    Case("no JSON", manifest_written(b"{"), "not a model manifest"),
    Case("no text", manifest_written(b'{"name": "\xff\xfe"}'), "not a model manifest"),
    Case("nested without end", manifest_written(b'{"golden": ' + b"[" * 100_000), "not a model manifest"),
    Case("a manifest too large", manifest_written(b" " * (16 * 1024 * 1024 + 1)), "more than 16777216 bytes"),
    # features
    Case("a feature that there is none of", first_feature(name="card.count.9d"), r"does not have: card\.count\.9d"),
    Case("another definition", first_feature(definition_hash="f" * 16), r"other definitions of: event\.amount"),
]


def plant(good: Path, store: Path, version: int, case: Case) -> None:
    """Makes version `version` of the model `fraud` a hostile one, from the folder of a good one."""
    folder = store / "fraud" / str(version)
    folder.mkdir(parents=True)
    (folder / MODEL_FILE).write_bytes((good / MODEL_FILE).read_bytes())
    manifest = manifest_of(good)
    write_manifest(folder / MANIFEST_FILE, manifest)
    change_manifest(folder, version=version)
    case.make(folder)
