"""What an operator does with the state of a configuration: verify it, look at its checkpoints, go back to one."""

from collections.abc import Callable, Iterator
from pathlib import Path

from engine.assemble import load_rates, rules_of
from engine.config import Config
from engine.errors import ConfigError, FatalError
from engine.state.checkpoints import PREFIX, Checkpoints
from engine.state.damage import DamageError
from engine.state.manifest import Manifest, read_manifest
from engine.state.peek import read_header
from engine.state.restore import restore
from engine.state.store import DATABASE
from engine.state.verify import Shape, Verdict, verify_checkpoint, verify_state

Verify = Callable[[Callable[[Verdict], None]], Verdict]


def checkpoints_of(config: Config) -> Checkpoints:
    """The configured folder of checkpoints; ConfigError where none is configured."""
    settings = config.state.checkpoints
    if not settings.dir:
        raise ConfigError("no checkpoints are made: state.checkpoints.dir is empty")
    return Checkpoints(config.path(settings.dir), settings.keep, settings.interval_s)


def verifications(config: Config, *, with_checkpoints: bool) -> Iterator[tuple[str, Path, Verify]]:
    """What there is to verify, by name: the folder of its database, and what does it.

    ConfigError where there is nothing. FatalError where a state was made under other rules: its rows cannot be read.
    """
    shape = Shape(config.feature_spec(), config.state.ring_events_max, config.ttl_ms)
    rules, folder = rules_of(config, load_rates(config)), config.path(config.state.dir)
    entries = checkpoints_of(config).entries() if with_checkpoints else []
    if (folder / DATABASE).is_dir() or not entries:
        try:
            header = read_header(folder)
        except DamageError:
            header = None
        if header is not None:
            _check_rules("the state", header.fingerprint, rules)
        yield "state", folder / DATABASE, lambda advance: verify_state(folder, shape, advance)
    for entry in entries:
        if entry.manifest is not None and not entry.problem:
            _check_rules(entry.folder.name, entry.manifest.fingerprint, rules)
        yield entry.folder.name, entry.folder / DATABASE, _of_checkpoint(entry.folder, shape)


def _of_checkpoint(folder: Path, shape: Shape) -> Verify:
    return lambda advance: verify_checkpoint(folder, shape, advance)


def restore_checkpoint(config: Config, sequence: int) -> tuple[Manifest, Path | None]:
    """Makes a checkpoint the state; returns its manifest, and where the state that was there is kept.

    ConfigError where there is no such checkpoint. Raises as `engine.state.restore.restore`.
    """
    entries = {entry.folder.name: entry.folder for entry in checkpoints_of(config).entries()}
    folder = entries.get(f"{PREFIX}{sequence}")
    if folder is None:
        there = ", ".join(name.removeprefix(PREFIX) for name in entries) or "none"
        raise ConfigError(f"there is no checkpoint {sequence}; there are: {there}")
    manifest = read_manifest(folder)
    _check_rules(folder.name, manifest.fingerprint, rules_of(config, load_rates(config)))
    return manifest, restore(folder, config.path(config.state.dir))


def _check_rules(what: str, fingerprint: str, rules: str) -> None:
    if fingerprint != rules:
        raise FatalError(f"{what} was made under other rules: {fingerprint}, not {rules}; use its own configuration")
