"""An application with a store of its own, and what tests do with the models in it."""

import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import orjson
from click.testing import CliRunner, Result
from onnx import TensorProto, helper

from engine.cli import main
from engine.directives import AliasMoved
from engine.kafka.control import send_commands
from engine.process import WorkerProcess
from loadtest.render import render_valid
from loadtest.settings import TrafficSettings
from loadtest.traffic import generate
from models.assignment import Assignment, promoted
from models.manifest import read_manifest
from models.store import MANIFEST_FILE, MODEL_FILE, Located, publish, resolve, set_alias, shipped_store
from tests.broker.application import GIVE_UP_S, Application, new_application
from tests.conftest import TopicFactory
from tests.pipelines import event, json_of

PARTITIONS = 2
VERSIONS = (1, 2, 3)
# The gate refuses the first; the second fails on an event with just this amount, which no probe has.
BROKEN, FRAGILE = 4, 5
FAILING_AMOUNT = 666.5
STORE = {"models__store": "store", "models__champion": "fraud@champion"}


def application_with_store(bootstrap: str, folder: Path, topic_factory: TopicFactory) -> Application:
    """With several versions of one model, and the configuration that `command` reads."""
    made = new_application(bootstrap, folder, topic_factory, PARTITIONS)
    make_store(folder / "store")
    (folder / "tidegate.toml").write_text(made.config_text(**STORE))
    return made


def make_store(
    store: Path,
    versions: tuple[int, ...] = (*VERSIONS, BROKEN, FRAGILE),
    failing_amounts: tuple[float, float] = (FAILING_AMOUNT, FAILING_AMOUNT),
) -> None:
    """Versions of the model that ships, as `fraud`; the first is the champion."""
    shipped = resolve(shipped_store(), "demo/1")
    manifest = msgspec.structs.replace(read_manifest(shipped.directory / MANIFEST_FILE), name="fraud")
    model = (shipped.directory / MODEL_FILE).read_bytes()
    for version in versions:
        if version == FRAGILE:
            written = fragile(model, [feature.name for feature in manifest.features], failing_amounts)
            said = msgspec.structs.replace(manifest, sha256=sha256(written).hexdigest(), output="answer")
        else:
            written, said = model, manifest
        located = publish(store, msgspec.structs.replace(said, version=version), written)
        if version == BROKEN:
            damage(located)
    set_alias(store, "fraud", "champion", promoted(None, 1, "test", "the first"))


def fragile(model: bytes, names: list[str], failing_amounts: tuple[float, float]) -> bytes:
    """The same, but it reads beyond the end of a table where the amount is one from the first to the last of these."""
    changed = onnx.load_from_string(model)
    nodes = [
        constant("column", TensorProto.INT64, [], [names.index("event.amount")]),
        constant("first", TensorProto.FLOAT, [], [failing_amounts[0]]),
        constant("last", TensorProto.FLOAT, [], [failing_amounts[1]]),
        constant("table", TensorProto.FLOAT, [1], [0.0]),
        helper.make_node("Gather", ["features", "column"], ["amount"], axis=1),
        helper.make_node("GreaterOrEqual", ["amount", "first"], ["not_below"]),
        helper.make_node("LessOrEqual", ["amount", "last"], ["not_above"]),
        helper.make_node("And", ["not_below", "not_above"], ["fails"]),
        helper.make_node("Cast", ["fails"], ["place"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "place"], ["nothing"]),
        helper.make_node("Add", ["probability", "nothing"], ["answer"]),
    ]
    changed.graph.node.extend(nodes)
    del changed.graph.output[:]
    changed.graph.output.append(helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["rows"]))
    written: bytes = changed.SerializeToString()
    return written


def constant(name: str, kind: int, shape: list[int], values: list[Any]) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=helper.make_tensor(name, kind, shape, values))


def damage(located: Located) -> None:
    path = located.directory / MODEL_FILE
    path.write_bytes(path.read_bytes()[:-1])


def command(application: Application, *arguments: str) -> Result:
    """`tidegate models ...`, which must not fail unless the test looks for that."""
    options = ["--config", str(application.folder / "tidegate.toml"), "--bootstrap", application.bootstrap]
    return CliRunner().invoke(main, ["models", *arguments, *options, "--reason", "test", "--author", "tests"])


def say(application: Application, assignment: Assignment, alias: str = "champion") -> None:
    """A command without a look at the store."""
    moved = AliasMoved(application_id=application.application_id, model="fraud", alias=alias, assignment=assignment)
    send_commands(application.config(**STORE), [moved])


def told(application: Application, version: int, earlier: list[int]) -> None:
    """The champion, said without a look at the store."""
    say(application, msgspec.structs.replace(promoted(None, version, "tests", "test"), earlier=earlier))


def models_in_use(worker: WorkerProcess) -> dict[str, str]:
    """Versions by role."""
    found = (name for name in worker.samples() if name.startswith("tidegate_model_info"))
    return {
        name.partition('role="')[2].partition('"')[0]: name.partition('version="')[2].partition('"')[0]
        for name in found
    }


def decides_with(worker: WorkerProcess) -> str:
    return models_in_use(worker)["champion"]


def challenger_processes(worker: WorkerProcess) -> list[int]:
    """The processes of its challengers."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == worker.pid and b"engine.shadow_child" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue  # it has ended meanwhile
    return found


def wait_for(worker: WorkerProcess, sample: str, value: float | None) -> None:
    """Until a sample has this value; None: until it is gone."""
    give_up_at = time.monotonic() + GIVE_UP_S
    while worker.samples().get(sample) != value:
        assert time.monotonic() < give_up_at, f"{sample} is {worker.samples().get(sample)}, not {value}"


def send(application: Application, events: int, seed: int = 1, **pace: float) -> None:
    traffic = generate(TrafficSettings(seed=seed), events)
    keys: list[bytes | None] = [b"%d" % number for number in traffic.card_numbers.tolist()]
    application.produce(list(render_valid(traffic)), keys, traffic.send_times_ms, **pace)


def send_failing(application: Application, number: int = 1) -> None:
    """One event that FRAGILE has no answer to."""
    fields = event(number, amount=FAILING_AMOUNT)
    application.produce([json_of(fields)], [fields["card"].encode()], np.array([fields["event_time"]]))


def decisions(application: Application, topic: str | None = None) -> list[dict[str, Any]]:
    return [orjson.loads(message.value()) for message in application.read_all(topic or application.decisions)]
