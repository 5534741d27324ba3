"""Past events decided twice: by what is running, and by a candidate. One pass, one state, the features computed once.

            +-> running model ----> running policy ----> decision
    event --+                                                       both kept, with the label of the event
            +-> candidate model --> candidate policy --> decision

Nothing that was decided changes a feature, so both sides see what they would have seen alone. Lists are empty: what
operators put there came from outside the stream.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.assemble import assemble, load_champion, load_model_of, load_rates, policy_program
from engine.backtest.columns import Decided
from engine.config import Config, read_policy
from engine.decide import Decider
from engine.decode import Decoder
from engine.errors import ConfigError, FatalError
from engine.events import Batch, Records
from engine.labels import Labels
from engine.policy.lists import Lists
from engine.policy.program import Program
from engine.replay import flush_when_full, with_scratch_state
from engine.state.local import FeatureMatrix
from models.errors import ModelError
from models.runtime import Model
from models.table import UNLABELLED


@dataclass(frozen=True, slots=True)
class Contender:
    """A policy and a model that decide together."""

    program: Program
    model: Model


@dataclass(slots=True)
class BacktestSummary:
    """What became of the records; `earlier` events lie before what is judged, and have only built the state."""

    records: int = 0
    events: int = 0
    earlier: int = 0
    dead_letters: int = 0
    duplicates: int = 0


def contenders(config: Config, policy_file: Path | None, reference: str | None) -> tuple[Contender, Contender]:
    """The running one and the candidate, which has what is not given from the running one.

    ConfigError where a policy or a model cannot be used.
    """
    spec = config.feature_spec()
    program = running_program = policy_program(config, spec)
    if policy_file is not None:
        program = policy_program(msgspec.structs.replace(config, policy=read_policy(policy_file)), spec)
    model = running_model = load_champion(config, spec)
    if reference is not None:
        try:
            model = load_model_of(config, spec, reference)
        except ModelError as error:
            raise ConfigError(f"--model {reference!r}: {error}") from error
    return Contender(running_program, running_model), Contender(program, model)


def decide_twice(
    records: Iterator[Records],
    config: Config,
    sides: tuple[Contender, Contender],
    labels: Labels,
    from_ms: int = 0,
    advance: Callable[[BacktestSummary], None] = lambda summary: None,
) -> tuple[Decided, BacktestSummary]:
    """Decides every event from `from_ms` on by both sides; calls `advance` after each micro-batch."""
    spec, summary, chunks = config.feature_spec(), BacktestSummary(), []
    kind = [entity.name for entity in spec.entities].index(config.mapping.partition_key)
    with ExitStack() as resources_open:
        pipeline = assemble(with_scratch_state(config, resources_open), resources_open, model=sides[0].model)
        decoder = Decoder(config, spec, load_rates(config), sides[0].program.fields | sides[1].program.fields)
        deciders = [Decider(side.program, side.model, Lists(())) for side in sides]
        for batch in records:
            decoded, refused = decoder.decode(batch)
            accepted = pipeline.state.accept(decoded)
            rows = np.flatnonzero(accepted.times_ms >= from_ms)
            if len(rows):
                matrix = pipeline.state.features(accepted)
                chunks.append(_decided(accepted.take(rows), matrix.take(rows), sides, deciders, labels, kind))
            elif len(accepted):
                pipeline.state.features(accepted, compute=False)
            flush_when_full(pipeline.state, config)
            summary.records += len(batch)
            summary.events += len(rows)
            summary.earlier += len(accepted) - len(rows)
            summary.dead_letters += len(refused)
            summary.duplicates += len(decoded) - len(accepted)
            advance(summary)
    return Decided.joined(chunks), summary


def _decided(
    batch: Batch,
    matrix: FeatureMatrix,
    sides: tuple[Contender, Contender],
    deciders: list[Decider],
    labels: Labels,
    kind: int,
) -> Decided:
    running = _probabilities(sides[0].model, matrix)
    same = sides[1].model is sides[0].model
    probabilities = (running, running if same else _probabilities(sides[1].model, matrix))
    decisions = [
        decider.decide(batch, matrix.values, found) for decider, found in zip(deciders, probabilities, strict=True)
    ]
    label, _, known = labels.of(batch.event_id_hashes)
    return Decided(
        times_ms=batch.times_ms,
        amounts_minor=batch.amounts_minor,
        cards=batch.words[:, kind].copy(),  # no view, which would keep all of the words
        labels=np.where(known, label, UNLABELLED).astype(np.int8),
        codes=np.stack([decided.codes for decided in decisions]).astype(np.int8),
        scores=np.stack([decided.risk_scores for decided in decisions]).astype(np.int16),
    )


def _probabilities(model: Model, matrix: FeatureMatrix) -> NDArray[np.float32]:
    try:
        return model.score(matrix.values)
    except ModelError as error:
        raise FatalError(f"model {model.label}: {error}") from error
