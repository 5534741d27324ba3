"""One frozen tree of settings, read from TOML, overridden by the environment and validated once.

Every key can be set by an environment variable: `TIDEGATE__KAFKA__BOOTSTRAP=host:9092` is `kafka.bootstrap`. Values are
read as TOML where they parse as such and as text otherwise.
"""

import os
import re
import tomllib
from collections.abc import Mapping as MappingType
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from engine.control.settings import Control
from engine.errors import ConfigError
from engine.mapping import Mapping, read_mapping
from engine.policy.settings import Policy
from features.durations import duration_ms
from features.predicates import Predicate, PredicateError, parse_predicate
from features.spec import (
    AMOUNT,
    CLOCK_FEATURES,
    PREDICATES_MAX,
    PRIOR,
    Column,
    EntitySpec,
    EventSpec,
    FeatureSpec,
    FieldTypes,
    SpecError,
    entity_spec,
    feature_spec,
)

# Brokers abort a transaction that is open for longer than they were told; far from that.
TRANSACTION_MS_MAX = 10_000
ENVIRONMENT_PREFIX = "TIDEGATE__"
LISTEN = re.compile(r"[^:]+:(\d{1,5})")
PORT_MAX = 65_535
# One step of the path in an error of msgspec: `.field`, `[3]` of a list, `[...]` of a table.
_PATH_STEP = re.compile(r"\.(\w+)|\[(\d+|\.\.\.)\]")
# Of an entity or a predicate.
NAME = re.compile(r"[a-z][a-z0-9_]*")
NAME_RULE = "must be lower-case letters, digits and _, with a letter first"
# Features of the event itself are named so.
RESERVED_ENTITY = "event"
# What stands in a feature's name where a predicate's does.
RESERVED_PREDICATES = (PRIOR, AMOUNT, *CLOCK_FEATURES)
# librdkafka keys that are never written into a configuration file.
SECRET_KEYS = (
    "sasl.password",
    "sasl.oauthbearer.client.secret",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.password",
)
# librdkafka keys that the delivery guarantee rests on: setting them by hand would break it.
OWNED_KEYS = (
    "bootstrap.servers",
    "metadata.broker.list",
    "group.id",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "auto.offset.reset",
    "isolation.level",
    "enable.idempotence",
    "transactional.id",
    "acks",
    "request.required.acks",
    "session.timeout.ms",
    "heartbeat.interval.ms",
    "max.poll.interval.ms",
    "partition.assignment.strategy",
    "group.protocol",
    "group.instance.id",
    "transaction.timeout.ms",
    "message.timeout.ms",
    "delivery.timeout.ms",
    "partitioner",
)


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Subclasses say `frozen` again because type checkers do not inherit it."""


def _at_least(section: _Section, least: int, *keys: str) -> None:
    for key in keys:
        if getattr(section, key) < least:
            raise ValueError(f"{key}: {getattr(section, key)} must be at least {least}")


class Topics(_Section, frozen=True):
    """Names of the topics beside the input: outputs, the order in which events were taken, who owns the input, what
    operators decide meanwhile, what challengers would have decided, and what those see who watch; and what the control
    plane reads and writes.
    """

    decisions: str = "decisions"
    alerts: str = "alerts"
    dead_letters: str = "dead-letters"
    progress: str = "progress"
    lease: str = "lease"
    control: str = "control"
    shadow_decisions: str = "shadow-decisions"
    decisions_sample: str = "decisions-sample"
    telemetry: str = "telemetry"
    labels: str = "labels"
    cases: str = "cases"
    retrain_requests: str = "retrain-requests"

    def __post_init__(self) -> None:
        names = [getattr(self, key) for key in self.__struct_fields__]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"{min(twice)!r} is named twice: each needs a topic of its own")


class Kafka(_Section, frozen=True):
    """Where events come from and decisions go to."""

    bootstrap: str = ""
    input: str = "transactions"
    application_id: str = "tidegate"
    delivery: Literal["exactly_once", "at_least_once"] = "exactly_once"
    commit_interval_ms: int = 50
    batch_linger_ms: int = 1
    batch_events_max: int = 2_048
    partitions_check_s: int = 30
    partitions: int = 12
    replication: int = 1
    topics: Topics = Topics()
    decision_features: bool = False
    client: dict[str, str | int | bool] = {}
    client_secret_files: dict[str, str] = {}

    def __post_init__(self) -> None:
        _at_least(self, 1, "commit_interval_ms", "batch_linger_ms", "batch_events_max", "partitions_check_s")
        _at_least(self, 1, "partitions", "replication")
        if self.delivery == "exactly_once" and self.commit_interval_ms > TRANSACTION_MS_MAX:
            raise ValueError(
                f"commit_interval_ms: {self.commit_interval_ms} must be at most {TRANSACTION_MS_MAX} where delivery is "
                f"exactly_once: a transaction stays open for so long"
            )
        for key in self.client:
            if key in OWNED_KEYS:
                raise ValueError(f"client: {key!r} is set by Tidegate itself")


class Entity(_Section, frozen=True):
    """What windows are kept for. `key` is a field name, ours or the input's; by default the entity's own name."""

    windows: list[str]
    aggregates: list[str]
    key: str | None = None


class EventFeatures(_Section, frozen=True):
    """Event-level features. `one_hot`: by field, the categories that get a column each; `hashed`: by field, buckets."""

    features: list[str] = []
    one_hot: dict[str, list[str]] = {}
    hashed: dict[str, int] = {}

    def __post_init__(self) -> None:
        for name, categories in self.one_hot.items():
            if not all(categories) or not categories:
                raise ValueError(f"one_hot.{name}: {categories} must name categories, none of them empty")


class Checkpointing(_Section, frozen=True):
    """Copies of the state that it can be restored from; without `dir` none are made."""

    dir: str = ""
    interval_s: float = 300.0
    keep: int = 3

    def __post_init__(self) -> None:
        if self.interval_s <= 0:
            raise ValueError(f"interval_s: {self.interval_s} must be positive")
        _at_least(self, 1, "keep")


class State(_Section, frozen=True):
    """Windowed state on disk and in memory.

    `ttl`: how long an entity is kept that nothing is heard of, in event time; empty: no longer than it can matter.
    """

    dir: str = "state"
    cache_bytes_max: int = 1024 * 1024 * 1024
    block_cache_bytes_max: int = 64 * 1024 * 1024
    flush_interval_s: float = 30.0
    dirty_bytes_max: int = 256 * 1024 * 1024
    ring_events_max: int = 256
    ttl: str = ""
    dedupe_horizon: str = "1d"
    dedupe_entries_max: int = 1_048_576
    checkpoints: Checkpointing = Checkpointing()

    def __post_init__(self) -> None:
        if self.flush_interval_s <= 0:
            raise ValueError(f"flush_interval_s: {self.flush_interval_s} must be positive")
        if self.ring_events_max < 4 or self.ring_events_max & (self.ring_events_max - 1):
            raise ValueError(f"ring_events_max: {self.ring_events_max} must be a power of two, at least 4")
        _at_least(self, 4_096, "dedupe_entries_max")
        _at_least(self, 32 * 1024 * 1024, "cache_bytes_max")
        _at_least(self, 1024 * 1024, "dirty_bytes_max", "block_cache_bytes_max")
        if self.dirty_bytes_max > self.cache_bytes_max // 4:
            raise ValueError(f"dirty_bytes_max: {self.dirty_bytes_max} must be at most a quarter of cache_bytes_max")
        for key in ("dedupe_horizon", *(["ttl"] if self.ttl else [])):
            try:
                duration_ms(getattr(self, key))
            except ValueError as error:
                raise ValueError(f"{key}: {error}") from error

    @property
    def dedupe_horizon_ms(self) -> int:
        return duration_ms(self.dedupe_horizon)


class Rates(_Section, frozen=True):
    """Currency conversion: `file` is a CSV of currency,effective_from,rate (1 unit of it in the base currency).

    Without `base_currency`: the mapping's default currency, or EUR.
    """

    base_currency: str = ""
    file: str | None = None


class Models(_Section, frozen=True):
    """Which model decides: `name@alias` or `name/version` in the store; no store means the one that ships.

    `challengers`, named alike, score the same events and decide nothing.
    """

    store: str | None = None
    champion: str = "demo@champion"
    challengers: list[str] = []


class Observe(_Section, frozen=True):
    """Metrics, health and logs. Port 0 takes a free one."""

    listen: str = "127.0.0.1:9464"
    log_format: Literal["json", "console"] = "console"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    def __post_init__(self) -> None:
        match = LISTEN.fullmatch(self.listen)
        if match is None or int(match[1]) > PORT_MAX:
            raise ValueError(f"listen: {self.listen!r} must be HOST:PORT, with a port within 0..{PORT_MAX}")

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.listen.rpartition(":")
        return host, int(port)


class Telemetry(_Section, frozen=True):
    """What the engine tells those who watch it.

    `sample_rate` of the approvals, and all other decisions, go to the topic of samples; `channel` and `country` are the
    fields by which samples are told apart, by our names, empty where there is none.
    """

    enabled: bool = True
    sample_rate: float = 0.01
    interval_s: float = 5.0
    channel: str = "channel"
    country: str = "country"

    def __post_init__(self) -> None:
        if not 0 <= self.sample_rate <= 1:
            raise ValueError(f"sample_rate: {self.sample_rate} must be within 0 to 1")
        if self.interval_s <= 0:
            raise ValueError(f"interval_s: {self.interval_s} must be positive")


class Config(_Section, frozen=True, kw_only=True):
    """Everything; `folder` is what relative paths resolve against."""

    folder: Path = Path()
    kafka: Kafka = Kafka()
    mapping: Mapping = Mapping()
    predicates: dict[str, str] = {}
    entities: dict[str, Entity]
    event: EventFeatures = EventFeatures()
    state: State = State()
    rates: Rates = Rates()
    models: Models = Models()
    policy: Policy = Policy()
    telemetry: Telemetry = Telemetry()
    observe: Observe = Observe()
    control: Control = Control()

    def __post_init__(self) -> None:
        if not self.entities:
            raise ValueError("entities: at least one is needed, as in [entities.card]")
        for name in self.entities:
            if not NAME.fullmatch(name) or name == RESERVED_ENTITY:
                raise ValueError(f"entities: {name!r} {NAME_RULE}, and not {RESERVED_ENTITY!r}")
            if name in self.mapping.number_fields:
                raise ValueError(f"mapping.numbers, mapping.location: {name!r} is an entity, whose key is text")
        if self.mapping.partition_key not in self.entities:
            raise ValueError(
                f"mapping.partition_key: {self.mapping.partition_key!r} must be one of {', '.join(self.entities)}"
            )
        self._check_predicates()

    def _check_predicates(self) -> None:
        if len(self.predicates) > PREDICATES_MAX:
            raise ValueError(f"predicates: {len(self.predicates)} are defined; at most {PREDICATES_MAX} are allowed")
        for name in self.predicates:
            if not NAME.fullmatch(name) or name in RESERVED_PREDICATES:
                raise ValueError(f"predicates: {name!r} {NAME_RULE}, and none of {', '.join(RESERVED_PREDICATES)}")
            if name in self.mapping.number_fields:
                raise ValueError(f"predicates: {name!r} is a number field already")
            try:
                self.predicate(name)
            except PredicateError as error:
                raise ValueError(f"predicates.{name}: {error}") from error

    def path(self, text: str) -> Path:
        """A configured path, absolute."""
        return (self.folder / Path(text).expanduser()).absolute()

    def with_state_dir(self, folder: Path) -> "Config":
        """The same with its state elsewhere."""
        state = msgspec.structs.replace(self.state, dir=str(folder.absolute()))
        return msgspec.structs.replace(self, state=state)

    def entity_key(self, name: str) -> str:
        """The input field that holds the entity's key."""
        return self.mapping.source(self.entities[name].key or name)

    def source(self, name: str) -> str:
        """The input field behind a field name in a definition: an entity's name stands for its key."""
        return self.entity_key(name) if name in self.entities else self.mapping.source(name)

    def sources(self, column: Column) -> tuple[str, ...]:
        """The input fields that a column's words are made of."""
        if column.kind == "location":
            location = self.mapping.location
            return self.source(location.latitude), self.source(location.longitude)
        return (self.source(column.field),)

    def predicate(self, name: str) -> Predicate:
        """A predicate, parsed; raises PredicateError, but not of a configuration that was validated."""
        return parse_predicate(self.predicates[name], self.mapping.number_fields)

    def field_types(self) -> FieldTypes:
        """What features may be defined over."""
        texts = {name: self.predicate(name).text for name in self.predicates}
        return FieldTypes(texts, self.mapping.number_fields, self.mapping.located)

    def feature_spec(self) -> FeatureSpec:
        """The feature set; ConfigError names the key that is wrong."""
        types = self.field_types()
        specs: list[EntitySpec] = []
        for name, entity in self.entities.items():
            try:
                specs.append(entity_spec(name, entity.windows, entity.aggregates, types))
            except SpecError as error:
                raise ConfigError(f"entities.{name}.{error.key}: {error}") from error
        one_hot = tuple((name, tuple(categories)) for name, categories in self.event.one_hot.items())
        event = EventSpec(tuple(self.event.features), one_hot, tuple(self.event.hashed.items()))
        try:
            return feature_spec(specs, event, types)
        except SpecError as error:
            raise ConfigError(f"event.{error.key}: {error}") from error

    @property
    def ttl_ms(self) -> int:
        """How long an entity is kept that nothing is heard of, in event time."""
        return duration_ms(self.state.ttl) if self.state.ttl else self.ttl_least_ms

    @property
    def ttl_least_ms(self) -> int:
        """How long an event can lie in a window: the longest window, and as much as another may come late."""
        windows = (window for entity in self.entities.values() for window in entity.windows)
        return max(map(duration_ms, windows), default=0) + self.mapping.horizon_past_ms


def default_profile() -> str:
    """The text of the configuration that `demo` and `replay` use where none is given."""
    return resources.files("engine.profiles").joinpath("default.toml").read_text("utf-8")


def find_config(flag: str | None, environment: MappingType[str, str]) -> Path | None:
    """The file named by `--config`, by TIDEGATE_CONFIG, or `tidegate.toml` here; None where there is none."""
    named = flag or environment.get("TIDEGATE_CONFIG")
    path = Path(named or "tidegate.toml")
    if path.is_file():
        return path
    if named:
        raise ConfigError(f"configuration file {named!r} does not exist")
    return None


def load_config(path: Path, environment: MappingType[str, str] = os.environ) -> Config:
    """Reads and validates a file; raises ConfigError with the key, the value and what is allowed."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    return parse_config(text, path.parent, environment, str(path))


def parse_config(
    text: str, folder: Path, environment: MappingType[str, str] = os.environ, origin: str = "configuration"
) -> Config:
    """Validates the text of a configuration whose relative paths resolve against `folder`."""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{origin} is not valid TOML: {error}") from error
    return config_from_tree(tree, folder, environment, origin)


def config_from_tree(
    tree: dict[str, Any], folder: Path, environment: MappingType[str, str] = os.environ, origin: str = "configuration"
) -> Config:
    """Validates a configuration that is parsed already; `tree` is changed."""
    _refuse_secrets(tree, origin)
    _override(tree, environment)
    if "folder" in tree:
        raise ConfigError(f"{origin}: {_readable('Object contains unknown field `folder`', tree)}")
    mapping = tree.get("mapping")
    if isinstance(mapping, dict) and isinstance(mapping.get("base"), str):
        tree["mapping"] = _merge(read_mapping(mapping["base"], folder), mapping)
    if "entities" not in tree:
        # Whoever defines no features means those that the model in the package was trained on.
        profile = tomllib.loads(default_profile())
        tree |= {key: profile[key] for key in ("entities", "event") if key not in tree}
    policy = tree.get("policy")
    if isinstance(policy, dict) and isinstance(policy.get("file"), str) and policy["file"]:
        tree["policy"] = _policy_of(policy, folder, origin)
    tree["folder"] = folder.absolute()
    try:
        config = msgspec.convert(tree, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{origin}: {_readable(str(error), tree)}") from error
    if not config.rates.base_currency:
        # A stream of one currency needs no rate table, and so no word about its base currency.
        rates = msgspec.structs.replace(config.rates, base_currency=config.mapping.currency.default or "EUR")
        config = msgspec.structs.replace(config, rates=rates)
    config.feature_spec()
    if config.ttl_ms < config.ttl_least_ms:
        raise ConfigError(
            f"{origin}: state.ttl: {config.state.ttl!r} must be at least the longest window and mapping.horizon_past "
            f"together, {config.ttl_least_ms} ms"
        )
    return config


def read_policy(path: Path) -> Policy:
    """Reads a policy from a file of its own; raises ConfigError. What needs the feature set is not looked at."""
    try:
        tree = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"policy file {path} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"policy file {path} is not valid TOML: {error}") from error
    if "file" in tree:
        raise ConfigError(f"policy file {path}: file: a policy names no other file")
    try:
        policy = msgspec.convert(tree, Policy)
    except msgspec.ValidationError as error:
        raise ConfigError(f"policy file {path}: {_readable(str(error), tree, Policy)}") from error
    return msgspec.structs.replace(policy, file=str(path))


def _policy_of(table: dict[str, Any], folder: Path, origin: str) -> dict[str, Any]:
    if len(table) > 1:
        beside = ", ".join(sorted(table.keys() - {"file"}))
        raise ConfigError(f"{origin}: policy.file: the file has all of the policy; {beside} cannot stand beside it")
    policy: dict[str, Any] = msgspec.to_builtins(read_policy((folder / Path(table["file"]).expanduser()).absolute()))
    return policy


def client_settings(config: Config) -> dict[str, str | int | bool]:
    """The `[kafka.client]` settings with secrets read from their files; ConfigError where a file is missing."""
    settings = dict(config.kafka.client)
    for key, file in config.kafka.client_secret_files.items():
        path = config.path(file)
        if not path.is_file():
            raise ConfigError(f"kafka.client_secret_files.{key}: {path} does not exist")
        settings[key] = path.read_text("utf-8").strip()
    return settings


def _refuse_secrets(tree: dict[str, Any], origin: str) -> None:
    client = tree.get("kafka", {}).get("client", {}) if isinstance(tree.get("kafka"), dict) else {}
    for key in SECRET_KEYS:
        if key in client:
            raise ConfigError(
                f"{origin}: kafka.client.{key}: secrets are not read from the configuration; "
                f"use kafka.client_secret_files or the environment"
            )


def _override(tree: dict[str, Any], environment: MappingType[str, str]) -> None:
    for variable in sorted(environment):
        if not variable.startswith(ENVIRONMENT_PREFIX):
            continue
        keys = variable.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
        if keys[:2] == ["kafka", "client"] and len(keys) == 3:
            keys[2] = keys[2].replace("_", ".")
        table = tree
        for key in keys[:-1]:
            table = table.setdefault(key, {})
            if not isinstance(table, dict):
                raise ConfigError(f"{variable}: {key} is not a table")
        # A password is what it is, however much it looks like a number.
        text = environment[variable]
        table[keys[-1]] = text if keys[-1] in SECRET_KEYS else _toml_value(text)


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both_tables = key == "fields" and isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = {**merged[key], **value} if both_tables else value
    return merged


def _readable(message: str, tree: dict[str, Any], root: Any = Config) -> str:
    """msgspec's text after the path and the value: `kafka.commit_interval_ms 'a': Expected `int`, got `str``.

    msgspec writes `[...]` for the keys of a table that has any keys, such as the name of an entity: they are found
    again by trying. Where only some words or keys are allowed, those are named.
    """
    text, _, path = message.rpartition(" - at `$")
    kind: Any = root
    value: Any = tree
    keys: list[str] = []
    for field, index in _PATH_STEP.findall(path if text else ""):
        if field:
            key, kind = field, get_type_hints(kind)[field]
        else:
            kind = get_args(kind)[-1]
            key = int(index) if index.isdigit() else next(key for key in value if not _fits(value[key], kind))
        value = value[key] if isinstance(value, list) else value.get(key)
        keys.append(str(key))
    if value is not None and not isinstance(value, dict) and keys[-1] not in SECRET_KEYS:
        keys[-1] += f" {value!r}"
    allowed: list[str] = []
    if get_origin(kind) is Literal:
        allowed = list(get_args(kind))
    elif "unknown field" in message:
        allowed = [name for name in kind.__struct_fields__ if name != "folder"]
    said = f"{text or message}; allowed: {', '.join(allowed)}" if allowed else text or message
    return f"{'.'.join(keys)}: {said}" if keys else said


def _fits(value: Any, kind: Any) -> bool:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True
