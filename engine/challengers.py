"""Which challengers score beside the champion: those of `models.challengers`, by the store or the last command."""

import logging
import time

from engine.assemble import model_store
from engine.config import Config
from engine.errors import ConfigError
from engine.events import Batch
from engine.kafka.control import Control
from engine.observe.metrics import Challenger, Metrics
from engine.shadow import CLOSE_S, Offered, Shadow
from engine.shadow_wire import encode_seen
from engine.state.local import FeatureMatrix
from models.assignment import Assignment, newest
from models.errors import ModelError
from models.store import Reference, aliases, parse_reference

_log = logging.getLogger("tidegate.shadow")


class Challengers:
    """Follows the aliases among them; runs them from `begin` on, when this worker decides for the first time."""

    def __init__(self, config: Config, control: Control, metrics: Metrics) -> None:
        """ConfigError where a reference is none."""
        self._config = config
        self._control = control
        self._metrics = metrics
        try:
            self._references = [parse_reference(reference) for reference in config.models.challengers]
        except ModelError as error:
            raise ConfigError(f"models.challengers: {error}") from error
        self._stored = {reference.name: _stored(config, reference.name) for reference in self._references}
        self._running: dict[tuple[str, str], Shadow] = {}
        self._ending: list[Shadow] = []
        self._begun = False

    def use(self, config: Config) -> None:
        """They decide by another policy: each is started anew."""
        self._config = config
        self.follow()

    def begin(self) -> None:
        """There will be events now."""
        self._begun = True
        self.follow()

    def follow(self) -> None:
        """Starts those that are wanted by now, and ends those that are not; waits for neither."""
        if not self._begun:
            return
        wanted = self._wanted()
        if wanted.items() == self._running.keys():
            return
        self._ending = [shadow for shadow in self._ending if not shadow.ended]
        for gone in self._running.keys() - wanted.items():
            shadow = self._running.pop(gone)
            shadow.begin_close()
            self._ending.append(shadow)
        for label, said in wanted.items():
            if (label, said) not in self._running:
                self._running[label, said] = Shadow(self._config, Challenger(label))
        self._metrics.challengers = [shadow.counts for shadow in self._running.values()]

    def _wanted(self) -> dict[str, str]:
        """Versions, each once, and of each what changes when somebody says it again."""
        wanted: dict[str, str] = {}
        for reference in self._references:
            if reference.alias is None:
                said, version = "", reference.version
            elif (assignment := self._assignment(reference, reference.alias)) is not None:
                said, version = assignment.id, assignment.version
            else:
                continue
            wanted.setdefault(f"{reference.name}/{version}", f"{said} {self._config.policy.label}")
        return wanted

    def _assignment(self, reference: Reference, alias: str) -> Assignment | None:
        stored = self._stored[reference.name].get(alias)
        found = newest(stored, self._control.assignment(reference.name, alias))
        return None if found is None or found.ended else found

    def offer(self, batch: Batch, matrix: FeatureMatrix) -> None:
        """Hands one copy to all; waits for none."""
        if not self._running:
            return
        offered = Offered(len(batch), encode_seen(batch, matrix))
        for shadow in self._running.values():
            shadow.offer(offered)

    def close(self) -> None:
        """Lets them deliver what they have, for a few seconds."""
        deadline = time.monotonic() + CLOSE_S
        shadows = [*self._running.values(), *self._ending]
        for shadow in shadows:
            shadow.begin_close()
        for shadow in shadows:
            shadow.close(deadline)


def _stored(config: Config, name: str) -> dict[str, Assignment]:
    """What the store says at the start; a challenger is not worth failing for."""
    try:
        return aliases(model_store(config), name)
    except (ModelError, OSError) as error:
        _log.error("a challenger is not known", extra={"model": name, "why": str(error)})
        return {}
