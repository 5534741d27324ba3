"""What the engine costs per event, and beside it, in the same run, what its libraries alone cost.

The floor does what no engine over these libraries can leave out: `consume(n)`, one typed msgspec decode per batch, one
ONNX run per batch, `produce_batch` of bytes that were encoded before. Both read the same topic and write as many bytes.
"""

import itertools
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.active import Loop
from engine.assemble import assemble
from engine.config import Config, Topics
from engine.emit import Message, Outputs
from engine.errors import FatalError
from engine.events import Records
from engine.kafka.client import admin_settings
from engine.kafka.control import Control
from engine.kafka.floor import Chunk, Floor, preload
from engine.kafka.topics import apply, delete
from engine.observe.metrics import Metrics
from engine.pipeline import Pipeline
from engine.replay import flush_when_full
from engine.serve import connected
from engine.topology import wanted_topics
from engine.worker import Worker
from models.runtime import Model

CHUNK_EVENTS = 10_000
# Distinct decisions that the floor sends again and again.
FLOOR_MESSAGES = 50_000
STALLED_S = 60.0


@dataclass(frozen=True, slots=True)
class Workload:
    """A stream whose first part fills the state and whose rest is measured, `warm_up_events` of it not counted."""

    chunks: Callable[[int], Iterator[Chunk]]
    prefill_events: int
    events: int
    warm_up_events: int
    partitions: int


@dataclass(slots=True)
class Cost:
    """What was spent on the counted events."""

    events: int
    seconds: float
    cpu_seconds: float

    @property
    def cpu_us_per_event(self) -> float:
        """Whole-process CPU, every thread of every library included."""
        return self.cpu_seconds / self.events * 1e6


@dataclass(slots=True)
class _Sample:
    """What the engine gave the model and the producer, for the floor to give them again."""

    pipeline: Pipeline
    inputs: list[NDArray[np.float32]]
    messages: list[Message]

    def take(self, outputs: Outputs) -> None:
        values = self.pipeline.state.newest_values(len(outputs.decisions))
        self.inputs.append(values[:, self.pipeline.model.columns].astype(np.float32))
        self.messages += outputs.decisions


def bench(config: Config, workload: Workload, say: Callable[[str], None]) -> dict[str, object]:
    """Runs the workload on the configured broker; returns the figures under the keys that `--json` prints."""
    run = f"bench-{uuid.uuid4().hex[:8]}"
    names = Topics(*(f"{run}-{topic}" for topic in Topics.__struct_fields__))
    kafka = msgspec.structs.replace(
        config.kafka,
        input=f"{run}-transactions",
        topics=names,
        application_id=run,
        partitions=workload.partitions,
        replication=1,
    )
    config = msgspec.structs.replace(config, kafka=kafka)
    specs = wanted_topics(config)
    topics = [spec.name for spec in specs]
    with ExitStack() as resources_open:
        folder = resources_open.enter_context(tempfile.TemporaryDirectory(prefix="tidegate-bench-"))
        config = config.with_state_dir(Path(folder))
        apply(admin_settings(config), specs)
        resources_open.callback(delete, admin_settings(config), topics)
        pipeline = assemble(config, resources_open)
        chunks = workload.chunks(CHUNK_EVENTS)
        say(f"filling the state with {workload.prefill_events:,} events")
        ring_events = _prefill(pipeline, config, workload, chunks)
        say(f"putting {workload.events:,} events on {kafka.input}")
        preload(config, _first(chunks, workload.events))
        say("scoring")
        cost, stage_us, sample = _engine(config, pipeline, workload)
        say("measuring the floor")
        floor = _floor(config, pipeline, workload, sample)
    return {
        "events": cost.events,
        "events_per_second": cost.events / cost.seconds,
        "cpu_us_per_event": cost.cpu_us_per_event,
        "stage_us": stage_us,
        "floor_us_per_event": floor.cpu_us_per_event,
        "floor_events_per_second": floor.events / floor.seconds,
        "cpu_ratio_to_floor": cost.cpu_us_per_event / floor.cpu_us_per_event,
        "ring_events_per_scored_card_median": ring_events,
        "decision_bytes_mean": float(np.mean([len(message["value"]) for message in sample.messages])),
    }


def _first(chunks: Iterator[Chunk], events: int) -> Iterator[Chunk]:
    while events > 0:
        chunk = next(chunks)
        events -= len(chunk.values)
        yield chunk


def _prefill(pipeline: Pipeline, config: Config, workload: Workload, chunks: Iterator[Chunk]) -> float:
    """Takes the first part of the stream into the state; returns the median ring length of the cards seen last."""
    offset = 0
    for chunk in _first(chunks, workload.prefill_events):
        rows = np.arange(offset, offset + len(chunk.values))
        partitions, offsets = rows % workload.partitions, rows // workload.partitions
        records = Records(config.kafka.input, list(chunk.values), partitions, offsets, chunk.times_ms)
        pipeline.absorb(records)
        flush_when_full(pipeline.state, config)
        offset += len(chunk.values)
    pipeline.state.begin_flush({})
    pipeline.state.finish_flush()
    lengths = pipeline.state.ring_lengths("card", pipeline.decoder.decode(records)[0])
    return float(np.median(lengths))


def _engine(config: Config, pipeline: Pipeline, workload: Workload) -> tuple[Cost, dict[str, float], _Sample]:
    """Scores the topic through the worker's own loop."""
    metrics = pipeline.metrics
    with ExitStack() as resources_open:
        sample = _Sample(pipeline, [], [])
        control = resources_open.enter_context(Control(config))
        loop = _active(connected(config, pipeline, control, threading.Event(), resources_open))
        _turn_until(loop, metrics, workload.warm_up_events, sample)
        before = {stage: histogram.total for stage, histogram in metrics.stage_seconds.items()}
        first, started, cpu = metrics.events, time.perf_counter(), time.process_time()
        _turn_until(loop, metrics, workload.events, sample)
        # At least one whole flush is paid for, however quick the run was.
        loop.drain()
        cost = Cost(metrics.events - first, time.perf_counter() - started, time.process_time() - cpu)
    stage_us = {
        stage: (histogram.total - before.get(stage, 0.0)) / cost.events * 1e6
        for stage, histogram in metrics.stage_seconds.items()
    }
    if metrics.outcomes["dead_letter"]:
        raise FatalError(f"the reference workload has dead letters: {dict(metrics.dead_letters)}")
    return cost, stage_us, sample


def _active(worker: Worker) -> Loop:
    """The loop of a worker that has taken over."""
    turns = worker.turns()
    while worker.loop is None:
        next(turns)
    return worker.loop


def _turn_until(loop: Loop, metrics: Metrics, events: int, sample: _Sample) -> None:
    progressed_at, seen = time.monotonic(), metrics.events
    while metrics.events < events:
        outputs = loop.turn()
        if outputs is not None and len(sample.messages) < FLOOR_MESSAGES:
            sample.take(outputs)
        if metrics.events > seen:
            progressed_at, seen = time.monotonic(), metrics.events
        elif time.monotonic() - progressed_at > STALLED_S:
            raise FatalError(f"no events for {STALLED_S:g} s: {metrics.events} of {events} arrived")


def _floor(config: Config, pipeline: Pipeline, workload: Workload, sample: _Sample) -> Cost:
    """Reads the same topic and writes the same bytes with nothing in between but a decode and an inference."""
    model = pipeline.model
    assert isinstance(model, Model)  # of assemble's loading
    inputs, batches = np.concatenate(sample.inputs), itertools.count()
    read = msgspec.json.Decoder(list[pipeline.decoder.event_type]).decode  # type: ignore[name-defined]

    def work(values: list[bytes]) -> None:
        read(b"[" + b",".join(values) + b"]")
        start = (next(batches) * len(values)) % (len(inputs) - len(values))
        model.score_inputs(inputs[start : start + len(values)])

    with Floor(config, sample.messages, work) as floor:
        floor.turn_until(workload.warm_up_events)
        first, started, cpu = floor.events, time.perf_counter(), time.process_time()
        floor.turn_until(workload.events)
        return Cost(floor.events - first, time.perf_counter() - started, time.process_time() - cpu)
