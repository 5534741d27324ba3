"""However fast events come, what changed goes to disk before there is no room for it."""

from pathlib import Path

import msgspec
import numpy as np

from engine.bench_features import configured, open_state
from engine.bench_streams import EPOCH_MS, batch_of, lognormal_amounts, mixed
from engine.state.store import Store

CACHE_BYTES = 32 * 1024 * 1024
ENTITIES = 6_000
BATCH_EVENTS = 2_000
# Rings grow to 128 and 256 places all at the same time, which is when the most room is taken.
EVENTS_EACH = 130


def test_entities_that_grow_all_at_once_are_flushed_before_they_fill_the_cache(tmp_path: Path) -> None:
    config = configured(("1h", "24h"), ("count", "sum.amount"), ENTITIES, tmp_path)
    limits = msgspec.structs.replace(config.state, cache_bytes_max=CACHE_BYTES, dirty_bytes_max=CACHE_BYTES // 4)
    config = msgspec.structs.replace(config, state=limits)
    rng = np.random.default_rng(1)
    number, flushes = 0, 0
    with Store(tmp_path / "state", limits.block_cache_bytes_max) as store:
        state = open_state(config, store)
        for _ in range(EVENTS_EACH):
            entities = mixed(rng.permutation(ENTITIES))
            for start in range(0, ENTITIES, BATCH_EVENTS):
                if state.crowded(BATCH_EVENTS):
                    state.begin_flush({0: number})
                    state.finish_flush()
                    flushes += 1
                words = entities[start : start + BATCH_EVENTS, None]
                times_ms = EPOCH_MS + np.arange(number, number + BATCH_EVENTS)
                amounts = lognormal_amounts(rng, BATCH_EVENTS)
                state.features(state.accept(batch_of(words, times_ms, amounts, number)), compute=False)
                number += BATCH_EVENTS
    assert flushes > 0
