"""The whole pipeline in memory, under the profile and with the model that ship, and events for it."""

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from engine.assemble import load_champion, policy_program
from engine.config import Config, default_profile, parse_config
from engine.decide import Decider
from engine.decode import Decoder
from engine.emit import Encoder
from engine.events import Batch, Records
from engine.observe.metrics import Metrics
from engine.pipeline import Pipeline
from engine.policy.lists import Lists
from engine.policy.settings import Policy
from engine.rates import RateTable
from engine.serving import Serving
from engine.state.local import LocalState
from engine.state.store import Store
from models.runtime import Model
from tests.memory_store import MemoryStore

CACHE_BYTES = 32 << 20
START_MS = 1_735_689_600_000
# Low enough for every kind of decision to occur on a few hundred events.
POLICY = {"challenge": 2, "review": 5, "decline": 900}


def profile(state: str = "", policy: dict[str, int] | None = None, extra: str = "") -> Config:
    """The profile that ships, with a small cache; `state` is TOML for that table, `extra` any further tables."""
    thresholds = "\n".join(f"{name} = {value}" for name, value in (policy or POLICY).items())
    tables = f"[state]\ncache_bytes_max = {CACHE_BYTES}\ndirty_bytes_max = {CACHE_BYTES // 4}\n{state}"
    return parse_config(f"{default_profile()}\n{thresholds}\n{tables}\n{extra}", Path(), environment={})


@functools.cache
def demo_model() -> Model:
    """The model that ships, verified once."""
    config = profile()
    return load_champion(config, config.feature_spec())


def pipeline_of(
    config: Config,
    store: MemoryStore | Store | None = None,
    *,
    with_features: bool = True,
    rates: RateTable | None = None,
) -> Pipeline:
    """A pipeline whose decisions are all made at time 0, so that they can be compared bit for bit."""
    spec = config.feature_spec()
    model = demo_model()
    program, lists = policy_program(config, spec), Lists(tuple(entity.name for entity in spec.entities))
    encoder = Encoder(spec, model.facts, program.policy.facts, with_features=with_features, clock_ms=lambda: 0)
    return Pipeline(
        decoder=Decoder(config, spec, rates, program.fields),
        state=LocalState(config, spec, "rules", store),
        champion=Serving(model, Decider(program, model, lists), encoder),
        metrics=Metrics(spec, model.facts, program.policy),
        program=program,
        lists=lists,
    )


def decider_of(policy: Policy, model: Model | None = None, lists: Lists | None = None) -> Decider:
    """What decides by a policy under the profile that ships, and by the model that ships unless by another."""
    config = msgspec.structs.replace(profile(), policy=policy)
    return Decider(policy_program(config, config.feature_spec()), model or demo_model(), lists or Lists(()))


def blank_batch(events: int) -> Batch:
    """Events of one card each, of whose fields nothing is known but that."""
    spec = profile().feature_spec()
    zeros = np.zeros(events, np.int64)
    return Batch(
        topic="in",
        event_ids=[f"e{row}" for row in range(events)],
        event_id_hashes=zeros.view(np.uint64),
        times_ms=np.full(events, START_MS),
        amounts_minor=zeros,
        currency="EUR",
        keys={entity.name: [None] * events for entity in spec.entities},
        words=np.zeros((events, len(spec.columns)), np.uint64),
        flags=zeros,
        partition_keys=[None] * events,
        partitions=zeros,
        offsets=np.arange(events),
        record_times_ms=zeros,
    )


def event(number: int, **changes: Any) -> dict[str, Any]:
    """A valid event, one a second; ... takes a field away."""
    fields = {
        "event_id": f"e{number}",
        "event_time": START_MS + 1_000 * number,
        "amount": 10.5,
        "currency": "EUR",
        "card": "4000123412341234",
        "merchant": "m-1",
        "device": "d-1",
        "ip": "10.0.0.1",
    } | changes
    return {name: value for name, value in fields.items() if value is not ...}


def json_of(fields: Any) -> bytes:
    """What a producer sends."""
    return json.dumps(fields).encode()


def records_of(
    values: Sequence[bytes | None],
    partitions: Sequence[int] | int = 0,
    offsets: Sequence[int] | None = None,
    topic: str = "in",
) -> Records:
    """Records without a timestamp; offsets count up from 0 unless given."""
    count = len(values)
    return Records(
        topic,
        list(values),
        np.full(count, partitions, np.int64) if isinstance(partitions, int) else np.array(partitions, np.int64),
        np.arange(count) if offsets is None else np.array(offsets, np.int64),
        np.full(count, -1, np.int64),
    )
