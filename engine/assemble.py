"""Puts the stages together from a configuration; the one place that knows how they fit."""

import gc
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from engine.config import Config
from engine.decide import ThresholdPolicy
from engine.decode import Decoder
from engine.emit import Encoder
from engine.errors import ConfigError, FatalError
from engine.observe.metrics import Metrics
from engine.pipeline import Pipeline
from engine.rates import RateTable
from engine.state.header import state_fingerprint
from engine.state.local import LocalState, warm_up
from engine.state.store import Store
from features.spec import FeatureSpec
from models.errors import ModelError
from models.runtime import Model, load_model
from models.store import shipped_store

# Container objects that may be alive beyond those of one micro-batch before the collector looks.
GC_ALLOCATIONS = 100_000


@dataclass(slots=True)
class Assembled:
    """A pipeline and what is needed beside it."""

    pipeline: Pipeline
    spec: FeatureSpec
    rates: RateTable | None


def load_rates(config: Config) -> RateTable | None:
    """The configured rate table."""
    if config.rates.file is None:
        return None
    return RateTable.read(config.path(config.rates.file), config.rates.base_currency)


def model_store(config: Config) -> Path:
    """The folder of the model store: the configured one, or the one that ships."""
    if config.models.store is not None:
        return config.path(config.models.store)
    return shipped_store()


def load_champion(config: Config, spec: FeatureSpec) -> Model:
    """The deciding model, verified and warm; ConfigError says why it cannot be used."""
    try:
        return load_model(model_store(config), config.models.champion, spec.features)
    except ModelError as error:
        raise ConfigError(f"models.champion {config.models.champion!r}: {error}") from error


def open_state(
    config: Config, spec: FeatureSpec, rates: RateTable | None, resources_open: ExitStack, *, on_disk: bool
) -> LocalState:
    """The state in `state.dir`, or one in memory only; FatalError where it was made under other rules."""
    fingerprint = state_fingerprint(config, rates.digest() if rates else "")
    store = None
    if on_disk:
        store = resources_open.enter_context(Store(config.path(config.state.dir), config.state.block_cache_bytes_max))
    state = LocalState(config, spec, fingerprint, store)
    if state.header.fingerprint != fingerprint:
        raise FatalError(
            f"state.dir {config.path(config.state.dir)} was made under other rules (mapping, keys, rates, horizons or "
            f"ring size changed: {state.header.fingerprint}, not {fingerprint}); name an empty state.dir to rebuild it"
        )
    return state


def assemble(config: Config, resources_open: ExitStack, *, on_disk: bool, with_features: bool = False) -> Assembled:
    """Everything between the input and the output, ready for its first event: kernels compiled, model warm."""
    spec = config.feature_spec()
    rates = load_rates(config)
    model = load_champion(config, spec)
    warm_up(config, spec)
    state = open_state(config, spec, rates, resources_open, on_disk=on_disk)
    facts = {"name": model.name, "version": str(model.version), "sha256": model.sha256}
    pipeline = Pipeline(
        decoder=Decoder(config, spec, rates),
        state=state,
        model=model,
        policy=ThresholdPolicy(config.policy, model),
        encoder=Encoder(
            spec,
            facts,
            {"name": config.policy.name, "version": config.policy.version},
            with_features=with_features,
        ),
        metrics=Metrics(spec, facts),
    )
    _calm_garbage_collection()
    return Assembled(pipeline, spec, rates)


def _calm_garbage_collection() -> None:
    """A batch's objects die by reference count; looking for cycles among them costs 4% and finds none."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS, 50, 100)
