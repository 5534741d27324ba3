"""Imports go one way: features <- models <- engine, only engine/kafka speaks to Kafka, only models/session.py to ONNX
Runtime, and only some of engine/control to Faust.

loadtest measures from outside: of ours it knows engine.events alone, and nobody knows it but engine/cli.py,
which imports it inside functions, so that `tidegate run` never loads it.
"""

import ast
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("features", "models", "engine", "loadtest")

# What a package may import of ours, besides itself: a module name allows the modules below it too.
ALLOWED = {
    "features": (),
    "models": ("features",),
    "engine": ("features", "models"),
    "loadtest": ("engine.events",),
}

# Everything else of the control plane is tested without it.
FAUST = tuple(f"engine/control/{name}.py" for name in ("agents", "routes", "security", "serve", "tables", "transport"))


class Import(NamedTuple):
    """One imported module; `lazy` when the import stands inside a function."""

    module: str
    line: int
    lazy: bool


def imports(tree: ast.AST, package: str, *, lazy: bool = False) -> Iterator[Import]:
    """All imports under `tree`, with relative ones resolved against `package`.

    `from a import b` counts as a.b, because b may be a module; a rule that allows `a` allows that too.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, lazy)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            start = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield Import(f"{start}.{alias.name}", node.lineno, lazy)
        else:
            inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from imports(node, package, lazy=lazy or inside)


def within(module: str, parents: tuple[str, ...]) -> bool:
    return any(module == parent or module.startswith(f"{parent}.") for parent in parents)


def refusal(path: PurePosixPath, found: Import) -> str | None:
    """Why the source file at `path` must not have this import; None when it may."""
    package = path.parts[0]
    if within(found.module, ("confluent_kafka",)):
        allowed = package == "loadtest" or path.parts[:2] == ("engine", "kafka")
        return None if allowed else "only engine/kafka and loadtest may import confluent_kafka"
    if within(found.module, ("onnxruntime",)):
        allowed = path == PurePosixPath("models/session.py")
        return None if allowed else "only models/session.py may import onnxruntime"
    if within(found.module, ("faust", "mode", "aiokafka")):
        return None if str(path) in FAUST else f"only {', '.join(FAUST)} may import {found.module.partition('.')[0]}"
    if not within(found.module, PACKAGES) or within(found.module, (package, *ALLOWED[package])):
        return None
    if path == PurePosixPath("engine/cli.py") and within(found.module, ("loadtest",)):
        return None if found.lazy else "engine/cli.py may import loadtest inside functions only"
    return f"{package} may import of ours only: {', '.join((package, *ALLOWED[package]))}"


def violations(root: Path) -> list[str]:
    """Every forbidden import under `root`, as `path:line imports module: why`."""
    sources = sorted(source for package in PACKAGES for source in (root / package).rglob("*.py"))
    return [
        f"{path}:{found.line} imports {found.module}: {why}"
        for source in sources
        for path in [PurePosixPath(source.relative_to(root).as_posix())]
        for found in imports(ast.parse(source.read_text(), str(path)), ".".join(path.parent.parts))
        if (why := refusal(path, found))
    ]


def test_imports_go_one_way() -> None:
    assert all(any((ROOT / package).rglob("*.py")) for package in PACKAGES)
    assert violations(ROOT) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("features/kernel.py", "import models"),
        ("features/kernel.py", "from engine.events import Batch"),
        ("features/kernel.py", "def late():\n    from engine import events"),
        ("models/runtime.py", "import engine.config"),
        ("models/runtime.py", "from confluent_kafka import Consumer"),
        ("models/runtime.py", "import onnxruntime"),
        ("engine/score.py", "def late():\n    from onnxruntime import InferenceSession"),
        ("engine/control/watch.py", "import faust"),
        ("engine/serve.py", "def late():\n    from faust import App"),
        ("engine/decode.py", "import loadtest.generate"),
        ("engine/decode.py", "import confluent_kafka.admin"),
        ("engine/state/store.py", "def open():\n    import confluent_kafka"),
        ("engine/cli.py", "import loadtest"),
        ("engine/cli.py", "if True:\n    from loadtest import driver"),
        ("engine/cli.py", "import confluent_kafka"),
        ("loadtest/driver.py", "from engine import pipeline"),
        ("loadtest/driver.py", "import engine"),
        ("loadtest/driver.py", "import engine.events_of_another_kind"),
        ("loadtest/driver.py", "import features"),
        ("loadtest/profiles/load.py", "from ...engine import config"),
    ],
)
def test_a_planted_import_is_found(tmp_path: Path, path: str, source: str) -> None:
    planted = tmp_path / path
    planted.parent.mkdir(parents=True)
    planted.write_text(source)
    (violation,) = violations(tmp_path)
    assert violation.startswith(f"{path}:{len(source.splitlines())} imports ")


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("features/kernel.py", "import numpy\nfrom features import spec\nfrom . import durations"),
        ("models/session.py", "import onnxruntime\nfrom features.spec import FeatureSpec"),
        (
            "engine/pipeline.py",
            "import models\nfrom engine.kafka import topics\nfrom .errors import FatalError",
        ),
        (
            "engine/kafka/topics.py",
            "from confluent_kafka.admin import AdminClient\nfrom ..errors import FatalError",
        ),
        ("engine/cli.py", "def bench():\n    from loadtest import driver"),
        (
            "loadtest/driver.py",
            "import confluent_kafka\nfrom engine.events import Records\nfrom engine import events",
        ),
    ],
)
def test_a_proper_import_passes(tmp_path: Path, path: str, source: str) -> None:
    proper = tmp_path / path
    proper.parent.mkdir(parents=True)
    proper.write_text(source)
    assert violations(tmp_path) == []
