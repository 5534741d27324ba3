"""A micro-batch is freed as soon as it is done: the collector, which would find cycles, hardly ever looks."""

import gc

import numpy as np
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
    values = [json_of(event(number)) for number in range(EVENTS)]
    if kind >= 0:
        broken, _ = spoil(kind, np.random.default_rng(1), values[-1])
        values.append(broken)
    gc.collect()
    gc.disable()
    try:
        pipeline.process(records_of(values))
        assert gc.collect() == 0
    finally:
        gc.enable()
