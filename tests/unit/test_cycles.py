"""A micro-batch is freed as soon as it is done: the collector, which would find cycles, hardly ever looks."""

import gc

import numpy as np
import orjson
import pytest

from engine.pipeline import Pipeline
from loadtest.poison import KINDS, spoil
from tests.pipelines import event, json_of, pipeline_of, profile, records_of

EVENTS = 50


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    made = pipeline_of(profile())
    made.process(records_of([json_of(event(0))]))  # what is compiled only now leaves cycles
    return made


@pytest.mark.parametrize("kind", range(-1, len(KINDS)), ids=["nothing_wrong", *(name for name, _, _ in KINDS)])
def test_nothing_is_left_for_the_collector(kind: int, pipeline: Pipeline) -> None:
    # Events that were accepted before would not get as far.
    first = EVENTS * (kind + 2)
    values = [json_of(event(number)) for number in range(first, first + EVENTS)]
    if kind >= 0:
        broken, _ = spoil(kind, np.random.default_rng(1), values[-1])
        values.append(broken)
    records = records_of(values)
    records.record_times_ms[:] = orjson.loads(values[0])["event_time"]
    gc.collect()
    gc.disable()
    try:
        outputs = pipeline.process(records)
        assert (len(outputs.decisions), len(outputs.dead_letters)) == (EVENTS, kind >= 0)
        del outputs
        assert gc.collect() == 0
    finally:
        gc.enable()
