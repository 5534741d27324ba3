"""The whole pipeline: how the stream is cut into batches changes no bit, nor does the order of partitions the state.

Cuts, one order of events (a, b from one partition; A, B from another; x poison; a' the same id again):

    a A x b a' B   =   a | A x | b a' B   =   a | A | x | b | a' | B
"""

import itertools
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.decode import Decoder
from engine.emit import Message
from engine.events import DeadLetter
from engine.pipeline import Pipeline
from engine.state.header import decode_header
from engine.state.keys import DEDUPE, HEADER
from engine.state.local import LocalState
from features.blob import newest_of
from loadtest.render import render
from loadtest.settings import TrafficSettings
from loadtest.traffic import generate
from tests.memory_store import MemoryStore
from tests.pipelines import event, json_of, pipeline_of, profile, records_of

# Small rings overflow, and every decision has reasons.
CONFIG = profile("ring_events_max = 4", {"challenge": 1, "review": 3, "decline": 900})
SOME = settings(max_examples=80)

POISON = (
    None,
    b"",
    b"{",
    b"[1]",
    b'{"event_id": "p"}',
    json_of(event(0, amount="NaN")),
    json_of(event(0, event_time=-1)),
)
CARDS = st.sampled_from(["41", "42", "43", ...])
VALID = st.builds(
    lambda number, card, merchant, amount, late: json_of(
        event(
            number,
            card=card,
            merchant=merchant,
            amount=amount / 100,
            event_time=1_735_689_600_000 + 700 * number - late,
        )
    ),
    st.integers(0, 30),  # the number makes the id: many come twice
    CARDS,
    st.sampled_from(["m1", "m2", ...]),
    st.integers(-100, 90_000),
    st.sampled_from([0, 0, 0, 700, 120_000]),
)
VALUES = st.one_of(VALID, VALID, VALID, VALID, st.sampled_from(POISON))
STREAMS = st.lists(st.tuples(st.integers(0, 2), VALUES), min_size=4, max_size=40)
CUTS = st.lists(st.integers(0, 40), max_size=6)


@dataclass
class Outcome:
    """All that a run puts out, and what it leaves on disk."""

    decisions: list[Message]
    alerts: list[Message]
    dead_letters: list[DeadLetter]
    entities: dict[bytes, bytes]
    ids: dict[bytes, bytes]


def _with_offsets(stream: Iterable[tuple[int, bytes | None]]) -> list[tuple[int, int, bytes | None]]:
    """(partition, offset, value): offsets count up within each partition."""
    counters = {partition: itertools.count() for partition in range(3)}
    return [(partition, next(counters[partition]), value) for partition, value in stream]


def _bounds(cuts: Iterable[int], count: int) -> list[int]:
    """Where batches of so many records begin and end."""
    return sorted({0, count, *(cut % count for cut in cuts if count)})


def _pipeline(store: MemoryStore) -> Pipeline:
    return pipeline_of(CONFIG, store)


def _run(stream: Sequence[tuple[int, int, bytes | None]], cuts: Iterable[int], flushes: Iterable[int] = ()) -> Outcome:
    """Processes batches that end at `cuts`; flushes, bit by bit, after the batches named in `flushes`."""
    store = MemoryStore()
    pipeline = _pipeline(store)
    outcome = Outcome([], [], [], {}, {})
    bounds = _bounds(cuts, len(stream))
    for number, (start, stop) in enumerate(itertools.pairwise(bounds)):
        partitions, offsets, values = zip(*stream[start:stop], strict=True)
        outputs = pipeline.process(records_of(values, partitions, offsets))
        outcome.decisions += outputs.decisions
        outcome.alerts += outputs.alerts
        outcome.dead_letters += outputs.dead_letters
        pipeline.state.continue_flush(1)
        if number in flushes:
            pipeline.state.begin_flush({})
    pipeline.state.begin_flush({})
    pipeline.state.finish_flush()
    outcome.ids = store.under(DEDUPE)
    outcome.entities = _remembered(store)
    return outcome


def _remembered(store: MemoryStore) -> dict[bytes, bytes]:
    """The entities that are not forgotten: when the others are deleted is all the same."""
    forgotten_ms = decode_header(store.rows[HEADER]).forgotten_ms
    return {
        key: value
        for key, value in store.rows.items()
        if key[:1] not in (HEADER, DEDUPE) and newest_of(np.frombuffer(value, np.uint8)) > forgotten_ms
    }


def _accounts_for(outcome: Outcome, stream: Sequence[tuple[int, int, bytes | None]]) -> None:
    """No record is both decided and a dead letter, and each outcome has a record of its own."""
    assert len(outcome.decisions) + len(outcome.dead_letters) <= len(stream)
    places = {(letter.partition, letter.offset): letter.value for letter in outcome.dead_letters}
    assert places.items() <= {(partition, offset): value for partition, offset, value in stream}.items()


@SOME
@given(STREAMS, CUTS, st.lists(st.integers(0, 6), max_size=3))
def test_cuts_and_flushes_change_no_bit_of_what_is_decided_and_stored(drawn, cuts, flushes) -> None:
    stream = _with_offsets(drawn)
    whole = _run(stream, [])
    _accounts_for(whole, stream)
    assert _run(stream, cuts, flushes) == whole


@SOME
@given(STREAMS)
def test_events_decided_one_by_one_are_decided_as_in_a_batch(drawn) -> None:
    stream = _with_offsets(drawn)
    assert _run(stream, range(len(stream))) == _run(stream, [])


@SOME
@given(STREAMS, st.randoms(use_true_random=False), CUTS)
def test_the_state_is_that_of_the_events_however_partitions_are_interleaved(drawn, draw, cuts) -> None:
    stream = _with_offsets(drawn)
    queues = {partition: [row for row in stream if row[0] == partition] for partition in range(3)}
    order = [partition for partition, _, _ in stream]
    draw.shuffle(order)
    other = [queues[partition].pop(0) for partition in order]
    one, two = _run(stream, []), _run(other, cuts)
    assert two.entities == one.entities
    assert two.ids == one.ids
    assert _coordinates(two) == _coordinates(one)


def _coordinates(outcome: Outcome) -> set[tuple[int, int]]:
    """Which records became dead letters; the rest are decisions and duplicates, alike in both."""
    return {(letter.partition, letter.offset) for letter in outcome.dead_letters}


@SOME
@given(STREAMS, st.integers(0, 40), CUTS)
def test_a_state_that_absorbed_the_past_decides_the_rest_alike(drawn, absorbed, cuts) -> None:
    """What a replay after a restart does, output suppressed."""
    stream = _with_offsets(drawn)
    absorbed %= len(stream) + 1
    store = MemoryStore()
    pipeline = _pipeline(store)
    bounds = _bounds(cuts, absorbed)
    for start, stop in itertools.pairwise(bounds):
        partitions, offsets, values = zip(*stream[start:stop], strict=True)
        pipeline.absorb(records_of(values, partitions, offsets))
    assert pipeline.metrics.events == 0
    rest: list[Message] = []
    if absorbed < len(stream):
        partitions, offsets, values = zip(*stream[absorbed:], strict=True)
        rest = pipeline.process(records_of(values, partitions, offsets)).decisions
    whole = _run(stream, []).decisions
    assert rest == whole[len(whole) - len(rest) :]


@SOME
@given(STREAMS, CUTS)
def test_a_restart_between_batches_changes_no_bit(drawn, cuts) -> None:
    stream = _with_offsets(drawn)
    store = MemoryStore()
    pipeline = _pipeline(store)
    decisions: list[Message] = []
    bounds = _bounds(cuts, len(stream))
    for start, stop in itertools.pairwise(bounds):
        partitions, offsets, values = zip(*stream[start:stop], strict=True)
        decisions += pipeline.process(records_of(values, partitions, offsets)).decisions
        pipeline.state.begin_flush({})
        pipeline.state.finish_flush()
        pipeline.state = LocalState(CONFIG, CONFIG.feature_spec(), "rules", store)
        pipeline.decoder = Decoder(CONFIG, CONFIG.feature_spec(), None)
    assert decisions == _run(stream, []).decisions


def test_cuts_change_nothing_on_a_long_stream_with_attacks() -> None:
    """Thousands of events, batches of one to a thousand, rings that overflow, scores of every size."""
    traffic = generate(
        TrafficSettings(
            seed=3, events_per_second=50, cards=200, merchants=20, card_testing_share=0.05,
            late_share=0.05, poison_share=0.02,
        ),
        4_000,
    )  # fmt: skip
    draw = random.Random(1)
    sent = list(zip((traffic.card_numbers % 3).tolist(), render(traffic), strict=True))
    for _ in range(200):
        sent.insert(draw.randrange(len(sent)), draw.choice(sent))
    stream = _with_offsets(sent)
    whole = _run(stream, [])
    _accounts_for(whole, stream)
    assert len(whole.dead_letters) > 20
    assert len(whole.alerts) > 100
    assert len(whole.decisions) + len(whole.dead_letters) < len(stream) - 100
    cuts = set(itertools.accumulate(draw.choice([1, 7, 50, 1_000]) for _ in range(60)))
    assert _run(stream, cuts, range(0, 60, 5)) == whole
