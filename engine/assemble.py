"""Puts the stages together from a configuration; the one place that knows how they fit."""

import gc
from contextlib import ExitStack
from pathlib import Path

from engine.columns import needed_fields
from engine.config import Config
from engine.decode import Decoder
from engine.errors import ConfigError, FatalError
from engine.observe.drift import Drift
from engine.observe.drift import warm_up as warm_up_drift
from engine.observe.metrics import Metrics
from engine.pipeline import Pipeline
from engine.policy.evaluate import warm_up as warm_up_rules
from engine.policy.lists import Lists
from engine.policy.lists import warm_up as warm_up_lists
from engine.policy.program import Fields, PolicyError, Program
from engine.rates import RateTable, minor_per_major
from engine.sampling import Sampler
from engine.serving import serving_of
from engine.state.header import Header, state_fingerprint
from engine.state.local import LocalState, warm_up
from engine.state.store import Store
from features.spec import FeatureSpec
from models.errors import ModelError
from models.runtime import Model, Scorer, load_model
from models.store import shipped_store
from models.survey import Version, survey

# Container objects that may be alive beyond those of one micro-batch before the collector looks.
GC_ALLOCATIONS = 100_000


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


def load_model_of(config: Config, spec: FeatureSpec, reference: str) -> Model:
    """A model of the store, verified and warm; ModelError says why it cannot be used."""
    return load_model(model_store(config), reference, spec.features)


def load_champion(config: Config, spec: FeatureSpec) -> Model:
    """What the store has as `models.champion`, verified and warm; ConfigError says why it cannot be used."""
    try:
        return load_model_of(config, spec, config.models.champion)
    except ModelError as error:
        raise ConfigError(f"models.champion {config.models.champion!r}: {error}") from error


def survey_models(config: Config, wanted: str | None) -> list[Version]:
    """The versions that `wanted` names, or all, tried against the features of this configuration.

    ConfigError where the store has no such model.
    """
    try:
        return list(survey(model_store(config), wanted, config.feature_spec().features))
    except ModelError as error:
        raise ConfigError(str(error)) from error


def policy_program(config: Config, spec: FeatureSpec) -> Program:
    """The policy of a configuration, ready to decide; ConfigError says which key of it is wrong, and where."""
    needed = needed_fields(config, spec)
    fields = Fields(frozenset(needed.texts), config.mapping.number_fields.union(needed.numbers))
    try:
        return Program(config.policy, spec, fields, minor_per_major(config.rates.base_currency))
    except PolicyError as error:
        where = f"policy file {config.policy.file}: " if config.policy.file else "policy."
        raise ConfigError(f"{where}{error}") from error


def rules_of(config: Config, rates: RateTable | None) -> str:
    """The fingerprint of everything that decides what is in a state."""
    return state_fingerprint(config, rates.digest() if rates else "")


def check_rules(config: Config, header: Header, fingerprint: str) -> None:
    """Raises FatalError where the state in `state.dir` was made under other rules."""
    if header.fingerprint != fingerprint:
        raise FatalError(
            f"state.dir {config.path(config.state.dir)} was made under other rules (mapping, keys, rates, horizons or "
            f"ring size changed: {header.fingerprint}, not {fingerprint}); name an empty state.dir to rebuild it"
        )


def open_state(config: Config, spec: FeatureSpec, rates: RateTable | None, resources_open: ExitStack) -> LocalState:
    """The state in `state.dir`; FatalError where it was made under other rules."""
    store = resources_open.enter_context(Store(config.path(config.state.dir), config.state.block_cache_bytes_max))
    state = LocalState(config, spec, rules_of(config, rates), store)
    check_rules(config, state.header, rules_of(config, rates))
    return state


def assemble(
    config: Config, resources_open: ExitStack, *, model: Scorer | None = None, with_features: bool = False
) -> Pipeline:
    """Everything between the input and the output, ready for its first event: kernels compiled, model warm.

    `model` decides, or what the store has as `models.champion`.
    """
    spec = config.feature_spec()
    rates = load_rates(config)
    model = model or load_champion(config, spec)
    warm_up(config, spec)
    warm_up_lists()
    warm_up_rules()
    state = open_state(config, spec, rates, resources_open)
    program, lists = policy_program(config, spec), Lists(tuple(entity.name for entity in spec.entities))
    pipeline = Pipeline(
        decoder=Decoder(config, spec, rates, program.fields),
        state=state,
        champion=serving_of(spec, model, program, lists, with_features=with_features),
        metrics=Metrics(spec, model.facts, program.policy),
        program=program,
        lists=lists,
    )
    _calm_garbage_collection()
    return pipeline


def watched(config: Config, pipeline: Pipeline) -> None:
    """Has its decisions drawn and counted from now on."""
    warm_up_drift()
    pipeline.sampler, pipeline.drift = Sampler(config), Drift(pipeline.state.spec)


def _calm_garbage_collection() -> None:
    """A batch's objects die by reference count; looking for cycles among them costs 4% and finds none."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS, 50, 100)
