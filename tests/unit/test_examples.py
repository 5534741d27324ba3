"""What the documentation shows is what the program takes: examples parse, and name every key, reason and metric."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import click
import msgspec
import pytest

from engine.assemble import policy_program
from engine.cli import main as tidegate
from engine.config import Config, load_config, parse_config, read_policy
from engine.events import REASONS
from engine.observe.metrics import Metrics, MetricsCollector
from engine.policy.settings import Policy
from loadtest.__main__ import main as loadtest

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
EXAMPLES = sorted((DOCS / "examples").glob("*.toml"))
FULL = DOCS / "examples" / "tidegate.toml"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]

UNSET_KEY = re.compile(r"^# (\w+ = .*)$", re.MULTILINE)
FENCED_TOML = re.compile(r"^```toml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")

# Tables whose values the example makes up; the defaults are empty.
MADE_UP = (
    ("kafka", "client"),
    ("kafka", "client_secret_files"),
    ("mapping", "fields"),
    ("event", "one_hot"),
    ("event", "hashed"),
)


def keys_of(kind: Any, path: str = "") -> Iterator[str]:
    """Dotted names of every key that a configuration can have; `*` for a name that the user gives."""
    if get_origin(kind) is dict:
        yield from keys_of(get_args(kind)[1], f"{path}.*")
    elif isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        for name, inner in get_type_hints(kind).items():
            if (kind, name) != (Config, "folder"):
                yield from keys_of(inner, f"{path}.{name}" if path else name)
    else:
        yield path


def leaves(tree: Any, kind: Any, pattern: str = "", written: str = "") -> Iterator[tuple[str, str, Any]]:
    """(dotted name with `*`, dotted name as written, value) of every key in a parsed file."""
    if not isinstance(tree, dict):
        yield pattern, written, tree
        return
    named = get_origin(kind) is dict
    for name, value in tree.items():
        inner = get_args(kind)[1] if named else get_type_hints(kind)[name]
        step = "*" if named else name
        yield from leaves(value, inner, f"{pattern}.{step}".strip("."), f"{written}.{name}".strip("."))


def with_unset_keys(text: str) -> str:
    """The example with its `# key = value` lines taken as keys."""
    return UNSET_KEY.sub(r"\1", text)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_is_a_valid_configuration(path: Path) -> None:
    assert load_config(path, {}).entities


def test_the_full_example_is_valid_with_every_key_set() -> None:
    parse_config(with_unset_keys(FULL.read_text()), FULL.parent, {})


def test_the_full_example_names_every_key() -> None:
    tree = tomllib.loads(with_unset_keys(FULL.read_text()))
    there = {pattern for pattern, _, _ in leaves(tree, Config)}
    # `currency.default` excludes nothing, but would change what the example says of `currency.field`.
    assert set(keys_of(Config)) - there == {"mapping.currency.default"}
    assert 'default = "EUR"' in FULL.read_text()


def test_the_values_of_the_full_example_are_the_defaults() -> None:
    example, default = (
        msgspec.to_builtins(config, enc_hook=str)
        for config in (load_config(FULL, {}), parse_config("", FULL.parent, {}))
    )
    for table, key in MADE_UP:
        assert default[table].pop(key) == {}
        assert example[table].pop(key) != {}
    assert example.pop("predicates") != default.pop("predicates") == {}
    assert example == default


@pytest.mark.parametrize(
    ("page", "block"),
    [
        pytest.param(page, block, id=f"{page.name}-{number}")
        for page in PAGES
        for number, block in enumerate(FENCED_TOML.findall(page.read_text()))
    ],
)
def test_every_toml_block_is_a_configuration_or_a_mapping(page: Path, block: str, tmp_path: Path) -> None:
    tree = tomllib.loads(block)
    if set(tree) <= set(get_type_hints(Config)):
        parse_config(block, tmp_path, {})
    else:
        (tmp_path / "own.toml").write_text(block)
        parse_config('[mapping]\nbase = "own.toml"\n', tmp_path, {})


@pytest.mark.parametrize("path", sorted((DOCS / "examples" / "policies").glob("*.toml")), ids=lambda path: path.name)
def test_every_example_of_a_policy_can_be_used(path: Path) -> None:
    """With the features of the example that it is named after, or those that ship."""
    example = DOCS / "examples" / f"{path.stem.partition('-')[0]}.toml"
    config = load_config(example, {}) if example.is_file() else parse_config("", DOCS, {})
    config = msgspec.structs.replace(config, policy=read_policy(path))
    assert policy_program(config, config.feature_spec()).policy.label


def test_every_reason_is_documented() -> None:
    documented = re.findall(r"^\| `(\w+)` \|", (DOCS / "dead-letters.md").read_text(), re.MULTILINE)
    assert documented == list(REASONS)


def test_every_metric_is_documented_with_its_type_and_labels() -> None:
    spec = parse_config("", Path(), {}).feature_spec()
    families = MetricsCollector(Metrics(spec, {"name": "demo", "version": "1", "sha256": ""}, Policy())).collect()
    suffix = {"counter": "_total", "info": "_info"}
    exported = {(family.name + suffix.get(family.type, ""), family.type) for family in families}
    page = (DOCS / "metrics.md").read_text()
    documented = re.findall(r"^\| `(tidegate_\w+)(?:\{[\w,]+\})?` \| (\w+) \|", page, re.MULTILINE)
    assert set(documented) == exported


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_link_to_files_that_exist(page: Path) -> None:
    assert [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pictures_fit_a_terminal_of_100_columns(page: Path) -> None:
    fenced = re.findall(r"^```.*?\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    assert [line for block in fenced for line in block.splitlines() if len(line) > 100] == []


def shown_commands(page: Path) -> list[list[str]]:
    """The words of every command of ours in the page's code, without comments; optional parts are no part of it."""
    text = page.read_text().replace("\\\n", " ")
    found = re.findall(r"^ {4,}(?:docker compose exec \S+ )?((?:tidegate|python -m loadtest) .*)$", text, re.MULTILINE)
    return [[word for word in shlex.split(line, comments=True) if word[0] not in "[&"] for line in found]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_on_pages_exist_with_their_options(page: Path) -> None:
    for name, *words in shown_commands(page):
        command: click.Command = tidegate if name == "tidegate" else loadtest
        rest = words if name == "tidegate" else words[2:]
        while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
            assert rest[0] in command.commands, (page.name, words)
            command, rest = command.commands[rest[0]], rest[1:]
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        given = {word.partition("=")[0] for word in rest if word.startswith("--")}
        assert given <= known, (page.name, words)


@pytest.mark.slow
def test_the_decision_in_the_readme_is_what_its_commands_print(tmp_path: Path) -> None:
    page = (ROOT / "README.md").read_text()
    (shown,) = re.findall(r"^```json\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    generate = re.search(r"^    python (-m loadtest generate --events 100000 .*)$", page, re.MULTILINE)
    replay = re.search(r"^    tidegate (replay events.jsonl --out .*)$", page, re.MULTILINE)
    line = re.search(r"^    sed -n (\d+)p decisions.jsonl", page, re.MULTILINE)
    assert generate
    assert replay
    assert line
    for arguments in (generate[1], f"-m engine {replay[1]}"):
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, *arguments.split()], cwd=tmp_path, env=environment, check=True)
    printed = json.loads((tmp_path / "decisions.jsonl").read_text().splitlines()[int(line[1]) - 1])
    expected = json.loads(shown)
    del printed["decided_at"], expected["decided_at"]
    assert printed.pop("probability") == pytest.approx(expected.pop("probability"), abs=1e-6)
    assert printed == expected
