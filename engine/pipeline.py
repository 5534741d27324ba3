"""One micro-batch through the stages: decode, features, score, decide, emit. Knows nothing of Kafka."""

from dataclasses import dataclass

from engine.decode import Decoder
from engine.emit import Outputs
from engine.events import Records
from engine.observe.metrics import Metrics
from engine.score import score
from engine.serving import Serving
from engine.state.local import LocalState
from models.runtime import Model


@dataclass(slots=True)
class Pipeline:
    """The stages, and the state that they read and change in memory; `champion` is whose decisions go out."""

    decoder: Decoder
    state: LocalState
    champion: Serving
    metrics: Metrics

    @property
    def model(self) -> Model:
        """The deciding model."""
        return self.champion.model

    def swap(self, champion: Serving) -> None:
        """Another model decides from the next batch on."""
        self.champion = champion
        self.metrics.model = champion.model.facts
        self.metrics.model_swaps += 1

    @property
    def feature_set(self) -> str:
        """The fingerprint of the features by name and order."""
        return self.state.spec.fingerprint()

    def process(self, records: Records) -> Outputs:
        """Decides for every new event of the batch; changes the state in memory only."""
        clock = self.metrics.stage_clock()
        decoded, dead_letters = self.decoder.decode(records)
        clock.done("decode")
        accepted = self.state.accept(decoded)
        clock.done("dedupe")
        duplicates = len(decoded) - len(accepted)
        self.metrics.count_batch(len(records), len(accepted), duplicates, dead_letters)
        if not len(accepted):
            return Outputs(dead_letters=dead_letters)
        matrix = self.state.features(accepted)
        clock.done("features")
        probabilities = score(self.model, matrix)
        clock.done("score")
        decisions = self.champion.policy.decide(probabilities, matrix.values)
        clock.done("decide")
        messages, alerts = self.champion.encoder.encode(accepted, matrix, decisions)
        clock.done("encode")
        self.metrics.count_decisions(accepted, matrix, decisions, self.model.label)
        return Outputs(messages, alerts, dead_letters, accepted.record_times_ms)

    def absorb(self, records: Records) -> None:
        """Takes events into the state without deciding anything: the replay of what was decided before."""
        decoded, _ = self.decoder.decode(records)
        accepted = self.state.accept(decoded)
        if len(accepted):
            self.state.features(accepted, compute=False)
