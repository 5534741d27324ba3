"""A model with everything that depends on which one it is: swapped as a whole, or not at all."""

from dataclasses import dataclass, field

from engine.decide import Decider
from engine.emit import Encoder
from engine.policy.lists import Lists
from engine.policy.program import Program
from engine.telemetry import Versions
from features.spec import FeatureSpec
from models.runtime import Scorer


@dataclass(frozen=True, slots=True)
class Serving:
    """One model, what makes decisions of its scores, the encoder that says whose they are, and both their names."""

    model: Scorer
    decider: Decider
    encoder: Encoder
    versions: Versions = field(init=False)

    def __post_init__(self) -> None:
        # Once, as it is asked for with every micro-batch.
        versions = Versions(self.model.label, self.decider.program.policy.label)
        object.__setattr__(self, "versions", versions)

    def under(self, program: Program) -> "Serving":
        """The same model under another policy."""
        if program is self.decider.program:
            return self
        return Serving(self.model, self.decider.under(program), self.encoder.under(program.policy.facts))


def serving_of(
    spec: FeatureSpec,
    model: Scorer,
    program: Program,
    lists: Lists,
    *,
    with_features: bool = False,
    role: str | None = None,
) -> Serving:
    """What a policy and the lists make of a model; `role` as `Encoder` has it."""
    encoder = Encoder(spec, model.facts, program.policy.facts, with_features=with_features, role=role)
    return Serving(model, Decider(program, model, lists), encoder)
