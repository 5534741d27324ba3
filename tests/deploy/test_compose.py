"""docker-compose.yml and Dockerfile, as far as they can be judged without Docker."""

import copy
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from engine.config import Config, load_config
from loadtest.run.profile import read_profile

ROOT = Path(__file__).parent.parent.parent
HERE = Path(__file__).parent
SCHEMA = HERE / "compose-spec.json"
COMPOSE = YAML(typ="safe").load(ROOT / "docker-compose.yml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if "build" in service]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
# Of the control plane alone; workers know no such table.
CONTROL = "TIDEGATE__CONTROL__"


def violations(compose: dict[str, Any]) -> list[str]:
    """What the schema has against it, by place."""
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(compose)]


def test_the_schema_is_the_one_that_it_says() -> None:
    (noted,) = re.findall(r"sha256 (\w{64})", (HERE / "README.md").read_text())
    assert hashlib.sha256(SCHEMA.read_bytes()).hexdigest() == noted


def test_the_file_is_of_the_compose_specification() -> None:
    assert violations(COMPOSE) == []


@pytest.mark.parametrize(
    ("key", "value"), [("imag", "x"), ("healthcheck", {"test": 3}), ("ports", "9464"), ("depends_on", 3)]
)
def test_the_schema_finds_a_mistake(key: str, value: Any) -> None:
    broken = copy.deepcopy(COMPOSE)
    broken["services"]["engine-a"][key] = value
    found = violations(broken)
    assert found
    assert all(line.startswith("$.services['engine-a']") for line in found)


def test_the_promised_services_are_there() -> None:
    assert SERVICES.keys() >= {"kafka", "engine-a", "engine-b", "control", "load", "prometheus", "grafana"}
    assert {name: service["profiles"] for name, service in SERVICES.items() if "profiles" in service} == {
        "load": ["load"]
    }


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_names_is_there(name: str) -> None:
    service = SERVICES[name]
    for volume in service.get("volumes", []):
        source = volume.split(":")[0]
        assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], volume
    for other, wanted in service.get("depends_on", {}).items():
        checked = "healthcheck" in SERVICES[other] or other in OURS
        assert wanted["condition"] != "service_healthy" or checked, other
        assert wanted["condition"] != "service_completed_successfully" or SERVICES[other]["restart"] == "no"


def test_no_two_services_share_a_volume() -> None:
    named = [volume.split(":")[0] for one in SERVICES.values() for volume in one.get("volumes", []) if volume[0] != "."]
    assert sorted(named) == sorted(COMPOSE["volumes"])


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_open_to_this_machine_alone(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


def test_images_are_of_one_version() -> None:
    foreign = [service["image"] for name, service in SERVICES.items() if name not in OURS]
    assert all(re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", image) for image in foreign)


@pytest.mark.parametrize("name", OURS)
def test_our_containers_can_write_nothing_and_become_nobody(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "user" not in service


@pytest.mark.parametrize("name", OURS)
def test_the_configuration_of_our_containers_is_valid(name: str) -> None:
    environment = SERVICES[name]["environment"]
    if "control" not in Config.__struct_fields__:
        environment = {key: value for key, value in environment.items() if not key.startswith(CONTROL)}
    config = load_config(ROOT / "deploy" / "tidegate.toml", environment)
    mounted = [volume.split(":")[1] for volume in SERVICES[name].get("volumes", [])]
    if name.startswith("engine"):
        assert all(
            any(Path(folder).is_relative_to(place) for place in mounted)
            for folder in (config.state.dir, config.state.checkpoints.dir)
        )


def test_the_load_is_a_profile() -> None:
    assert read_profile(str(ROOT / "deploy" / "load.toml")).plan


def test_prometheus_asks_every_worker_and_the_control_plane() -> None:
    config = load_config(ROOT / "deploy" / "tidegate.toml", {})
    targets = ROOT / "deploy" / "prometheus" / "targets"
    asked = {path.stem: json.loads(path.read_text())[0]["targets"] for path in targets.glob("*.json")}
    workers = [name for name in OURS if name.startswith("engine")]
    assert asked["workers"] == [f"{name}:{config.observe.address[1]}" for name in workers]
    listen = SERVICES["control"]["environment"][f"{CONTROL}LISTEN"]
    assert asked["control"] == [f"control:{listen.rpartition(':')[2]}"]


# --- image -----------------------------------------------------------------------------------------------------


def instructions(kind: str) -> Iterator[str]:
    """Arguments of every instruction of a kind, with continued lines joined."""
    for line in DOCKERFILE.replace("\\\n", " ").splitlines():
        name, _, rest = line.partition(" ")
        if name == kind:
            yield rest


def test_the_last_stage_is_of_nobody_in_particular_and_has_a_health_check() -> None:
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    assert re.search(r"^USER (\d+):\1$", last, re.MULTILINE)
    assert "HEALTHCHECK" in last
    assert len(list(instructions("FROM"))) == 2


def test_what_is_copied_is_there_and_let_through() -> None:
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = set()
    for rest in instructions("COPY"):
        sources = [word for word in rest.split()[:-1] if not word.startswith("--")]
        if "--from" not in rest:
            copied |= set(sources)
    assert [source for source in sorted(copied) if not (ROOT / source).exists()] == []
    assert copied == let_through


def test_kernels_are_compiled_for_the_processor_that_they_run_on() -> None:
    """What numba compiled for another name or other features it does not take."""
    for name in ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES"):
        defaults = [rest.partition("=")[2] for rest in instructions("ARG") if rest.startswith(f"{name}=")]
        assert len(defaults) == 2
        assert len(set(defaults)) == 1
        assert any(f"{name}=${{{name}}}" in rest for rest in instructions("ENV"))


def requirements(path: Path) -> dict[str, str]:
    """What is pinned, with hashes, by name and marker."""
    blocks = re.findall(r"^([a-z].*?==[^\s]+(?: ; .*?)?) \\\n((?:    --hash=.*\n)+)", path.read_text(), re.MULTILINE)
    return dict(blocks)


def test_the_image_has_what_was_tested() -> None:
    """Of the lock file a part, by version and hash."""
    image, tested = requirements(ROOT / "deploy" / "requirements.lock"), requirements(ROOT / "requirements.lock")
    versions = {name.split(" ; ")[0]: hashes for name, hashes in tested.items()}
    assert len(image) > 30
    assert [name for name, hashes in image.items() if versions.get(name.split(" ; ")[0]) != hashes] == []
    assert not any(name.startswith(("lightgbm", "pytest", "scikit-learn")) for name in image)
