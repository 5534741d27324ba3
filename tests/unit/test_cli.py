"""The commands: help, exit codes, one line for each thing that can be wrong, and files in, decisions out."""

import functools
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import engine.kafka.consume
import engine.kafka.topics
from engine.cli import main, stop_on_signals
from engine.config import default_profile
from engine.errors import ConfigError, FatalError, FencedError, RetriableError, TidegateError
from loadtest.poison import KINDS, spoil
from loadtest.render import render_valid
from loadtest.settings import TrafficSettings
from loadtest.traffic import generate
from models.store import shipped_store
from tests.commands import STATE, Ended, lines, refused

# --- help ------------------------------------------------------------------------------------------------------


def commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The path of every command, groups included."""
    found = [path]
    for name, command in group.commands.items():
        found += commands(command, (*path, name)) if isinstance(command, click.Group) else [(*path, name)]
    return found


def test_the_promised_commands_are_there() -> None:
    promised = (
        "run, replay, demo, bench, doctor, topics apply, features list, features backfill, state load, state inspect, "
        "state verify, state checkpoints list, state restore, models verify, models list, "
        "models import, models gate, policy test, audit export"
    )
    assert {tuple(command.split()) for command in promised.split(", ")} <= set(commands(main))


@pytest.mark.parametrize("path", commands(main), ids=" ".join)
def test_every_command_explains_itself_and_its_options(run: Callable[..., Ended], path: tuple[str, ...]) -> None:
    ended = run(*path, "--help")
    assert ended.exit_code == 0
    assert f"Usage: main {' '.join(path)}".strip() in ended.out
    command: click.Command = main
    for name in path:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    assert command.help
    undocumented = [option.name for option in command.params if isinstance(option, click.Option) and not option.help]
    assert undocumented == []


def test_the_exit_codes_are_documented(run: Callable[..., Ended]) -> None:
    words = run("--help").out
    for code in {error.exit_code for error in (TidegateError, ConfigError, RetriableError, FencedError, FatalError)}:
        assert f"{code} " in words


def test_the_version_is_the_distributions(run: Callable[..., Ended]) -> None:
    ended = run("--version")
    assert (ended.exit_code, ended.out.split()[-1]) == (0, metadata.version("tidegate"))


@pytest.mark.parametrize(
    "arguments", [("no-such-command",), ("replay",), ("run", "--no-such-option"), ("replay", "a.csv")]
)
def test_wrong_arguments_are_the_callers_mistake(run: Callable[..., Ended], arguments: tuple[str, ...]) -> None:
    ended = run(*arguments)
    assert ended.exit_code == 2
    assert "Traceback" not in ended.err
    assert "Error: " in ended.err


# --- errors ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ConfigError, RetriableError, FencedError, FatalError])
def test_an_error_becomes_one_line_and_its_exit_code(
    run: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch, error: type[TidegateError]
) -> None:
    def raising(*_: object, **__: object) -> None:
        raise error("so and so: went wrong")

    monkeypatch.setattr("engine.serve.serve", raising)
    Path("tidegate.toml").write_text(default_profile())
    ended = run("run", "--bootstrap", "127.0.0.1:1")
    assert refused(ended) == "tidegate: so and so: went wrong"
    assert ended.exit_code == error.exit_code


@pytest.fixture
def events(run: Callable[..., Ended]) -> Path:
    """One event in a file."""
    path = Path("events.jsonl").absolute()
    path.write_bytes(render_valid(generate(TrafficSettings(cards=10, merchants=3), 1))[0] + b"\n")
    return path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run",), "no configuration: give --config FILE, set TIDEGATE_CONFIG, or write ./tidegate.toml"),
        (("run", "--config", "no.toml"), "configuration file 'no.toml' does not exist"),
        (("topics", "apply", "--config", "no.toml"), "configuration file 'no.toml' does not exist"),
        (("topics", "apply"), "no broker: give --bootstrap HOST:PORT"),
        (("bench", "--profile", "no"), "--profile 'no' is not one of chaos, reference"),
        (("bench",), "no broker: give --bootstrap HOST:PORT"),
        (("replay", "no.csv", "--out", "d.jsonl"), "no.csv: there is no such file"),
        (("replay", "events.txt", "--out", "d.jsonl"), "events.txt: events are read from files that end in"),
        (("replay", "events.jsonl", "--out", "d.jsonl", "--mapping", "no"), "mapping.base: 'no' is neither a file"),
        (("replay", "events.jsonl", "--out", "d.jsonl", "--rates", "no.csv"), "no.csv cannot be read: No such file"),
        (("replay", "events.jsonl", "--out", "d.jsonl", "--base-currency", "XYZ"), "rates.base_currency: 'XYZ'"),
        (("replay", "events.jsonl", "--out", "no/d.jsonl"), "no/d.jsonl"),
        (("replay", "events.jsonl", "--out", "."), "."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_wrong_is_said_in_one_line(
    run: Callable[..., Ended], events: Path, arguments: tuple[str, ...], said: str
) -> None:
    ended = run(*arguments)
    assert said in refused(ended)
    assert ended.exit_code == 2


@pytest.mark.parametrize(
    ("models", "said"),
    [
        ("champion = 'none@champion'", "models.champion 'none@champion': store .* has no model 'none'; it has: demo"),
        ("champion = 'demo@no'", "demo has no alias 'no'; it has: champion"),
        ("champion = 'demo/99'", "has no version 99"),
        ("champion = 'demo'", "names no model"),
        ("store = 'nowhere'", "has no model 'demo'; it has: none"),
    ],
)
def test_a_missing_model_is_named(run: Callable[..., Ended], events: Path, models: str, said: str) -> None:
    Path("tidegate.toml").write_text(f"{default_profile()}\n{STATE}[models]\n{models}\n")
    ended = run("replay", events, "--out", "d.jsonl")
    assert ended.exit_code == 2
    assert re.search(said, refused(ended))


def test_a_damaged_model_is_refused(run: Callable[..., Ended], events: Path) -> None:
    store = Path("store")
    for path in shipped_store().rglob("*"):
        if path.is_file():
            copy = store / path.relative_to(shipped_store())
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    for path in store.rglob("model.onnx"):
        path.write_bytes(path.read_bytes()[:-1])
    Path("tidegate.toml").write_text(f"{default_profile()}\n{STATE}[models]\nstore = 'store'\n")
    ended = run("replay", events, "--out", "d.jsonl")
    assert "sha256 of model.onnx is" in refused(ended)
    assert ended.exit_code == 2


def test_a_wrong_setting_is_named_with_its_file(run: Callable[..., Ended]) -> None:
    Path("tidegate.toml").write_text(f"{default_profile()}\n[kafka]\nbatch_linger_ms = 'long'\n")
    ended = run("run")
    assert ended.exit_code == 2
    assert "tidegate.toml: kafka.batch_linger_ms 'long': " in refused(ended)


def test_a_broker_that_does_not_answer_is_named(run: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (engine.kafka.consume, engine.kafka.topics):
        for name in ("cluster_identity", "apply"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, functools.partial(getattr(module, name), timeout_s=0.1))
    Path("tidegate.toml").write_text(f"{default_profile()}\n{STATE}")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        for command in (("run",), ("topics", "apply")):
            ended = run(*command, "--bootstrap", address)
            assert f"no Kafka broker answers at {address}" in refused(ended)
            assert ended.exit_code == RetriableError.exit_code


def test_the_second_signal_ends_the_process_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    handlers: dict[int, Any] = {}
    ended: list[int] = []
    monkeypatch.setattr("signal.signal", handlers.__setitem__)
    monkeypatch.setattr("os._exit", ended.append)
    stop = stop_on_signals()
    handlers[15](15, None)
    assert stop.is_set()
    assert ended == []
    handlers[2](2, None)
    assert ended == [130]


# --- where the broker is found ---------------------------------------------------------------------------------


def test_the_broker_is_the_flags_before_the_environments_before_the_files_before_the_note(
    run: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def serve(config: Any, *_: object, **__: object) -> None:
        asked.append(config.kafka.bootstrap)

    monkeypatch.setattr("engine.serve.serve", serve)
    monkeypatch.setattr("engine.cli.stop_on_signals", lambda: None)
    config = Path("tidegate.toml")
    config.write_text(default_profile())
    assert "no broker" in refused(run("run"))
    Path(".kafka").mkdir()
    Path(".kafka/bootstrap").write_text("note:1\n")
    assert run("run").exit_code == 0
    config.write_text(f"{default_profile()}\n[kafka]\nbootstrap = 'file:1'\n")
    assert run("run").exit_code == 0
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "environment:1")
    assert run("run").exit_code == 0
    assert run("run", "--bootstrap", "flag:1").exit_code == 0
    assert asked == ["note:1", "file:1", "environment:1", "flag:1"]


# --- replay ----------------------------------------------------------------------------------------------------

EVENTS = 400


@dataclass(frozen=True)
class Stream:
    """What is in a file: valid events, duplicates, and poison with the reasons it has to get."""

    values: list[bytes]
    new_ids: list[str]
    duplicates: int
    reasons: list[str]


@pytest.fixture(scope="module")
def stream() -> Stream:
    """Every 20th record poison, every 25th a duplicate of an earlier one."""
    rng = np.random.default_rng(5)
    valid = render_valid(generate(TrafficSettings(cards=100, merchants=10), EVENTS))
    # What a line of text can hold; without record timestamps no time is too far away.
    kinds = [
        at
        for at, (name, reason, _) in enumerate(KINDS)
        if name not in ("tombstone", "no_bytes", "time_years_ago", "time_ahead")
    ]
    values, ids, reasons, duplicates = [], [], [], 0
    for at, value in enumerate(valid):
        if at % 20 == 7:
            kind = kinds[len(reasons) % len(kinds)]
            broken, reason = spoil(kind, rng, value)
            values.append(broken or b"")
            reasons.append(reason)
        elif at % 25 == 9:
            values.append(next(v for v in reversed(values) if v in valid))
            duplicates += 1
        else:
            values.append(value)
            ids.append(orjson.loads(value)["event_id"])
    return Stream(values, ids, duplicates, reasons)


def test_replay_of_json_lines_accounts_for_every_event(run: Callable[..., Ended], stream: Stream) -> None:
    Path("events.jsonl").write_bytes(b"\n".join(stream.values))
    Path("tidegate.toml").write_text(f"{default_profile()}\nchallenge = 2\n{STATE}")
    outputs = ("--out", "d.jsonl", "--alerts", "a.jsonl", "--dead-letters", "x.jsonl", "--json", "--features")
    ended = run("replay", "events.jsonl", *outputs)
    assert ended.exit_code == 0
    summary = orjson.loads(ended.out)
    decisions, alerts, letters = lines("d.jsonl"), lines("a.jsonl"), lines("x.jsonl")
    assert {name: summary[name] for name in ("events", "decisions", "alerts", "dead_letters", "duplicates")} == {
        "events": EVENTS,
        "decisions": len(stream.new_ids),
        "alerts": sum(decision["decision"] != "approve" for decision in decisions),
        "dead_letters": len(stream.reasons),
        "duplicates": stream.duplicates,
    }
    assert [decision["event_id"] for decision in decisions] == stream.new_ids
    assert [alert["event_id"] for alert in alerts] == [d["event_id"] for d in decisions if d["decision"] != "approve"]
    assert alerts != []
    assert [letter["reason"] for letter in letters] == stream.reasons
    for letter in letters:
        assert letter["source"]["topic"] == "events.jsonl"
        assert letter["value"].encode() == stream.values[letter["source"]["offset"]]
    assert all(decision["features"]["card.count.7d"] >= 1 for decision in decisions)
    assert {"seconds", "events_per_second"} <= summary.keys()


def test_replay_says_what_it_did(run: Callable[..., Ended], stream: Stream) -> None:
    Path("events.jsonl").write_bytes(b"\n".join(stream.values))
    ended = run("replay", "events.jsonl", "--out", "d.jsonl")
    assert ended.exit_code == 0
    said = f"{EVENTS} events: {len(stream.new_ids)} decisions, 0 alerts, {len(stream.reasons)} dead letters, "
    assert said in ended.out
    assert f"{stream.duplicates} duplicates in " in ended.out
    assert all("features" not in decision for decision in lines("d.jsonl"))


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    text = [",".join(rows[0]), *(",".join(str(cell) for cell in row.values()) for row in rows)]
    path.write_text("\n".join(text))


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=50)


WRITERS = {"a.csv": write_csv, "a.parquet": write_parquet}


@pytest.mark.parametrize("name", WRITERS)
def test_replay_of_tables_decides_as_replay_of_lines(run: Callable[..., Ended], name: str) -> None:
    valid = render_valid(generate(TrafficSettings(cards=100, merchants=10), 200))
    rows = [{**orjson.loads(value), "amount": str(orjson.loads(value)["amount"])} for value in valid]
    rows[50]["currency"] = "XXQ"
    rows[60]["amount"] = "NaN"
    rows[70] = rows[69]
    WRITERS[name](Path(name), rows)
    Path("a.jsonl").write_bytes(b"\n".join(orjson.dumps(row) for row in rows))
    found = []
    for file in (name, "a.jsonl"):
        ended = run("replay", file, "--out", "d.jsonl", "--dead-letters", "x.jsonl", "--json", "--features")
        summary = orjson.loads(ended.out)
        assert (summary["events"], summary["decisions"], summary["duplicates"], summary["dead_letters"]) == (
            200,
            197,
            1,
            2,
        )
        assert [letter["reason"] for letter in lines("x.jsonl")] == ["unknown_currency", "amount_invalid"]
        decisions = lines("d.jsonl")
        for decision in decisions:
            del decision["source"]["topic"], decision["decision_id"], decision["decided_at"]
        found.append(decisions)
    assert found[0] == found[1]


def test_replay_reads_foreign_columns_by_a_mapping_and_converts_by_a_rate_table(run: Callable[..., Ended]) -> None:
    Path("house.toml").write_text(
        'event_id = "tx"\nevent_time = { field = "at", unit = "s" }\namount = { field = "cents", unit = "minor" }\n'
        'currency = { field = "ccy" }\n[fields]\ncard = "pan"\n'
    )
    Path("rates.csv").write_text("currency,effective_from,rate\nUSD,2020-01-01,0.5\n")
    Path("tx.csv").write_text("tx,at,cents,ccy,pan\n1,1735689600,1000,USD,41\n2,1735689601,1000,EUR,41\n3,1,1,JPY,41\n")
    ended = run(
        "replay", "tx.csv", "--mapping", "house.toml", "--rates", "rates.csv", "--base-currency", "EUR",
        "--out", "d.jsonl", "--dead-letters", "x.jsonl", "--features",
    )  # fmt: skip
    assert ended.exit_code == 0
    assert [decision["features"]["card.sum.amount.1m"] for decision in lines("d.jsonl")] == [5.0, 15.0]
    assert [letter["reason"] for letter in lines("x.jsonl")] == ["unknown_currency"]


def test_replay_of_several_files_gives_each_its_own_partition(run: Callable[..., Ended], stream: Stream) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        Path(name).write_bytes(b"\n".join(stream.values))
    ended = run("replay", "a.jsonl", "b.jsonl", "--out", "d.jsonl", "--json")
    assert orjson.loads(ended.out)["decisions"] == 2 * len(stream.new_ids)
    sources = [decision["source"] for decision in lines("d.jsonl")]
    assert {(source["topic"], source["partition"]) for source in sources} == {("a.jsonl", 0), ("b.jsonl", 1)}
    assert len({decision["decision_id"] for decision in lines("d.jsonl")}) == len(sources)


def test_replay_of_an_empty_file(run: Callable[..., Ended]) -> None:
    Path("a.jsonl").write_bytes(b"")
    ended = run("replay", "a.jsonl", "--out", "d.jsonl", "--json")
    assert ended.exit_code == 0
    assert orjson.loads(ended.out)["events"] == 0
    assert Path("d.jsonl").read_bytes() == b""


def test_replay_leaves_nothing_behind_but_what_was_asked_for(run: Callable[..., Ended], stream: Stream) -> None:
    Path("a.jsonl").write_bytes(b"\n".join(stream.values))
    run("replay", "a.jsonl", "--out", "d.jsonl")
    assert sorted(path.name for path in Path().iterdir()) == ["a.jsonl", "d.jsonl"]
