"""The cache: whatever is given up and read back, values stay those of a state that never gives anything up."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import Config, parse_config
from engine.errors import ConfigError, FatalError
from engine.replay import flush_when_full
from engine.state.cache import BYTES_PER_SLOT, HotCache
from engine.state.header import FORMAT, Header, decode_header, encode_header, state_fingerprint
from engine.state.keys import HEADER, entity_keys
from engine.state.local import LocalState
from engine.state.store import Store
from features.arena import (
    CAPACITY,
    DIRTY,
    DROPPED_MS,
    HEAD,
    KEY,
    KIND,
    LENGTH,
    NEVER,
    POSITION,
    RING_WORDS,
    room_needed,
)
from tests.build import batch_of, small_config
from tests.memory_store import MemoryStore
from tests.oracle.windows import Event

RING_EVENTS_MAX = 8
# Room for some forty entities, where the tests use up to a hundred.
TINY_BYTES = 12 * 1024
BATCH_EVENTS_MAX = 3
ENTITIES_FIRST = 0x10


def _config(cache_bytes: int = TINY_BYTES) -> Config:
    """A cache smaller than any configuration may ask for."""
    config = small_config(ring_events_max=RING_EVENTS_MAX)
    msgspec.structs.force_setattr(config.state, "cache_bytes_max", cache_bytes)
    return config


def _event(number: int, time_ms: int, card: str | None, merchant: str | None) -> Event:
    return Event(time_ms, number, number * 7 - 40, {"card": card, "merchant": merchant, "city": "x"})


def _same(found, expected) -> None:
    assert found.values.tobytes() == expected.values.tobytes()
    assert found.exact_windows.tobytes() == expected.exact_windows.tobytes()
    assert found.exact_all.tobytes() == expected.exact_all.tobytes()
    assert found.missing.tolist() == expected.missing.tolist()


# --- giving up and reading back --------------------------------------------------------------------------------

# A few come often, so that their rings grow; the others are what has to go.
CARDS = st.one_of(st.none(), st.integers(0, 3), st.integers(0, 50)).map(lambda n: n if n is None else f"c{n}")
BATCHES = st.lists(
    st.tuples(
        st.lists(st.tuples(st.integers(0, 70_000), CARDS, CARDS), min_size=1, max_size=BATCH_EVENTS_MAX),
        st.sampled_from(["go on", "begin", "write one", "finish", "restart"]),
    ),
    max_size=40,
)


@given(BATCHES)
def test_values_are_those_of_a_state_that_gives_nothing_up(batches) -> None:
    config = _config()
    spec = config.feature_spec()
    store = MemoryStore()
    state = LocalState(config, spec, "f", store)
    everything = LocalState(small_config(ring_events_max=RING_EVENTS_MAX), spec, "f", None)
    number = unflushed = 0
    for drawn, then in batches:
        events = [_event(number + at, *rest) for at, rest in enumerate(drawn)]
        number += len(events)
        batch = batch_of(events, spec)
        _same(state.features(batch), everything.features(batch))
        assert state.entities() == everything.entities()
        unflushed += len(events)
        # Before the entities that must stay fill the cache, as the worker does by `dirty_bytes_max`.
        if then == "begin" or unflushed > 2 * BATCH_EVENTS_MAX:
            state.begin_flush({0: number})
            unflushed = 0
        if then == "write one":
            state.continue_flush(1)
        if then in ("finish", "restart"):
            state.begin_flush({0: number})
            state.finish_flush()
            unflushed = 0
        if then == "restart":
            state = LocalState(config, spec, "f", store)


def test_values_stay_right_on_a_long_stream() -> None:
    """Rings that grow leave holes in memory, and slots stand in another order than their rings."""
    config = _config()
    spec = config.feature_spec()
    state = LocalState(config, spec, "f", MemoryStore())
    everything = LocalState(small_config(ring_events_max=RING_EVENTS_MAX), spec, "f", None)
    rng = np.random.default_rng(4)
    for number in range(1_500):
        card, merchant = (rng.geometric(0.08, 2) - 1).tolist()
        batch = batch_of([_event(number, 500 * number, f"c{card}", f"m{merchant}")], spec)
        _same(state.features(batch), everything.features(batch))
        if number % 7 == 0:
            state.begin_flush({0: number})
        state.continue_flush(2)
    assert state.cache_misses > 2 * sum(state.entities().values())


def test_the_tiny_cache_of_these_tests_does_give_up_entities() -> None:
    config = _config()
    spec = config.feature_spec()
    state = LocalState(config, spec, "f", MemoryStore())
    for again in range(2):
        for number in range(40):
            state.features(batch_of([_event(40 * again + number, number, f"c{number}", f"m{number}")], spec))
            state.begin_flush({0: number})
    assert state.entities() == {"card": 40, "merchant": 40}
    assert state.cache_misses > 80  # more than one each: those given up were looked up again


def test_an_entity_that_was_used_lately_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    config = _config()
    spec = config.feature_spec()
    store = MemoryStore()
    state = LocalState(config, spec, "f", store)
    asked: list[bytes] = []
    get_many = store.get_many
    monkeypatch.setattr(store, "get_many", lambda keys: asked.extend(keys) or get_many(keys))
    for number in range(200):
        state.features(
            batch_of([_event(number, number, "often", None), _event(number, number, f"c{number}", None)], spec)
        )
        state.begin_flush({0: number})
    assert len(asked) == 201
    assert len(asked) == len(set(asked))


# --- dirty entities --------------------------------------------------------------------------------------------


def _cache(bytes_max: int, store: MemoryStore | None = None) -> HotCache:
    return HotCache(store, np.zeros(1, np.int64), RING_EVENTS_MAX, bytes_max)


def _fill(cache: HotCache, keys: list[int]) -> list[int]:
    """Opens a slot for each key, with one event at the time of the key."""
    slots = cache.find(np.array([[key] for key in keys], np.uint64))[:, 0].tolist()
    for slot, key in zip(slots, keys, strict=True):
        cache.slots[slot, [POSITION, CAPACITY, HEAD, LENGTH]] = (cache.heap_top, 4, 0, 1)
        cache.heap[cache.heap_top] = cache.heap[cache.heap_top + 4] = key
        cache.heap_top += 4 * RING_WORDS
    return slots


def _mark_dirty(cache: HotCache, slots: list[int]) -> None:
    for slot in slots:
        cache.slots[slot, KIND] |= DIRTY
        cache.dirty[cache.dirty_count] = slot
        cache.dirty_count += 1


def _held(cache: HotCache) -> dict[int, int]:
    """Time of the only event of each entity, by key."""
    rows = cache.slots[: cache.used]
    return {int(row[KEY]): int(cache.heap[row[POSITION] + (row[HEAD] & 3)]) for row in rows}


def test_room_is_made_from_clean_entities_only() -> None:
    cache = _cache(TINY_BYTES)
    clean, dirty = list(range(1, 21)), list(range(101, 109))
    _fill(cache, clean[:10])
    _mark_dirty(cache, _fill(cache, dirty))
    _fill(cache, clean[10:])
    cache.make_room(1)
    held = _held(cache)
    assert set(dirty) <= held.keys()
    assert held == {key: key for key in held}
    assert set(clean) - held.keys()
    assert cache.dirty_count == len(dirty)
    assert {int(cache.slots[slot, KEY]) for slot in cache.dirty[: cache.dirty_count]} == set(dirty)
    # Those that are left are found where they are now, and nothing else is.
    before = cache.used
    found = cache.find(np.array([[key] for key in held], np.uint64))[:, 0]
    assert cache.used == before
    assert cache.slots[found, KEY].tolist() == list(held)


def test_a_ring_that_has_grown_past_the_others_is_moved_after_them() -> None:
    """Its slot is the first, its row the last:  [old row of 1][2][3][row of 1      ]"""
    cache = _cache(TINY_BYTES)
    slot = _fill(cache, [1, 2, 3])[0]
    cache.slots[slot, [POSITION, CAPACITY]] = (cache.heap_top, 8)
    cache.heap[cache.heap_top : cache.heap_top + 8 * RING_WORDS] = 1
    cache.heap_top += 8 * RING_WORDS
    cache.make_room(1)
    assert _held(cache) == {1: 1, 2: 2, 3: 3}
    assert cache.heap_top == (8 + 4 + 4) * RING_WORDS


def test_dirty_entities_that_fill_the_cache_end_the_run() -> None:
    cache = _cache(TINY_BYTES)
    slots = int(TINY_BYTES * 0.3) // BYTES_PER_SLOT
    keys = list(range(1, slots + 1))
    _mark_dirty(cache, _fill(cache, keys))
    assert not cache.has_room(1)
    with pytest.raises(FatalError, match=r"state\.cache_bytes_max is too small for the entities that changed"):
        cache.make_room(1)
    assert _held(cache) == {key: key for key in keys}


def test_a_stream_of_new_entities_never_fills_the_cache_where_dirty_ones_are_flushed_in_time() -> None:
    """Even the smallest rings: their slots count against the budget too."""
    config = parse_config(
        '[entities.card]\nwindows = ["1h"]\naggregates = ["count"]\n[state]\nring_events_max = 4', Path(), {}
    )
    msgspec.structs.force_setattr(config.state, "cache_bytes_max", TINY_BYTES)
    msgspec.structs.force_setattr(config.state, "dirty_bytes_max", TINY_BYTES // 4)
    spec = config.feature_spec()
    state = LocalState(config, spec, "f", MemoryStore())
    for number in range(100):
        state.features(batch_of([_event(number, number, f"c{number}", None)], spec))
        flush_when_full(state, config)
    assert state.entities() == {"card": 100}


def test_a_batch_never_takes_more_than_the_room_that_was_made_for_it() -> None:
    """An entity is read back into a row that fits and may outgrow it with the next event, for any ring length."""
    config = small_config(ring_events_max=16)
    spec = config.feature_spec()
    for length in range(17):
        store = MemoryStore()
        state = LocalState(config, spec, "f", store)
        for number in range(length):
            state.features(batch_of([_event(number, number, "a", "b")], spec))
        state.begin_flush({0: length})
        state.finish_flush()
        again = LocalState(config, spec, "f", store)
        again.features(batch_of([_event(length, length, "a", "b")], spec))
        taken = again._cache.heap_top
        assert taken <= room_needed(1, again._cache.distinct_counts, 16), f"{length} events on disk"


# --- blobs -----------------------------------------------------------------------------------------------------

INT64 = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([0, -1, 1, -(2**63), 2**63 - 1, NEVER, 10**13, -(10**13)]),
)
RINGS = st.integers(0, 2).flatmap(
    lambda fields: st.tuples(
        st.just(fields),
        st.lists(st.tuples(*[INT64] * (RING_WORDS + fields)), max_size=16),
        st.integers(0, 15),
        INT64,
    )
)


def _cache_with(ring: list[tuple[int, ...]], fields: int, head: int = 0, dropped_ms: int = NEVER) -> HotCache:
    """A cache that holds one entity, the ring beginning at any place of its row."""
    cache = HotCache(None, np.array([fields], np.int64), 16, TINY_BYTES)
    slot = cache.find(np.ones((1, 1), np.uint64))[0, 0]
    capacity = 4
    while capacity < len(ring):
        capacity *= 2
    cache.heap[:] = 77
    for at, event in enumerate(ring):
        for column, word in enumerate(event):
            cache.heap[3 + column * capacity + (head + at) % capacity] = word
    cache.slots[slot, [POSITION, CAPACITY, HEAD]] = (3, capacity, head % capacity)
    cache.slots[slot, [LENGTH, DROPPED_MS]] = (len(ring), dropped_ms)
    return cache


def _packed(ring: list[tuple[int, ...]], fields: int, head: int = 0, dropped_ms: int = NEVER) -> bytes:
    (blob,) = _cache_with(ring, fields, head, dropped_ms).pack(np.zeros(1, np.int64))
    return blob


def _unpacked(blob: bytes, fields: int) -> tuple[list[tuple[int, ...]], int] | None:
    """Events and newest dropped time of a blob; None where it is refused."""
    cache = HotCache(None, np.array([fields], np.int64), 16, TINY_BYTES)
    cache.find(np.ones((1, 1), np.uint64))
    cache.heap_top = 5
    try:
        cache.read_back([blob], np.zeros(1, np.int64))
    except FatalError:
        return None
    position, capacity, head, length = cache.slots[0, [POSITION, CAPACITY, HEAD, LENGTH]].tolist()
    assert (position, head) == (5, 0)
    assert cache.heap_top == 5 + (RING_WORDS + fields) * capacity
    columns = [cache.heap[5 + c * capacity : 5 + c * capacity + length].tolist() for c in range(RING_WORDS + fields)]
    return list(zip(*columns, strict=True)), int(cache.slots[0, DROPPED_MS])


@given(RINGS)
def test_a_ring_outlasts_packing(drawn) -> None:
    fields, ring, head, dropped_ms = drawn
    assert _unpacked(_packed(ring, fields, head, dropped_ms), fields) == (ring, dropped_ms)


@given(RINGS)
def test_a_blob_depends_on_the_events_and_not_on_where_the_ring_begins(drawn) -> None:
    fields, ring, head, dropped_ms = drawn
    assert _packed(ring, fields, head, dropped_ms) == _packed(ring, fields, 0, dropped_ms)


def test_several_entities_are_packed_as_each_alone() -> None:
    config = small_config(ring_events_max=16)
    spec = config.feature_spec()
    state = LocalState(config, spec, "f", None)
    for number in range(30):
        state.features(batch_of([_event(number, number, f"c{number % 5}", f"m{number % 3}")], spec))
    cache = state._cache
    every = np.arange(cache.used)[::-1].copy()
    assert cache.pack(every) == [blob for slot in every.tolist() for blob in cache.pack(np.array([slot]))]
    assert cache.pack(every[:0]) == []


# --- damage ----------------------------------------------------------------------------------------------------

SAMPLE = [(1_735_689_600_000 + 1000 * at, 1234 * at, 2**63 - at, at) for at in range(4)]
FIELDS = 2
SOUND = _packed([(t, a, np.int64(h - 2**63).item(), d) for t, a, h, d in SAMPLE], FIELDS)


def _read_back(blob: bytes) -> None:
    """Looks an entity up whose stored blob is this one."""
    store = MemoryStore()
    key = np.array([7], np.uint64)
    store.rows[entity_keys(np.zeros(1, np.int64), key)[0]] = blob
    cache = HotCache(store, np.array([FIELDS], np.int64), RING_EVENTS_MAX, TINY_BYTES)
    cache.find(key.reshape(1, 1))


def test_the_sound_blob_is_read_back() -> None:
    _read_back(SOUND)


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        bytes([99]) + SOUND[1:],
        SOUND + b"\0",
        SOUND[:1] + bytes([2 * 3]) + SOUND[2:],
        SOUND[:1] + bytes([2 * 5]) + SOUND[2:],
        SOUND[:1] + bytes([2 * 4 + 1]) + SOUND[2:],
        SOUND[:1] + b"\xff" * 30,
        SOUND[:1] + b"\xff" * 9 + b"\x01",
        SOUND[:1] + bytes([128 + 2 * 4]) + b"\x80" * 9 + b"\0" + SOUND[2:],
    ],
    ids=["empty", "version", "longer", "fewer", "more", "negative", "endless number", "huge length", "long number"],
)
def test_a_damaged_blob_is_refused(blob: bytes) -> None:
    with pytest.raises(FatalError, match="state of entity 0000000000000007 is damaged"):
        _read_back(blob)


def test_a_torn_blob_is_refused() -> None:
    for length in range(len(SOUND)):
        with pytest.raises(FatalError, match="is damaged"):
            _read_back(SOUND[:length])


def test_a_ring_longer_than_any_could_be_is_refused() -> None:
    """More room than that was not made for it."""
    events = [(at, at, at, at) for at in range(RING_EVENTS_MAX + 1)]
    with pytest.raises(FatalError, match="is damaged"):
        _read_back(_packed(events, FIELDS))


@given(st.binary(max_size=80), st.integers(0, 2))
def test_bytes_of_any_kind_are_refused_or_read_within_bounds(blob, fields) -> None:
    read = _unpacked(b"\x01" + blob, fields)
    assert read is None or len(read[0]) <= len(blob)


@given(st.integers(0, len(SOUND) - 1), st.integers(1, 255))
def test_a_flipped_byte_is_refused_or_changes_what_is_read(at, flip) -> None:
    damaged = SOUND[:at] + bytes([SOUND[at] ^ flip]) + SOUND[at + 1 :]
    read = _unpacked(damaged, FIELDS)
    assert read is None or (len(read[0]) == len(SAMPLE) and read != _unpacked(SOUND, FIELDS))


# --- the header ------------------------------------------------------------------------------------------------


def test_the_header_outlasts_encoding() -> None:
    header = Header("abc", "cluster", "in", "topic", 7, (0, 64), {0: 2**62, 11: 0}, {0: [1, 2, NEVER]}, {"card": 3}, -5)
    assert decode_header(encode_header(header)) == header


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": FORMAT + 1}, f"format {FORMAT + 1}, this version reads {FORMAT}"),
        ({"vector": "none"}, "of another format"),
        ({"no_such_field": 1}, "of another format"),
        ({"fingerprint": None}, "of another format"),
    ],
)
def test_a_header_of_another_format_is_refused(change: dict[str, object], said: str) -> None:
    fields = {**msgspec.json.decode(encode_header(Header("abc"))), **change}
    with pytest.raises(ConfigError, match=said):
        decode_header(msgspec.json.encode(fields))


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[]"])
def test_a_damaged_header_is_refused(data: bytes) -> None:
    with pytest.raises((ConfigError, FatalError)):
        decode_header(data)


def test_the_header_is_the_first_row_and_says_what_was_flushed(tmp_path: Path) -> None:
    config = small_config()
    spec = config.feature_spec()
    with Store(tmp_path, 1 << 20) as store:
        state = LocalState(config, spec, "f", store)
        batch = batch_of([_event(at, 100 + at, "a", f"m{at}") for at in range(3)], spec)
        state.features(state.accept(batch))
        state.header.topic = "in"
        state.begin_flush({0: 3, 1: 0})
        assert store.get(HEADER) is None
        state.finish_flush()
        header = decode_header(store.get(HEADER) or b"")
        assert (header.fingerprint, header.topic, header.sequence) == ("f", "in", 1)
        assert header.vector == {0: 3, 1: 0}
        assert header.dedupe == {0: [0, 3, 102]}
        assert header.entities == {"card": 1, "merchant": 3}
        keys = [key for key, _ in store.scan(b"")]
        assert keys[0] == HEADER
        assert sum(key[0] == ENTITIES_FIRST for key in keys) == 1
        assert sum(key[0] == ENTITIES_FIRST + 1 for key in keys) == 3


# --- the rules that state was made under -----------------------------------------------------------------------


def _fingerprint(extra: str = "", rates: str = "", **changes: str) -> str:
    text = small_config(extra)
    for name, value in changes.items():
        msgspec.structs.force_setattr(text.state, name, value)
    return state_fingerprint(text, rates)


@pytest.mark.parametrize(
    ("extra", "rates"),
    [
        ("[mapping.fields]\ncard = 'pan'", ""),
        ("[mapping.fields]\ncity = 'town'", ""),
        ("[entities.ip]\nwindows = ['1h']\naggregates = ['count']", ""),
        ("[entities.ip]\nwindows = ['1h']\naggregates = ['distinct.card']", ""),
        ("[rates]\nbase_currency = 'USD'", ""),
        ("", "other rates"),
    ],
)
def test_what_decides_what_is_stored_changes_the_state_fingerprint(extra: str, rates: str) -> None:
    assert _fingerprint(extra, rates) != _fingerprint()


def test_rules_of_acceptance_change_the_state_fingerprint() -> None:
    changed = [
        _fingerprint(ring_events_max=8),
        _fingerprint(dedupe_horizon="1h"),
        _fingerprint(dedupe_entries_max=5_000),
    ]
    assert len({_fingerprint(), *changed}) == 4


def test_windows_and_aggregates_over_stored_columns_leave_the_state_fingerprint_alone() -> None:
    def fingerprint(windows: str, aggregates: str) -> str:
        return _fingerprint(f"[entities.ip]\nwindows = {windows}\naggregates = {aggregates}")

    assert fingerprint("['1h']", "['count']") == fingerprint("['5m', '7d']", "['sum.amount', 'since_last']")
    assert _fingerprint(block_cache_bytes_max=2**21, dir="elsewhere") == _fingerprint()
