"""The file that the policy is in: read again when it has changed, while the stream runs. A bad one changes nothing."""

import logging
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path

import msgspec

from engine.assemble import load_rates, policy_program
from engine.config import Config, read_policy
from engine.decode import Decoder
from engine.errors import ConfigError
from engine.pipeline import Pipeline
from engine.policy.program import Program
from features.spec import FeatureSpec

_log = logging.getLogger("tidegate.policy")

# Which file it is, and of when: another one in its place has another number.
Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class _Loaded:
    config: Config
    program: Program
    decoder: Decoder


class PolicyFile:
    """Follows `policy.file`; nothing happens where the policy stands in the configuration itself."""

    def __init__(self, config: Config, spec: FeatureSpec, loader: Executor) -> None:
        """`config` has the policy that decides."""
        self._config = config
        self._spec = spec
        self._loader = loader
        self._path = Path(config.policy.file) if config.policy.file else None
        # Never that of a file: one that was changed since the configuration was read is found so.
        self._stamp: Stamp | None = (0, 0, 0)
        self._loading: Future[_Loaded] | None = None

    def look(self) -> None:
        """Begins to load the file where it has changed; waits for nothing."""
        if self._path is None or self._loading is not None:
            return
        stamp = _stamp(self._path)
        if stamp != self._stamp:
            self._stamp = stamp
            self._loading = self._loader.submit(self._load, self._path)

    def _load(self, path: Path) -> _Loaded:
        config = msgspec.structs.replace(self._config, policy=read_policy(path))
        program = policy_program(config, self._spec)
        return _Loaded(config, program, Decoder(config, self._spec, load_rates(config), program.fields))

    def place(self, pipeline: Pipeline) -> Config | None:
        """Puts one in place that is ready, and returns the configuration that has it; nothing may be uncommitted."""
        if self._loading is None or not self._loading.done():
            return None
        loading, self._loading = self._loading, None
        try:
            loaded = loading.result()
            self._check_version(loaded.config)
        except (ConfigError, OSError) as error:
            pipeline.metrics.policy_loads_failed += 1
            _log.error("a policy is refused", extra={"why": str(error), "decides": self._config.policy.label})
            return None
        if loaded.config.policy == self._config.policy:
            return None
        _log.info(
            "another policy decides",
            extra={"policy": loaded.config.policy.label, "before": self._config.policy.label},
        )
        self._config = loaded.config
        pipeline.set_policy(loaded.program, loaded.decoder)
        return loaded.config

    def _check_version(self, config: Config) -> None:
        """Decisions say which policy made them, so two may not have one name."""
        if config.policy != self._config.policy and config.policy.label == self._config.policy.label:
            raise ConfigError(f"policy file {self._path}: has changed, but is version {config.policy.version!r} still")


def _stamp(path: Path) -> Stamp | None:
    """None where there is no file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
