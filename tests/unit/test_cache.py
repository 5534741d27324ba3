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
from engine.state import header as header_module
from engine.state.cache import CHECKSUM_BYTES, KEPT_SHARE, SLOTS_SHARE, HotCache, checksum
from engine.state.damage import DamageError
from engine.state.header import FORMAT, Header, decode_header, encode_header, state_fingerprint
from engine.state.keys import ENTITY_KIND_FIRST, HEADER, entity_keys
from engine.state.local import LocalState
from engine.state.store import Store
from features.arena import CAPACITY, DIRTY, HEAD, KEY, KIND, LENGTH, NEVER, NEWEST_MS, POSITION, WORDS
from features.bits import set_bit
from features.program import COLUMNS, FACTS, PREDICATES, TABLES, Program, compile_program
from features.ring import (
    BASE_TOTAL,
    DROPPED_MS,
    FIRST_MS,
    NEWEST,
    TILES_AT,
    TIME_MS,
    TOTAL,
    UNKNOWN_MS,
    amount_of,
    bits_at,
    column_at,
    open_block,
    put_word,
    ring_words,
    row_at,
    word_of,
)
from tests.build import batch_of, small_config
from tests.memory_store import MemoryStore
from tests.oracle.events import signed
from tests.oracle.windows import Event

# As short as a ring may be, so that it soon has tiles.
RING_EVENTS_MAX = 4
BATCH_EVENTS_MAX = 3
# So few slots are left of those that a cache of the smallest size has; the tests use up to a hundred entities.
SLOTS = 44
TTL_MS = 8 * 86_400_000


def _program(columns: int = 0, predicates: int = 0, tables: int = 0) -> Program:
    """One entity with so much to store and no features."""
    facts = np.zeros((1, FACTS), np.int64)
    facts[0, [COLUMNS, PREDICATES, TABLES]] = columns, predicates, tables
    empty = np.zeros((1, 0), np.int64)
    numbers = np.arange(columns, dtype=np.int64).reshape(1, columns)
    return Program(np.ones((1, 1), np.int64), facts, numbers, numbers, np.zeros((1, predicates), np.int64),
                   np.zeros((1, 0, 6), np.int64), empty, empty)  # fmt: skip


def _bytes_for(program: Program, entities: int = 1) -> int:
    """The smallest cache in which so many entities with full blocks fit, while as much again is kept."""
    words_max = HotCache(None, program, RING_EVENTS_MAX, TTL_MS, 1 << 16).block_words_max
    return int(entities * words_max * 8 / KEPT_SHARE / (1 - SLOTS_SHARE)) + 16


def _config(events: int = BATCH_EVENTS_MAX) -> Config:
    """A cache smaller than any configuration may ask for, for batches of so many events."""
    config = small_config(ring_events_max=RING_EVENTS_MAX)
    spec = config.feature_spec()
    bytes_max = _bytes_for(compile_program(spec), events * len(spec.entities))
    msgspec.structs.force_setattr(config.state, "cache_bytes_max", bytes_max)
    return config


def _tiny_state(store: MemoryStore, config: Config | None = None) -> LocalState:
    """A state that soon has to give entities up, for want of slots."""
    config = config or _config()
    state = LocalState(config, config.feature_spec(), "f", store)
    state._cache._slots_max = SLOTS
    return state


def _roomy_state() -> LocalState:
    config = small_config(ring_events_max=RING_EVENTS_MAX)
    return LocalState(config, config.feature_spec(), "f", None)


SPEC = small_config().feature_spec()


def _event(number: int, time_ms: int, card: str | None, merchant: str | None) -> Event:
    return Event(time_ms, number, number * 7 - 40, {"card": card, "merchant": merchant, "city": "x"})


def _same(found, expected) -> None:
    assert found.values.tobytes() == expected.values.tobytes()
    assert found.exact_windows.tobytes() == expected.exact_windows.tobytes()
    assert found.exact_all.tobytes() == expected.exact_all.tobytes()
    assert found.missing.tolist() == expected.missing.tolist()


# --- giving up and reading back --------------------------------------------------------------------------------

# A few come often, so that they have tiles; the others are what has to go.
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
    store = MemoryStore()
    state, everything = _tiny_state(store), _roomy_state()
    number = unflushed = 0
    for drawn, then in batches:
        events = [_event(number + at, *rest) for at, rest in enumerate(drawn)]
        number += len(events)
        batch = batch_of(events, SPEC)
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
            state = _tiny_state(store)


@pytest.mark.parametrize("bound", ["slots", "heap"])
def test_values_stay_right_on_a_long_stream(bound: str) -> None:
    """Blocks that grow leave holes in memory, and slots stand in another order than their blocks.

    Either slots are what there are too few of, or, with many entities that have tiles, room for blocks.
    """
    config = _config(events=1)
    state, everything = LocalState(config, SPEC, "f", MemoryStore()), _roomy_state()
    if bound == "slots":
        state._cache._slots_max = SLOTS
    rng = np.random.default_rng(4)
    for number in range(2_500):
        card, merchant = rng.integers(0, 100, 2).tolist() if bound == "heap" else (rng.geometric(0.08, 2) - 1).tolist()
        batch = batch_of([_event(number, 500 * number, f"c{card}", f"m{merchant}")], SPEC)
        _same(state.features(batch), everything.features(batch))
        if number % 7 == 0:
            state.begin_flush({0: number})
        state.continue_flush(2)
    assert state.cache_misses > 2 * sum(state.entities().values())


def test_the_tiny_cache_of_these_tests_does_give_up_entities() -> None:
    state = _tiny_state(MemoryStore())
    for again in range(2):
        for number in range(40):
            state.features(batch_of([_event(40 * again + number, number, f"c{number}", f"m{number}")], SPEC))
            state.begin_flush({0: number})
    assert state.entities() == {"card": 40, "merchant": 40}
    assert state.cache_misses > 80  # more than one each: those given up were looked up again


def test_an_entity_that_was_used_lately_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    state = _tiny_state(store)
    asked: list[bytes] = []
    get_many = store.get_many
    monkeypatch.setattr(store, "get_many", lambda keys: asked.extend(keys) or get_many(keys))
    for number in range(200):
        state.features(
            batch_of([_event(number, number, "often", None), _event(number, number, f"c{number}", None)], SPEC)
        )
        state.begin_flush({0: number})
    assert len(asked) == 201
    assert len(asked) == len(set(asked))


# --- dirty entities --------------------------------------------------------------------------------------------


def _cache(store: MemoryStore | None = None) -> HotCache:
    program = _program()
    return HotCache(store, program, RING_EVENTS_MAX, TTL_MS, _bytes_for(program))


def _fill(cache: HotCache, keys: list[int], words: int = 0) -> list[int]:
    """Opens a slot for each key, with one event at the time of the key, in a block of at least so many words."""
    slots = cache.find(np.array([[key] for key in keys], np.uint64))[:, 0].tolist()
    for slot, key in zip(slots, keys, strict=True):
        top = open_block(cache.slots, slot, cache.heap, cache.heap_top, 0, 0, NEVER)
        cache.heap[row_at(cache.heap_top, 2, 0, 0) + TIME_MS] = key
        cache.slots[slot, [LENGTH, NEWEST_MS]] = 1, key
        cache.heap[cache.heap_top + WORDS] = max(top - cache.heap_top, words)
        cache.heap_top += int(cache.heap[cache.heap_top + WORDS])
    return slots


def _mark_dirty(cache: HotCache, slots: list[int]) -> None:
    for slot in slots:
        cache.slots[slot, KIND] |= DIRTY
        cache.dirty[cache.dirty_count] = slot
        cache.dirty_count += 1


def _held(cache: HotCache) -> dict[int, int]:
    """Time of the only event of each entity, by key."""
    held = {}
    for row in cache.slots[: cache.used]:
        position, capacity, head = row[[POSITION, CAPACITY, HEAD]].tolist()
        held[int(row[KEY])] = int(cache.heap[row_at(position, capacity, head, 0) + TIME_MS])
    return held


@pytest.mark.parametrize("bound", ["slots", "heap"])
def test_room_is_made_from_clean_entities_only(bound: str) -> None:
    cache = _cache()
    words = 0
    if bound == "slots":
        cache._slots_max = SLOTS
    else:
        words = len(cache.heap) // 40
    clean, dirty = list(range(1, 21)), list(range(101, 109))
    _fill(cache, clean[:10], words)
    _mark_dirty(cache, _fill(cache, dirty, words))
    _fill(cache, clean[10:], words)
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


def test_a_block_that_has_grown_past_the_others_is_moved_after_them() -> None:
    """Its slot is the first, its block the last:  [old block of 1][2][3][block of 1      ]"""
    cache = _cache()
    slot = _fill(cache, [1, 2, 3])[0]
    old, small, large = cache.slots[slot, POSITION], ring_words(2, 0, 0), ring_words(8, 0, 0)
    top = cache.heap_top
    cache.heap[top : top + large] = cache.heap[old : old + large]
    cache.heap[top + WORDS] = large
    cache.slots[slot, [POSITION, CAPACITY]] = (top, 8)
    cache.heap_top += large
    cache.make_room(1)
    assert _held(cache) == {1: 1, 2: 2, 3: 3}
    assert cache.heap_top == large + 2 * small


@pytest.mark.parametrize("bound", ["slots", "heap"])
def test_dirty_entities_that_fill_the_cache_end_the_run(bound: str) -> None:
    cache = _cache()
    cache._slots_max = SLOTS
    keys, words = list(range(1, SLOTS + 1)), 0
    if bound == "heap":
        keys, words = keys[:10], len(cache.heap) // 19
    _mark_dirty(cache, _fill(cache, keys, words))
    assert not cache.has_room(1)
    with pytest.raises(FatalError, match=r"state\.cache_bytes_max is too small for the entities that changed"):
        cache.make_room(1)
    assert _held(cache) == {key: key for key in keys}


def test_a_stream_of_new_entities_never_fills_the_cache_where_dirty_ones_are_flushed_in_time() -> None:
    """Even the smallest blocks: their slots count against the budget too."""
    config = parse_config(
        '[entities.card]\nwindows = ["1h"]\naggregates = ["count"]\n[state]\nring_events_max = 4', Path(), {}
    )
    spec = config.feature_spec()
    bytes_max = _bytes_for(compile_program(spec))
    msgspec.structs.force_setattr(config.state, "cache_bytes_max", bytes_max)
    msgspec.structs.force_setattr(config.state, "dirty_bytes_max", bytes_max // 4)
    state = LocalState(config, spec, "f", MemoryStore())
    entities = 4 * state._cache._slots_max
    for number in range(entities):
        state.features(batch_of([_event(number, number, f"c{number}", None)], spec))
        flush_when_full(state, config)
    assert state.entities() == {"card": entities}


def test_a_batch_never_takes_more_than_the_room_that_was_made_for_it() -> None:
    """An entity is read back into a block that fits and may outgrow it with the next event, whatever it held."""
    config = small_config(ring_events_max=16)
    for length in (*range(17), 40, 90):
        store = MemoryStore()
        state = LocalState(config, SPEC, "f", store)
        for number in range(length):
            state.features(batch_of([_event(number, 10_000 * number, "a", f"b{number % 50}")], SPEC))
        state.begin_flush({0: length})
        state.finish_flush()
        again = LocalState(config, SPEC, "f", store)
        again._cache.find(batch_of([_event(length, 10_000 * length, "a", "b0")], SPEC).words)
        before = again._cache.heap_top
        assert before <= 2 * again._cache.block_words_max, f"{length} events on disk"
        again.features(batch_of([_event(length, 10_000 * length, "a", "b0")], SPEC))
        assert again._cache.heap_top - before <= 2 * again._cache.block_words_max, f"{length} events on disk"


def test_no_block_outgrows_what_a_block_can_have_at_most() -> None:
    """A card with a table of as many merchants as go into one, and then cells, and tiles of all ages."""
    state = _roomy_state()
    rng = np.random.default_rng(8)
    times_ms = np.sort((8 * 86_400_000 * (1 - rng.random(3_000) ** 4)).astype(np.int64)).tolist()
    for start in range(0, 3_000, 100):
        events = [_event(n, times_ms[n], "a", f"m{n % 1_500}") for n in range(start, start + 100)]
        state.features(batch_of(events, SPEC))
        cache = state._cache
        slots = cache.slots[: cache.used]
        assert cache.heap[slots[:, POSITION] + WORDS].max() <= cache.block_words_max


# --- blobs of rings --------------------------------------------------------------------------------------------

# Those of entities with tiles are in test_blob.

INT64 = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([0, -1, 1, -(2**63), 2**63 - 1, NEVER, 10**13, -(10**13)]),
)
BLOCK_AT = 5


class Ring(msgspec.Struct, frozen=True):
    """What a blob keeps of an entity without tiles. `events`: time, amount, words of columns, flags of predicates."""

    events: list[tuple[int, int, tuple[int, ...], tuple[bool, ...]]]
    columns: int
    predicates: int
    dropped_ms: int = NEVER
    unknown_ms: int = NEVER


@st.composite
def _rings(draw: st.DrawFn) -> tuple[Ring, int]:
    """A ring, which need not make sense, and where in its block it begins."""
    columns, predicates = draw(st.integers(0, 2)), draw(st.integers(0, 2))
    event = st.tuples(INT64, INT64, st.tuples(*[INT64] * columns), st.tuples(*[st.booleans()] * predicates))
    events = draw(st.lists(event, min_size=1, max_size=16))
    return Ring(events, columns, predicates, draw(INT64), draw(INT64)), draw(st.integers(0, 15))


def _ring_cache(columns: int, predicates: int) -> HotCache:
    """A cache with an empty slot for one entity."""
    cache = HotCache(None, _program(columns, predicates), 16, TTL_MS, 1 << 18)
    cache.heap[:] = 77
    cache.find(np.ones((1, 1), np.uint64))
    cache.heap_top = BLOCK_AT
    return cache


def _packed(ring: Ring, head: int = 0) -> bytes:
    cache = _ring_cache(ring.columns, ring.predicates)
    capacity = max(2, 1 << (len(ring.events) - 1).bit_length())
    head %= capacity
    heap, at, total = cache.heap, BLOCK_AT, 12_345
    heap[at + WORDS], heap[at + TILES_AT], heap[at + BASE_TOTAL] = (
        ring_words(capacity, ring.columns, ring.predicates),
        0,
        total,
    )
    heap[at + DROPPED_MS], heap[at + UNKNOWN_MS] = ring.dropped_ms, ring.unknown_ms
    heap[bits_at(at, capacity, ring.columns, 0) : at + heap[at + WORDS]] = 0
    for place, (time_ms, amount, words, holds) in enumerate(ring.events):
        row, physical = row_at(at, capacity, head, place), (head + place) % capacity
        total = signed((total + amount) % 2**64)
        heap[row + TIME_MS], heap[row + TOTAL] = time_ms, total
        for column, word in enumerate(words):
            put_word(heap, column_at(at, capacity, column), capacity, physical, word)
        for predicate in np.flatnonzero(holds).tolist():
            set_bit(heap, bits_at(at, capacity, ring.columns, NEWEST + ring.columns + predicate), physical)
    cache.slots[0, [POSITION, CAPACITY, HEAD, LENGTH]] = (at, capacity, head, len(ring.events))
    cache.slots[0, NEWEST_MS] = ring.events[-1][0]
    (blob,) = cache.pack(np.zeros(1, np.int64))
    return blob


def _unpacked(blob: bytes, columns: int, predicates: int) -> Ring | None:
    """What a blob says; None where it is refused."""
    cache = _ring_cache(columns, predicates)
    try:
        cache.read_back([blob], np.zeros(1, np.int64))
    except FatalError:
        return None
    heap = cache.heap
    position, capacity, head, length = cache.slots[0, [POSITION, CAPACITY, HEAD, LENGTH]].tolist()
    assert (position, head) == (BLOCK_AT, 0)
    assert cache.heap_top == BLOCK_AT + heap[position + WORDS] == BLOCK_AT + ring_words(capacity, columns, predicates)
    events = []
    for place in range(length):
        time_ms = int(heap[row_at(position, capacity, 0, place) + TIME_MS])
        words = tuple(
            int(word_of(heap, column_at(position, capacity, column), capacity, place)) for column in range(columns)
        )
        bits = (bits_at(position, capacity, columns, NEWEST + columns + predicate) for predicate in range(predicates))
        holds = tuple(bool(heap[at] >> place & 1) for at in bits)
        events.append((time_ms, int(amount_of(heap, position, capacity, 0, place)), words, holds))
    assert heap[position + FIRST_MS] == events[0][0]
    return Ring(events, columns, predicates, int(heap[position + DROPPED_MS]), int(heap[position + UNKNOWN_MS]))


@given(_rings())
def test_a_ring_outlasts_packing(drawn) -> None:
    ring, head = drawn
    assert _unpacked(_packed(ring, head), ring.columns, ring.predicates) == ring


@given(_rings())
def test_a_blob_depends_on_the_events_and_not_on_where_the_ring_begins(drawn) -> None:
    ring, head = drawn
    assert _packed(ring, head) == _packed(ring)


def test_several_entities_are_packed_as_each_alone() -> None:
    state = _roomy_state()
    for number in range(30):
        state.features(batch_of([_event(number, number, f"c{number % 5}", f"m{number % 3}")], SPEC))
    cache = state._cache
    every = np.arange(cache.used)[::-1].copy()
    assert cache.pack(every) == [blob for slot in every.tolist() for blob in cache.pack(np.array([slot]))]
    assert cache.pack(every[:0]) == []


# --- damage ----------------------------------------------------------------------------------------------------

SAMPLE = Ring([(1_735_689_600_000 + 1000 * at, 1234 * at, (2**62 - at, -at), (at == 2,)) for at in range(4)], 2, 1)
SOUND = _packed(SAMPLE)
BODY = SOUND[:-CHECKSUM_BYTES]
# version, newest time in six bytes, what follows, length
HAS_AT, LENGTH_AT = 7, 8


def _sealed(body: bytes) -> bytes:
    """A blob whose checksum is right."""
    return body + checksum(body)


def _read_back(blob: bytes) -> None:
    """Looks an entity up whose stored blob is this one."""
    store = MemoryStore()
    key = np.array([7], np.uint64)
    store.rows[entity_keys(np.zeros(1, np.int64), key)[0]] = blob
    cache = HotCache(store, _program(SAMPLE.columns, SAMPLE.predicates), RING_EVENTS_MAX, TTL_MS, 1 << 18)
    cache.find(key.reshape(1, 1))


def test_the_sound_blob_is_read_back() -> None:
    assert (BODY[HAS_AT], BODY[LENGTH_AT]) == (0, 2 * 4)
    _read_back(SOUND)
    assert _unpacked(SOUND, SAMPLE.columns, SAMPLE.predicates) == SAMPLE


@pytest.mark.parametrize(
    "body",
    [
        b"",
        BODY[:1],
        BODY[:HAS_AT],
        bytes([99]) + BODY[1:],
        BODY + b"\0",
        BODY[:-1],
        BODY[:LENGTH_AT] + bytes([2 * 3]) + BODY[LENGTH_AT + 1 :],
        BODY[:LENGTH_AT] + bytes([2 * 0]) + BODY[LENGTH_AT + 1 :],
        BODY[:LENGTH_AT] + bytes([2 * 4 + 1]) + BODY[LENGTH_AT + 1 :],
        BODY[:LENGTH_AT] + bytes([2 * (RING_EVENTS_MAX + 1)]) + BODY[LENGTH_AT + 1 :],
        BODY[:LENGTH_AT] + b"\xff" * 30,
        BODY[:LENGTH_AT] + b"\xff" * 9 + b"\x01",
        BODY[:LENGTH_AT] + bytes([128 + 2 * 4]) + b"\x80" * 9 + b"\0" + BODY[LENGTH_AT + 1 :],
        _packed(msgspec.structs.replace(SAMPLE, columns=1))[:-CHECKSUM_BYTES],
        _packed(msgspec.structs.replace(SAMPLE, predicates=0))[:-CHECKSUM_BYTES],
    ],
    ids=["empty", "version alone", "cut before the length", "version", "longer", "shorter", "fewer", "none", "negative",
         "more", "endless number", "huge length", "long number", "column missing", "predicate missing"],
)  # fmt: skip
def test_a_blob_that_was_not_packed_for_these_columns_is_refused(body: bytes) -> None:
    """Whatever its checksum says."""
    with pytest.raises(FatalError, match="state of entity 0000000000000007 is damaged"):
        _read_back(_sealed(body))


def test_a_torn_blob_is_refused() -> None:
    for length in range(len(SOUND)):
        with pytest.raises(FatalError, match="is damaged"):
            _read_back(SOUND[:length])


@given(st.integers(0, len(SOUND) - 1), st.integers(1, 255))
def test_a_flipped_byte_is_refused(at: int, flip: int) -> None:
    assert (
        _unpacked(SOUND[:at] + bytes([SOUND[at] ^ flip]) + SOUND[at + 1 :], SAMPLE.columns, SAMPLE.predicates) is None
    )


def test_a_ring_longer_than_any_could_be_is_refused() -> None:
    """More room than that was not made for it."""
    events = [SAMPLE.events[at % 4] for at in range(RING_EVENTS_MAX + 1)]
    with pytest.raises(FatalError, match="is damaged"):
        _read_back(_packed(msgspec.structs.replace(SAMPLE, events=events)))


@given(st.binary(max_size=80), st.integers(0, 3), st.integers(0, 2), st.integers(0, 2))
def test_bytes_of_any_kind_are_refused_or_read_within_bounds(
    data: bytes, has: int, columns: int, predicates: int
) -> None:
    read = _unpacked(_sealed(BODY[:HAS_AT] + bytes([has]) + data), columns, predicates)
    assert read is None or len(read.events) <= len(data)
    assert _unpacked(data, columns, predicates) is None


# --- the header ------------------------------------------------------------------------------------------------


def test_the_header_outlasts_encoding() -> None:
    header = Header(
        "abc", "cluster", "in", "topic", 7, (0, 64), {0: 2**62, 11: 0}, 5, 9, {0: [1, 2, NEVER]}, {"card": 3},
        first_ms=-5, newest_ms=2**61, cold_ms=-6, forgotten_ms=NEVER, loaded=True,
    )  # fmt: skip
    assert decode_header(encode_header(header)) == header
    assert decode_header(encode_header(Header("abc"))) == Header("abc")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": FORMAT + 1}, f"format {FORMAT + 1}, this version reads {FORMAT}"),
        ({"vector": "none"}, "of another format"),
        ({"no_such_field": 1}, "of another format"),
        ({"fingerprint": None}, "of another format"),
        ({"newest_ms": 0.5}, "of another format"),
    ],
)
def test_a_header_of_another_format_is_refused(change: dict[str, object], said: str) -> None:
    fields = {**msgspec.json.decode(encode_header(Header("abc"))), **change}
    with pytest.raises(ConfigError, match=said):
        decode_header(msgspec.json.encode(fields))


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b'{"fingerprint": "\xff"}'])
def test_a_damaged_header_is_refused(data: bytes) -> None:
    with pytest.raises(DamageError, match="the state header is damaged"):
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
        assert (header.first_ms, header.newest_ms, header.cold_ms, header.forgotten_ms) == (100, 102, NEVER, NEVER)
        keys = [key for key, _ in store.scan(b"")]
        assert keys[0] == HEADER
        assert sum(key[0] == ENTITY_KIND_FIRST for key in keys) == 1
        assert sum(key[0] == ENTITY_KIND_FIRST + 1 for key in keys) == 3


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


def _stored(aggregates: str, mapping: str = "", predicates: str = "") -> str:
    """The fingerprint of a card with these aggregates."""
    text = f"""
        [mapping]
        currency = {{ default = "EUR" }}
        {mapping}
        [predicates]
        {predicates}
        [entities.card]
        windows = ["1h"]
        aggregates = {aggregates}
        """
    return state_fingerprint(parse_config(text, Path(), environment={}), "")


LOCATED = 'location = { latitude = "lat", longitude = "lon" }'


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("['count.p']", "", "p = 'amount < 2'"), ("['count.p']", "", "p = 'amount < 3'")),
        (("['count.p']", "", "p = 'amount < 2'"), ("['count']", "", "p = 'amount < 2'")),
        (("['distinct.city.p']", "", "p = 'amount < 2'"), ("['distinct.city.p']", "", "p = 'amount < 3'")),
        (("['distinct.city.p']", "", "p = 'amount < 2'"), ("['distinct.city']", "", "p = 'amount < 2'")),
        (("['count.p']", "", "p = 'x == \"1\"'"), ("['count.p']", "fields = { x = 'y' }", "p = 'x == \"1\"'")),
        (("['count.p']", "numbers = ['x']", "p = 'x == 1'"), ("['count.p']", "", "p = 'x == \"1\"'")),
        (("['distinct.x']",), ("['distinct.x']", "numbers = ['x']")),
        (("['last.x']", "numbers = ['x']"), ("['last.x']", "numbers = ['x']\nfields = { x = 'y' }")),
        (("['count']", LOCATED), ("['geo_speed']", LOCATED)),
        (("['geo_speed']", LOCATED), ("['geo_speed']", f"{LOCATED}\nfields = {{ lat = 'y' }}")),
    ],
    ids=["predicate", "a predicate's sums", "column where it holds", "column", "its field", "field by type",
         "number", "number's field", "location", "location's field"],
)  # fmt: skip
def test_what_is_stored_of_predicates_numbers_and_places_changes_the_state_fingerprint(one, other) -> None:
    assert _stored(*one) != _stored(*other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("['count.p']", "", "p = 'amount < 2'"), ("['count.q']", "", "q = 'amount<2'")),
        (("['count.p']", "", "p = 'amount < 2'"), ("['sum.amount.p', 'count']", "", "p = 'amount < 2'")),
        (("['count']",), ("['count']", "numbers = ['x']", "p = 'x < 2'")),
        (("['last.x']",), ("['is_new.x', 'distinct.x']",)),
        (("['count']",), ("['last.amount', 'since_first', 'rate']",)),
        (("['count']",), ("['count']", LOCATED)),
    ],
    ids=["its name", "what is kept anyway", "not used", "same column", "no column", "place not used"],
)
def test_what_is_made_of_the_same_stored_things_leaves_the_state_fingerprint_alone(one, other) -> None:
    assert _stored(*one) == _stored(*other)


def test_other_tiles_change_the_state_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    before = _fingerprint()
    monkeypatch.setattr(header_module, "LADDER", header_module.LADDER + 1)
    assert _fingerprint() != before
