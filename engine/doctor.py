"""What can be found wrong before the first event: one finding per check, and no check hides another.

Nothing is changed: no topic, no offset, and no state.
"""

import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Literal

from engine.assemble import load_champion, load_model_of, load_rates, rules_of
from engine.config import Config
from engine.decode import TIME_MS_MAX, Decoder
from engine.errors import TidegateError
from engine.kafka.client import admin_settings
from engine.kafka.consume import Input
from engine.kafka.health import broker_facts, library_version, newest_record_ms
from engine.kafka.topics import ANSWER_TIMEOUT_S, plan
from engine.recovery import Origin, plan_recovery, wrong_origin
from engine.state.header import Header
from engine.state.peek import is_held, read_header
from engine.state.store import DISK_FREE_BYTES_MIN
from engine.topology import wanted_topics
from models.errors import ModelError

DISTRIBUTION = "tidegate"
SHOWN_VERSIONS = ("confluent-kafka", "onnxruntime", "rocksdict", "numba", "numpy")
DISK_FREE_BYTES_WANTED = 1024**3
CLOCK_MS_MIN = 1_735_689_600_000  # 2025-01-01, before this program was written
CLOCK_BEHIND_MS_MAX = 2_000
_AT_LEAST = re.compile(r"([\w.-]+)>=([\d.]+)")


@dataclass(frozen=True, slots=True)
class Finding:
    """How one check went; `advice` says what to do, and is empty where there is nothing to do."""

    check: str
    verdict: Literal["ok", "warning", "failure"]
    detail: str
    advice: str = ""


def examine(config: Config, timeout_s: float = ANSWER_TIMEOUT_S) -> Iterator[Finding]:
    """Checks everything that a worker with this configuration needs; a broker that is away costs `timeout_s` once."""
    yield check_versions()
    yield _tried("mapping", "correct [mapping], [entities] or [rates]", lambda: check_mapping(config))
    yield _tried("model", "correct models.store or models.champion", lambda: check_model(config))
    yield _tried("state", "name another state.dir", lambda: check_state(config))
    yield _tried("disk", "name another state.dir", lambda: check_disk(config))
    broker = _tried(
        "broker",
        "start it, or correct --bootstrap, KAFKA_BOOTSTRAP_SERVERS, kafka.bootstrap or [kafka.client]",
        lambda: check_broker(config, timeout_s),
    )
    yield broker
    if broker.verdict == "failure":
        yield check_clock(None, _now_ms())
        for check in ("topics", "offsets"):
            yield Finding(check, "warning", "not examined, for no broker answers")
        return
    yield _tried("clock", "", lambda: check_clock(newest_record_ms(config, timeout_s), _now_ms()))
    yield _tried("topics", "", lambda: check_topics(config, timeout_s))
    yield _tried("offsets", "a worker refuses to start until this is put right", lambda: check_offsets(config))


def _tried(check: str, advice: str, examined: Callable[[], Finding]) -> Finding:
    """The finding, or the error that came instead of it."""
    try:
        return examined()
    except (TidegateError, OSError) as error:
        return Finding(check, "failure", str(error), advice)


def check_versions() -> Finding:
    """The libraries that are installed, against the least versions that this distribution asks for."""
    required = [_AT_LEAST.fullmatch(line) for line in metadata.requires(DISTRIBUTION) or []]
    too_old = [
        f"{match[1]} {found} is older than {match[2]}"
        for match in required
        if match is not None and _version(found := metadata.version(match[1])) < _version(match[2])
    ]
    if too_old:
        return Finding("versions", "failure", "; ".join(too_old), "install what requirements.lock names")
    shown = [f"{name} {metadata.version(name)}" for name in SHOWN_VERSIONS]
    shown.insert(1, f"librdkafka {library_version()}")
    return Finding("versions", "ok", ", ".join((f"python {platform.python_version()}", *shown)))


def _version(text: str) -> tuple[int, ...]:
    """The leading numbers of a version.

    >>> _version("1.27.0rc1")
    (1, 27, 0)
    """
    return tuple(int(part) for part in re.findall(r"(?:^|\.)(\d+)", text))


def check_mapping(config: Config) -> Finding:
    """Whether mapping, entities and rates fit together."""
    Decoder(config, config.feature_spec(), load_rates(config))
    keys = ", ".join(f"{name} from {config.entity_key(name)!r}" for name in config.entities)
    return Finding("mapping", "ok", f"{keys}; amounts in {config.rates.base_currency}")


def check_model(config: Config) -> Finding:
    """Whether the champion loads, with everything that a start verifies, and the challengers do."""
    spec = config.feature_spec()
    model = load_champion(config, spec)
    used = f"{len(model.columns)} of {len(spec.names)} features"
    detail = f"{model.label}, sha256 {model.sha256[:12]}, {used}"
    challengers, refused = [], []
    for reference in config.models.challengers:
        try:
            challengers.append(load_model_of(config, spec, reference).label)
        except ModelError as error:
            refused.append(f"{reference}: {error}")
    if challengers:
        detail += f"; challengers: {', '.join(challengers)}"
    if refused:
        advice = "a worker decides without them; correct models.challengers, or promote one"
        return Finding("model", "warning", f"{detail}; {'; '.join(refused)}", advice)
    return Finding("model", "ok", detail)


def check_state(config: Config) -> Finding:
    """Whether the state directory can be used, and was made under the rules of this configuration."""
    folder = config.path(config.state.dir)
    above = _existing(folder)
    if not above.is_dir():
        return Finding("state", "failure", f"{above} is not a directory", "name another state.dir")
    if not os.access(above, os.W_OK | os.X_OK):
        return Finding("state", "failure", f"{above} cannot be written to", f"let this user write to {above}")
    if is_held(folder):
        return Finding("state", "warning", f"{folder} is held by a running worker", "stop it to examine its state")
    header = read_header(folder)
    if header is None:
        return Finding("state", "ok", f"{folder} holds no state yet")
    wanted = rules_of(config, load_rates(config))
    if header.fingerprint != wanted:
        return Finding(
            "state",
            "failure",
            f"{folder} was made under other rules: {header.fingerprint} is not {wanted}",
            "take back the change of mapping, keys, rates, horizons or ring size, or name an empty state.dir",
        )
    entities = sum(header.entities.values())
    return Finding("state", "ok", f"{folder} holds {entities:,} entities, written {header.sequence:,} times")


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    while not path.exists():
        path = path.parent
    return path


def check_disk(config: Config) -> Finding:
    """Whether flushes and compactions of the state have room: as much as it takes now, and a GiB at least."""
    folder = config.path(config.state.dir)
    taken = _size(folder)
    free = shutil.disk_usage(_existing(folder)).free
    detail = f"{free / 1024**3:,.1f} GiB free, state takes {taken / 1024**3:,.1f} GiB"
    if free < DISK_FREE_BYTES_MIN:
        return Finding("disk", "failure", detail, f"make room: below {DISK_FREE_BYTES_MIN >> 20} MiB a worker ends")
    if free < max(DISK_FREE_BYTES_WANTED, taken):
        return Finding("disk", "warning", detail, "make room: a compaction can need as much as the state takes")
    return Finding("disk", "ok", detail)


def _size(folder: Path) -> int:
    """Bytes of all files below, as far as a running worker does not delete them meanwhile."""
    size = 0
    for file in folder.rglob("*"):
        with suppress(FileNotFoundError):
            size += file.stat().st_size
    return size


def check_broker(config: Config, timeout_s: float) -> Finding:
    """Whether a broker answers, and whether it is of the version that the tests run on."""
    facts = broker_facts(config, timeout_s)
    detail = f"{config.kafka.bootstrap}: cluster {facts.cluster_id}, {facts.brokers} broker(s)"
    if facts.kafka_4:
        return Finding("broker", "ok", f"{detail}, Kafka 4.0 or newer")
    version = "version unknown" if facts.kafka_4 is None else "not Kafka 4"
    return Finding("broker", "warning", f"{detail}, {version}", "Tidegate is tested on Kafka 4 alone")


def check_clock(newest_ms: int | None, now_ms: int) -> Finding:
    """Whether this clock is plausible: its year, and that the newest record of the input is not from the future.

    A clock that is fast cannot be told from a stream that stands still.
    """
    advice = "set the clocks of this machine and of the producers by NTP: latency and lag are off by as much"
    if not CLOCK_MS_MIN <= now_ms <= TIME_MS_MAX:
        return Finding("clock", "failure", f"it says {_utc(now_ms)}", advice)
    if newest_ms is None:
        return Finding("clock", "ok", f"it says {_utc(now_ms)}; there is no record to compare it with")
    ahead_s = (newest_ms - now_ms) / 1_000
    if newest_ms - now_ms > CLOCK_BEHIND_MS_MAX:
        return Finding("clock", "warning", f"the newest record is {ahead_s:,.1f} s ahead of {_utc(now_ms)}", advice)
    return Finding("clock", "ok", f"it says {_utc(now_ms)}; the newest record is {max(0.0, -ahead_s):,.1f} s old")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _utc(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1_000, UTC):%Y-%m-%d %H:%M:%S} UTC"


def check_topics(config: Config, timeout_s: float) -> Finding:
    """Whether the topics exist, with partitions, replication and settings as configured."""
    wanted = wanted_topics(config)
    changes = plan(admin_settings(config), wanted, timeout_s)
    if not changes:
        names = ", ".join(spec.name for spec in wanted)
        return Finding("topics", "ok", f"{names}: as wanted")
    detail = "; ".join(f"{change.topic} {change.kind}: {change.detail}" for change in changes)
    if any(change.kind == "missing" for change in changes):
        return Finding("topics", "failure", detail, "`tidegate topics apply` creates what is missing")
    return Finding("topics", "warning", detail, "alter the topics, or kafka.partitions and kafka.replication")


def check_offsets(config: Config) -> Finding:
    """What the next start would do: committed offsets and state against what the input topic still holds."""
    with Input(config) as source:
        committed, bounds = source.committed(), source.bounds()
        here = Origin(source.cluster_id, source.topic, source.topic_id)
    folder = config.path(config.state.dir)
    held = is_held(folder)
    header = (None if held else read_header(folder)) or Header(fingerprint="")
    loaded = header.vector if header.loaded else {}
    waiting = sum(
        end - committed.get(partition, loaded.get(partition, first)) for partition, (first, end) in bounds.items()
    )
    gone = [
        f"partition {partition}: committed {committed[partition]}, but the topic begins at {first}"
        for partition, (first, _) in bounds.items()
        if committed.get(partition, first) < first
    ]
    if gone:
        advice = "retention was shorter than the worker was away; set the group's offsets, and name an empty state.dir"
        return Finding("offsets", "failure", "; ".join(gone), advice)
    detail = f"{len(committed)} of {len(bounds)} partitions have a committed offset, {waiting:,} records wait"
    if held:
        return Finding("offsets", "ok", detail)
    if wrong := wrong_origin(header, here):
        return Finding("offsets", "failure", wrong, "name another state.dir")
    replayed = plan_recovery(header.vector, committed, bounds, loaded=header.loaded).events
    return Finding("offsets", "ok", f"{detail}, {replayed:,} are replayed into the state first")
