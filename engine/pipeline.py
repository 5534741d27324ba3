"""One micro-batch through the stages: decode, features, score, decide, emit. Knows nothing of Kafka."""

from dataclasses import dataclass

from engine.decide import ThresholdPolicy
from engine.decode import Decoder
from engine.emit import Encoder, Outputs
from engine.events import Records
from engine.observe.metrics import Metrics
from engine.score import score
from engine.state.local import LocalState
from models.runtime import Model


@dataclass(slots=True)
class Pipeline:
    """The stages, and the state that they read and change in memory."""

    decoder: Decoder
    state: LocalState
    model: Model
    policy: ThresholdPolicy
    encoder: Encoder
    metrics: Metrics

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
        decisions = self.policy.decide(probabilities, matrix.values)
        clock.done("decide")
        messages, alerts = self.encoder.encode(accepted, matrix, decisions)
        clock.done("encode")
        self.metrics.count_decisions(accepted, matrix, decisions)
        return Outputs(messages, alerts, dead_letters, accepted.record_times_ms)

    def absorb(self, records: Records) -> None:
        """Takes events into the state without deciding anything: the replay of what was decided before."""
        decoded, _ = self.decoder.decode(records)
        accepted = self.state.accept(decoded)
        if len(accepted):
            self.state.features(accepted, compute=False)
