"""Blobs of entities that have everything: tiles, tables, cells, predicates, places. What was packed goes on as before.

Rings by themselves, and damage, are in test_cache.
"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import Config
from engine.state.cache import CHECKSUM_BYTES, HotCache
from engine.state.local import LocalState
from features.arena import KIND, NEWEST_MS, POSITION, WORDS
from features.blob import BLOB_VERSION, blob_bytes_max, newest_of, room_for
from features.program import COLUMNS, PREDICATES, TABLES, compile_program
from features.ring import TILES_AT
from features.tiles import PART_MAX, TILE_COUNT, part_count, tile_at
from features.values import cell_shift
from tests.build import batch_of, full_config
from tests.memory_store import MemoryStore
from tests.oracle.events import Event

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000
NOW = 1_735_689_600_000
RING_EVENTS_MAX = 4
HORIZON = 7 * DAY


def _config(ring_events_max: int = RING_EVENTS_MAX, state: str = "") -> Config:
    """Every form of every aggregate for cards; a few for merchants, so that kinds differ in what they store."""
    return full_config(
        windows=("10s", "1m", "1h", "30d"),
        ring_events_max=ring_events_max,
        merchant_windows=("5s", "20d"),
        horizon_past="7d",
        state=state,
    )


CONFIG = _config()
SPEC = CONFIG.feature_spec()
PROGRAM = compile_program(SPEC)


def _state(store: MemoryStore | None = None, config: Config = CONFIG) -> LocalState:
    return LocalState(config, SPEC, "f", store)


def _event(number: int, time_ms: int, card: int, merchant: int, amount: int, fields: int) -> Event:
    """`fields`: bits and digits that say which of the other fields there are and what is in them."""
    return Event(
        time_ms,
        number,
        amount,
        {
            "card": f"c{card}",
            "merchant": f"m{merchant}" if fields % 8 else None,
            "city": f"t{fields % 5}",
            "entry_mode": ("ecom", "chip", None)[fields % 3],
        },
        {"distance_km": (None, 0.0, 99.5, 100.5)[fields // 3 % 4] if fields % 7 else float(fields)},
        None if fields % 4 == 0 else (fields % 180 - 90 + 0.1234567, fields % 360 - 180.0),
    )


def _stream(seed: int, count: int, cards: int, merchants: int, over_ms: int) -> list[Event]:
    """Events over some time, some late, some of one moment, some of huge amounts."""
    rng = np.random.default_rng(seed)
    times_ms = NOW + np.sort(rng.integers(0, over_ms, count))
    times_ms[1::3] = times_ms[: len(times_ms[1::3])]
    times_ms = np.maximum(times_ms, np.maximum.accumulate(times_ms) - HORIZON + 1)
    amounts = np.where(rng.random(count) < 0.1, 10**13, rng.integers(-300, 10_000, count))
    return [
        _event(number, *row)
        for number, row in enumerate(
            zip(
                times_ms.tolist(),
                (rng.geometric(0.3, count) % cards).tolist(),
                rng.integers(0, merchants, count).tolist(),
                amounts.tolist(),
                rng.integers(0, 1_000, count).tolist(),
                strict=True,
            )
        )
    ]


def _feed(state: LocalState, events: list[Event], at_once: int = 50) -> None:
    for start in range(0, len(events), at_once):
        state.features(batch_of(events[start : start + at_once], SPEC))


def _every_slot(state: LocalState) -> np.ndarray:
    return np.arange(state._cache.used)


def _repacked(state: LocalState, blobs: list[bytes]) -> list[bytes]:
    """The same entities out of another cache that has only read them."""
    cache = state._cache
    slots = _every_slot(state)
    words = np.zeros((len(slots), len(SPEC.entities)), np.uint64)
    words[slots, cache.kinds(slots)] = cache.hashes(slots)
    other = HotCache(None, PROGRAM, cache.ring_events_max, cache.ttl_ms, CONFIG.state.cache_bytes_max)
    found = other.find(words)[slots, cache.kinds(slots)].astype(np.int64)
    assert other.read_back(blobs, found) is None
    return other.pack(found)


def _tile_parts(state: LocalState) -> dict[int, int]:
    """Where the tiles of each slot that has any begin."""
    cache = state._cache
    positions = cache.slots[: cache.used, POSITION].tolist()
    return {slot: at + int(cache.heap[at + TILES_AT]) for slot, at in enumerate(positions) if cache.heap[at + TILES_AT]}


# --- there and back --------------------------------------------------------------------------------------------

# Short and crowded; so crowded that parts of tiles are full; long, with tiles of all widths; one card at so many
# merchants that its tables become cells.
STREAMS = {
    "of one moment": (4, 1_500, 2, 5, 200),
    "crowded": (1, 300, 6, 40, 2 * MINUTE),
    "long": (2, 600, 4, 30, 60 * DAY),
    "of many merchants": (3, 3_000, 2, 2_500, 25 * DAY),
}


@pytest.fixture(params=STREAMS, ids=list(STREAMS))
def stream(request: pytest.FixtureRequest) -> list[Event]:
    return _stream(*STREAMS[request.param])


def test_packing_what_was_unpacked_gives_the_same_bytes(stream: list[Event]) -> None:
    state = _state()
    _feed(state, stream)
    blobs = state._cache.pack(_every_slot(state))
    assert _repacked(state, blobs) == blobs
    assert len(_tile_parts(state)) > 1


def test_the_streams_of_these_tests_have_all_that_there_is() -> None:
    cells, full, tiles = 0, 0, 0
    for name, drawn in STREAMS.items():
        state = _state()
        _feed(state, _stream(*drawn))
        heap = state._cache.heap
        for slot, part in _tile_parts(state).items():
            _, predicates, tables = PROGRAM.facts[state._cache.slots[slot, KIND] & 255, [COLUMNS, PREDICATES, TABLES]]
            shifts = [cell_shift(heap, part, table) for table in range(tables)]
            cells += name == "of many merchants" and 0 < np.count_nonzero(shifts) < tables
            count = int(heap[part + TILE_COUNT])
            tiles = max(tiles, count)
            for index in range(count):
                tile = tile_at(part, index, predicates, tables)
                full += any(part_count(heap, tile, k) == PART_MAX for k in range(32))
    assert cells > 0
    assert tiles > 50
    assert full > 0


def test_values_go_on_as_if_nothing_had_been_packed(stream: list[Event]) -> None:
    """Read back after every batch or two, against a state that never leaves memory."""
    store, kept = MemoryStore(), _state()
    packed, number = _state(store), 0
    rng = np.random.default_rng(5)
    while number < len(stream):
        batch = stream[number : number + int(rng.integers(1, max(60, len(stream) // 20)))]
        number += len(batch)
        found, expected = packed.features(batch_of(batch, SPEC)), kept.features(batch_of(batch, SPEC))
        assert found.values.tobytes() == expected.values.tobytes()
        assert found.exact_windows.tobytes() == expected.exact_windows.tobytes()
        assert found.exact_all.tobytes() == expected.exact_all.tobytes()
        if rng.random() < 0.7:
            packed.begin_flush({0: number})
            packed.finish_flush()
            packed = _state(store)


@pytest.mark.parametrize("ring_events_max", [16, 128])
def test_longer_rings_go_on_too(ring_events_max: int) -> None:
    """With more than one word of bits, and squares that are noted in between."""
    config, events = _config(ring_events_max), _stream(9, 900, 3, 40, 3 * DAY)
    store, kept = MemoryStore(), _state(config=config)
    packed = _state(store, config)
    for start in range(0, len(events), 30):
        batch = batch_of(events[start : start + 30], SPEC)
        found, expected = packed.features(batch), kept.features(batch)
        assert found.values.tobytes() == expected.values.tobytes()
        packed.begin_flush({0: start})
        packed.finish_flush()
        packed = _state(store, config)


# --- what decides the bytes ------------------------------------------------------------------------------------

EVENTS = st.lists(
    st.builds(
        lambda ago, *rest: _event(0, NOW - ago, *rest),
        st.one_of(st.integers(0, 5 * DAY), st.integers(0, 20 * SECOND), st.just(0)),
        st.integers(0, 1),
        st.integers(0, 9),
        st.sampled_from([-5, 0, 150, 250, 10**13]),
        st.integers(0, 60),
    ),
    min_size=1,
    max_size=40,
)


@given(EVENTS, st.randoms(use_true_random=False))
def test_a_blob_depends_on_the_events_and_not_on_their_order(events: list[Event], random) -> None:
    packed = []
    for order in (events, random.sample(events, len(events))):
        state = _state()
        numbered = [replace(event, sequence=number) for number, event in enumerate(order)]
        _feed(state, numbered)
        cache, slots = state._cache, _every_slot(state)
        packed.append(dict(zip(zip(cache.kinds(slots), cache.hashes(slots), strict=True), cache.pack(slots),
                               strict=True)))  # fmt: skip
    assert packed[0] == packed[1]


def test_values_past_the_ttl_are_not_packed() -> None:
    """A table may still hold them, until it is written anew."""
    many = [_event(n, NOW + n, 0, n, 100, 1) for n in range(200)]
    later = [_event(1_000 + n, NOW + 36 * DAY + n, 0, 5_000, 100, 1) for n in range(5)]
    end = [_event(2_000, NOW + 38 * DAY, 0, 5_001, 100, 1)]
    state, short = _state(), _state()
    _feed(state, many + later + end)
    _feed(short, later + end)
    size, size_short = (len(s._cache.pack(np.zeros(1, np.int64))[0]) for s in (state, short))
    assert size < size_short + 200


# --- room ------------------------------------------------------------------------------------------------------


def test_no_blob_is_longer_and_no_block_larger_than_was_reckoned_with(stream: list[Event]) -> None:
    state = _state()
    cache = state._cache
    for start in range(0, len(stream), len(stream) // 4):
        _feed(state, stream[start : start + len(stream) // 4])
        for slot in _every_slot(state)[:30].tolist():
            (blob,) = cache.pack(np.array([slot]))
            body = np.frombuffer(blob, np.uint8)[:-CHECKSUM_BYTES]
            assert blob[0] == BLOB_VERSION
            assert newest_of(body) == cache.slots[slot, NEWEST_MS]
            assert len(body) <= blob_bytes_max(np.array([slot]), cache.slots, cache.heap, PROGRAM.facts)
            kinds, bounds = cache.kinds(np.array([slot])), np.array([0, len(body)])
            words = room_for(kinds, bounds, body, PROGRAM.facts, cache.block_words_max, cache.ring_events_max)
            other = _state()._cache
            row = np.zeros((1, len(SPEC.entities)), np.uint64)
            row[0, kinds[0]] = 1
            other.read_back([blob], other.find(row)[0, kinds].astype(np.int64))
            assert other.heap[WORDS] == other.heap_top <= words <= cache.block_words_max
