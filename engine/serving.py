"""A model with everything that depends on which one it is: swapped as a whole, or not at all."""

from dataclasses import dataclass

from engine.config import Config
from engine.decide import ThresholdPolicy
from engine.emit import Encoder
from features.spec import FeatureSpec
from models.runtime import Model


@dataclass(frozen=True, slots=True)
class Serving:
    """One model, the policy that reads its scores, and the encoder that says whose they are."""

    model: Model
    policy: ThresholdPolicy
    encoder: Encoder


def serving_of(
    config: Config, spec: FeatureSpec, model: Model, *, with_features: bool = False, role: str | None = None
) -> Serving:
    """What the configuration makes of a model; `role` as `Encoder` has it."""
    policy = {"name": config.policy.name, "version": config.policy.version}
    encoder = Encoder(spec, model.facts, policy, with_features=with_features, role=role)
    return Serving(model, ThresholdPolicy(config.policy, model), encoder)
