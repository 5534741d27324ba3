"""Which model decides, and by which policy and lists, while the stream runs.

control topic --> what the alias stands for --> loads beside the one that decides: gate, session, warm-up --+
                                                                                                            |
between two commits: the pipeline gets the new one, whole <--------------- ready ---------------------------+
                     the old one stays, and an error says why <----------- refused -------------------------+

A canary goes the same way, into its own place beside the champion; a policy's file, when it has changed, likewise.
What is said of lists is heard at once, and holds from the next commit on.
"""

import logging
from collections.abc import Callable
from concurrent.futures import Executor, Future

from engine.assemble import load_model_of, model_store
from engine.canary import Canary
from engine.challengers import Challengers
from engine.clock import Clock
from engine.config import Config
from engine.errors import ConfigError
from engine.kafka.control import Control
from engine.pipeline import Pipeline
from engine.policy_file import PolicyFile
from engine.serving import Serving
from features.spec import FeatureSpec
from models.absent import NoModel
from models.assignment import CANARY, Assignment, deciding_canary, newest
from models.errors import ModelError
from models.runtime import Model, Scorer
from models.store import aliases, parse_reference

_log = logging.getLogger("tidegate.models")

HEAR_INTERVAL_S = 0.1


def first_champion(config: Config, spec: FeatureSpec, control: Control) -> Scorer:
    """What is to decide first: by command or by the store, whichever was said last.

    Where that is refused, what it stood for before, as in workers that ran when the command came. Where none can be
    loaded, none, if the policy says what is decided then; otherwise ConfigError.
    """
    try:
        return _first_model(config, spec, control)
    except ConfigError as error:
        if config.policy.without_model == "stop":
            raise
        _log.error("no model decides", extra={"why": str(error), "at_least": config.policy.without_model})
        return NoModel()


def _first_model(config: Config, spec: FeatureSpec, control: Control) -> Model:
    reference, refused = config.models.champion, None
    for version in _candidates(config, control):
        try:
            return load_model_of(config, spec, version)
        except ModelError as error:
            _log.error("a model is refused", extra={"model": version, "why": str(error)})
            refused = refused or error
    raise ConfigError(f"models.champion {reference!r}: {refused}") from refused


def _candidates(config: Config, control: Control) -> list[str]:
    """References, the best first."""
    reference = config.models.champion
    try:
        parsed = parse_reference(reference)
        if parsed.alias is None:
            return [reference]
        stored = aliases(model_store(config), parsed.name).get(parsed.alias)
    except ModelError as error:
        raise ConfigError(f"models.champion {reference!r}: {error}") from error
    found = newest(stored, control.assignment(parsed.name, parsed.alias))
    if found is None:
        return [reference]
    return [f"{parsed.name}/{version}" for version in (found.version, *reversed(found.earlier))]


class Rollout:
    """Follows the alias that `models.champion` names, and the canary beside it; a reference to a version is never left.

    Whatever is followed of challengers is followed at the same time.
    """

    def __init__(
        self,
        config: Config,
        control: Control,
        load: Callable[[str], Serving],
        loader: Executor,
        clock: Clock,
        challengers: Challengers | None = None,
        policy: PolicyFile | None = None,
    ) -> None:
        """What `control` has heard so far of the champion counts as done."""
        parsed = parse_reference(config.models.champion)
        self._name, self._alias = parsed.name, parsed.alias
        self._stored = {} if parsed.alias is None else aliases(model_store(config), parsed.name)
        self._column = [entity.name for entity in config.feature_spec().entities].index(config.mapping.partition_key)
        self._control = control
        self._load = load
        self._loader = loader
        self._clock = clock
        self._challengers = challengers
        self._policy = policy
        self._hear_at = clock.monotonic()
        self._loading: Future[Serving] | None = None
        self._heard = self._said()
        # What is to be the canary, and that model until it is in place.
        self._canary: Assignment | None = None
        self._canary_loading: Future[Serving] | None = None

    def _said(self) -> Assignment | None:
        return None if self._alias is None else self._control.assignment(self._name, self._alias)

    def _canary_said(self) -> Assignment | None:
        if self._alias is None:
            return None
        canary, champion = (
            newest(self._stored.get(alias), self._control.assignment(self._name, alias))
            for alias in (CANARY, self._alias)
        )
        return deciding_canary(canary, champion)

    def settle(self, pipeline: Pipeline) -> None:
        """Has everything that was said before now; returns once that champion is in place, or refused.

        A canary is not waited for, and challengers are not either.
        """
        self._control.catch_up()
        self._begin(pipeline)
        while self._loading is not None:
            self._end(self._loading, pipeline)
        # One that was ended meanwhile decides not one event more.
        self._place_canary(pipeline)
        self._control.change(pipeline.lists)
        if self._challengers is not None:
            self._challengers.begin()

    def tick(self, pipeline: Pipeline, *, may_swap: bool) -> None:
        """Hears now and then, and puts a model in place that is ready; nothing may be uncommitted then."""
        now = self._clock.monotonic()
        if now >= self._hear_at:
            self._hear_at = now + HEAR_INTERVAL_S
            self._control.poll()
            self._begin(pipeline)
            if self._challengers is not None:
                self._challengers.follow()
            if self._policy is not None:
                self._policy.look()
        if not may_swap:
            return
        self._control.change(pipeline.lists)
        if self._policy is not None and (config := self._policy.place(pipeline)) and self._challengers is not None:
            self._challengers.use(config)
        if self._loading is not None and self._loading.done():
            self._end(self._loading, pipeline)
        self._place_canary(pipeline)

    def _begin(self, pipeline: Pipeline) -> None:
        self._begin_champion(pipeline)
        canary = self._canary_said()
        if canary != self._canary:
            self._canary, self._canary_loading = canary, None
            if canary is not None:
                self._canary_loading = self._loader.submit(self._load, f"{self._name}/{canary.version}")

    def _begin_champion(self, pipeline: Pipeline) -> None:
        said = self._said()
        if self._loading is not None or said is None or said == self._heard:
            return
        self._heard = said
        if said.version != pipeline.model.version:
            self._loading = self._loader.submit(self._load, f"{self._name}/{said.version}")

    def _end(self, loading: Future[Serving], pipeline: Pipeline) -> None:
        self._loading = None
        if (serving := _loaded(loading, pipeline)) is not None:
            _log.info("another model decides", extra={"model": serving.model.label, "before": pipeline.model.label})
            pipeline.swap(serving)
        self._begin_champion(pipeline)

    def _place_canary(self, pipeline: Pipeline) -> None:
        """One that cannot be loaded decides nothing, nor does the one before it any longer."""
        if self._canary is None or self._canary.share is None:
            if pipeline.canary is not None:
                _log.info("the canary decides no longer", extra={"model": pipeline.canary.serving.model.label})
                pipeline.set_canary(None)
            return
        if self._canary_loading is None or not self._canary_loading.done():
            return
        serving = _loaded(self._canary_loading, pipeline)
        self._canary_loading = None
        if serving is None:
            pipeline.set_canary(None)
            return
        share = self._canary.share
        _log.info("a canary decides for some", extra={"model": serving.model.label, "share": share})
        pipeline.set_canary(Canary(serving, share, self._column))


def _loaded(loading: Future[Serving], pipeline: Pipeline) -> Serving | None:
    """None where it was refused, or the machine could not try it."""
    try:
        return loading.result()
    except (ModelError, OSError) as error:
        pipeline.metrics.model_loads_failed += 1
        _log.error("a model is refused", extra={"why": str(error), "decides": pipeline.model.label})
        return None
