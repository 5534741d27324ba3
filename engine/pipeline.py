"""One micro-batch through the stages: decode, features, score, decide, emit. Knows nothing of Kafka."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine.canary import Canary
from engine.decide import Decisions
from engine.decode import Decoder
from engine.emit import Message, Outputs
from engine.events import Batch, Records
from engine.observe.drift import Drift
from engine.observe.metrics import Metrics
from engine.policy.lists import Lists
from engine.policy.program import Program
from engine.sampling import Sampler
from engine.score import score
from engine.serving import Serving
from engine.state.local import FeatureMatrix, LocalState
from engine.telemetry import Versions
from models.errors import ModelError
from models.runtime import Scorer

_log = logging.getLogger("tidegate.models")

Index = NDArray[np.intp]


class Onlookers(Protocol):
    """Models that see what the champion sees, and decide nothing."""

    def offer(self, batch: Batch, matrix: FeatureMatrix) -> None:
        """Takes a copy of what they need, or nothing where they are behind; never waits, never raises."""


@dataclass(slots=True)
class _Part:
    """The events of a micro-batch that one model decides; `rows` are theirs within it."""

    serving: Serving
    batch: Batch
    matrix: FeatureMatrix
    probabilities: NDArray[np.float32]
    rows: Index


@dataclass(slots=True)
class Pipeline:
    """The stages, and the state that they read and change in memory.

    `champion` decides, but for the entities that a `canary` has, both by `program` and `lists`. `onlookers` score the
    same events beside them. `sampler` draws decisions, and `drift` counts them, for whoever watches: both, or neither.
    """

    decoder: Decoder
    state: LocalState
    champion: Serving
    metrics: Metrics
    program: Program
    lists: Lists
    canary: Canary | None = None
    onlookers: Onlookers | None = None
    sampler: Sampler | None = None
    drift: Drift | None = None

    @property
    def model(self) -> Scorer:
        """The deciding model."""
        return self.champion.model

    @property
    def versions(self) -> Versions:
        """Who decides."""
        return self.champion.versions

    def swap(self, champion: Serving) -> None:
        """Another model decides from the next batch on."""
        self.champion = champion.under(self.program)
        self.metrics.model = champion.model.facts
        self.metrics.model_swaps += 1

    def set_canary(self, canary: Canary | None) -> None:
        """Another model decides for a share of the entities from the next batch on; None ends that."""
        if canary is not None:
            canary = replace(canary, serving=canary.serving.under(self.program))
        self.canary = canary
        self.metrics.canary = None if canary is None else (canary.serving.model.facts, canary.share)

    def set_policy(self, program: Program, decoder: Decoder) -> None:
        """Another policy decides from the next batch on; `decoder` reads what its rules need."""
        self.program, self.decoder = program, decoder
        self.champion = self.champion.under(program)
        if self.canary is not None:
            self.canary = replace(self.canary, serving=self.canary.serving.under(program))
        self.metrics.note_policy(program.policy)
        self.metrics.policy_swaps += 1

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
        parts = self._score(accepted, matrix)
        clock.done("score")
        decided = [part.serving.decider.decide(part.batch, part.matrix.values, part.probabilities) for part in parts]
        clock.done("decide")
        decided_at_ms = self.champion.encoder.clock_ms()
        messages: list[tuple[Index, list[Message]]] = []
        alerts: list[tuple[Index, list[Message]]] = []
        for part, decisions in zip(parts, decided, strict=True):
            made, raised = part.serving.encoder.encode(part.batch, part.matrix, decisions, decided_at_ms)
            messages.append((part.rows, made))
            alerts.append((part.rows[decisions.flagged], raised))
        outputs = Outputs(in_order(messages), in_order(alerts), dead_letters, accepted.record_times_ms)
        clock.done("encode")
        for part, decisions in zip(parts, decided, strict=True):
            self.metrics.count_decisions(part.batch, part.matrix, decisions, part.serving.model.label)
        if self.sampler is not None and self.drift is not None:
            self._count(self.drift, parts, decided)
            outputs.samples = self._samples(self.sampler, parts, decided, decided_at_ms)
            clock.done("telemetry")
        labels = (part.serving.model.label for part in parts if part.serving is not self.champion)
        outputs.canary = next(labels, "")
        if self.onlookers is not None:
            self.onlookers.offer(accepted, matrix)
            clock.done("shadow")
        return outputs

    def _count(self, drift: Drift, parts: list[_Part], decided: list[Decisions]) -> None:
        for part, decisions in zip(parts, decided, strict=True):
            drift.note(part.serving.model, part.serving.versions, part.batch, part.matrix, decisions)

    def _samples(
        self, sampler: Sampler, parts: list[_Part], decided: list[Decisions], decided_at_ms: int
    ) -> list[Message]:
        """What is drawn of the decisions, in their order."""
        found: list[tuple[Index, list[Message]]] = []
        for part, decisions in zip(parts, decided, strict=True):
            rows = sampler.rows(part.batch, decisions)
            if len(rows):
                versions = part.serving.versions
                made = sampler.encode(part.batch, part.matrix, decisions, versions, decided_at_ms, rows)
                found.append((part.rows[rows], made))
        if not found:
            return []
        samples = in_order(found)
        self.metrics.samples += len(samples)
        return samples

    def _score(self, batch: Batch, matrix: FeatureMatrix) -> list[_Part]:
        """A part for each model that has any of the events; raises as `score`."""
        if self.canary is not None:
            chosen = self.canary.rows(batch)
            if chosen.any() and (canary := self._canary_part(self.canary, batch, matrix, np.flatnonzero(chosen))):
                if chosen.all():
                    return [canary]
                rows = np.flatnonzero(~chosen)
                rest, values = batch.take(rows), matrix.take(rows)
                return [_Part(self.champion, rest, values, self._champion_scores(values), rows), canary]
        return [_Part(self.champion, batch, matrix, self._champion_scores(matrix), np.arange(len(batch)))]

    def _champion_scores(self, matrix: FeatureMatrix) -> NDArray[np.float32]:
        return score(self.model, matrix.values, goes_on=self.program.policy.without_model != "stop")

    def _canary_part(self, canary: Canary, batch: Batch, matrix: FeatureMatrix, rows: Index) -> _Part | None:
        """Where it fails, it decides no more before somebody says so again: its events are the champion's."""
        values = matrix.take(rows)
        try:
            probabilities = canary.serving.model.score(values.values)
        except ModelError as error:
            _log.error(
                "the canary failed, and decides no longer",
                extra={"model": canary.serving.model.label, "why": str(error), "decides": self.model.label},
            )
            self.metrics.canary_failures += 1
            self.set_canary(None)
            return None
        return _Part(canary.serving, batch.take(rows), values, probabilities, rows)

    def absorb(self, records: Records) -> None:
        """Takes events into the state without deciding anything: the replay of what was decided before."""
        decoded, _ = self.decoder.decode(records)
        accepted = self.state.accept(decoded)
        if len(accepted):
            self.state.features(accepted, compute=False)


def in_order(parts: Sequence[tuple[Index, list[Message]]]) -> list[Message]:
    """The messages of all parts by the rows that they are of: a partition's decisions stay in its order."""
    if len(parts) == 1:
        return parts[0][1]
    rows = np.concatenate([rows for rows, _ in parts])
    messages = [message for _, part in parts for message in part]
    return [messages[place] for place in np.argsort(rows, kind="stable").tolist()]
