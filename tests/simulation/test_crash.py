"""A worker that dies at any step is as good as one that never died: nothing lost, nothing decided in two ways.

Everything outside the worker is scripted, so each of these runs has its crash at one known step.
"""

import itertools
import random
from collections.abc import Iterator

import numpy as np
import orjson
import pytest

import engine.worker
from engine.config import Config
from engine.errors import FatalError
from engine.state.header import decode_header
from engine.state.keys import DEDUPE, HEADER
from engine.state.local import LocalState
from tests.pipelines import event, json_of, profile
from tests.simulation.kafka import Crash, Outside, Ticks, by_id, start

EVENTS = 60
CONFIG = profile("ring_events_max = 4\nflush_interval_s = 0.3", {"challenge": 1, "review": 3, "decline": 900})


def _values(seed: int, count: int = EVENTS) -> list[bytes | None]:
    """Few cards, so that every decision depends on the ones before it; some late, some twice, some poison."""
    draw = random.Random(seed)
    values: list[bytes | None] = []
    for number in range(count):
        changes = {
            "event_id": f"{seed}-{number}",
            "card": draw.choice(["41", "42", "43", ...]),
            "merchant": draw.choice(["m1", "m2"]),
            "amount": draw.randint(1, 90_000) / 100,
            "event_time": 1_735_689_600_000 + 1_000 * number - draw.choice([0, 0, 0, 120_000]),
        }
        kind = draw.random()
        if kind < 0.1:
            values.append(draw.choice([None, b"", b"{", b"[]"]))
        elif kind < 0.2 and number:
            values.append(draw.choice(values))
        else:
            values.append(json_of(event(number, **changes)))
    return values


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Ticks:
    """Commits every other turn, and a flush, in small slices, every few commits."""
    ticks = Ticks(0.06)
    monkeypatch.setattr(engine.worker, "time", ticks)
    monkeypatch.setattr(engine.worker, "FLUSH_SLICE_ENTITIES", 1)
    return ticks


def _one_partition() -> Outside:
    return Outside({0: _values(1)})


def _run(outside: Outside, config: Config = CONFIG, **settings) -> None:
    start(outside, config, **settings).run()


def _run_into_crash(outside: Outside, crash_at: int, **settings) -> None:
    outside.restart(crash_at)
    with pytest.raises(Crash):
        _run(outside, **settings)


def _state(outside: Outside) -> dict[bytes, bytes]:
    """What is on disk but for the header, whose sequence counts flushes."""
    return {key: value for key, value in outside.store.rows.items() if key != HEADER}


def _entities(outside: Outside) -> dict[bytes, bytes]:
    """The rings on disk. A segment of event ids may differ in what is forgotten."""
    return {key: value for key, value in _state(outside).items() if not key.startswith(DEDUPE)}


def _assert_same_outcome(outside: Outside, calm: Outside) -> None:
    assert by_id(outside.decisions) == by_id(calm.decisions)
    assert outside.committed == calm.committed
    assert outside.store.vector() == calm.committed
    assert _state(outside) == _state(calm)


@pytest.fixture(scope="module")
def calm() -> Iterator[Outside]:
    """The same stream without any crash."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.worker, "time", Ticks(0.06))
        patch.setattr(engine.worker, "FLUSH_SLICE_ENTITIES", 1)
        outside = _one_partition()
        _run(outside)
        yield outside


# --- without a crash -------------------------------------------------------------------------------------------


def test_the_stream_of_these_tests_has_some_of_everything(calm: Outside) -> None:
    accepted = by_id(calm.decisions)
    assert len(accepted) == len(calm.decisions)
    assert len(calm.dead_letters) > 2
    assert len(accepted) + len(calm.dead_letters) < EVENTS  # the rest are duplicates
    text = b"\n".join(accepted.values())
    for part in (b'"late_event"', b'"missing_entity"', b'"card.7d"', b'"approve"', b'"challenge"', b"unusually_high"):
        assert part in text
    steps = set(calm.steps)
    assert steps == {"poll", "produce", "deliver", "commit", "committed", "begin flush", "flush", "flushed"}
    assert calm.store.flushes >= 3


def test_offsets_are_committed_only_after_their_outputs_were_delivered(calm: Outside) -> None:
    """Once before anything is read, and then with every commit between deliveries and flushes."""
    marks = [step for step in calm.steps if step not in ("poll", "produce")]
    assert marks[:2] == ["commit", "committed"]
    for before, after in itertools.pairwise(marks):
        if after == "commit":
            assert before in ("deliver", "committed", "flushed", "begin flush", "flush")
        if after in ("begin flush", "flush"):
            assert before != "deliver"


# --- one crash, at every step ----------------------------------------------------------------------------------


def test_after_a_crash_at_any_step_the_outcome_is_the_same(calm: Outside) -> None:
    decided_again = 0
    for crash_at in range(len(calm.steps)):
        outside = _one_partition()
        _run_into_crash(outside, crash_at)
        outside.restart()
        _run(outside)
        _assert_same_outcome(outside, calm)
        decided_again += len(outside.decisions) - len(calm.decisions)
    assert decided_again > 0  # at least once, and some of these crashes fell between delivery and commit


def test_crashes_during_recovery_change_nothing_either(calm: Outside) -> None:
    draw = random.Random(7)
    for _ in range(60):
        outside = _one_partition()
        for _ in range(3):
            outside.restart(draw.randrange(len(calm.steps)))
            try:
                _run(outside)
            except Crash:
                continue
            break
        outside.restart()
        _run(outside)
        _assert_same_outcome(outside, calm)


def test_a_replay_puts_nothing_out_and_ends_where_the_commit_was(calm: Outside) -> None:
    replays = 0
    for crash_at in range(len(calm.steps)):
        outside = _one_partition()
        _run_into_crash(outside, crash_at)
        stored, committed = outside.store.vector() or {0: 0}, dict(outside.committed)
        decisions, letters = len(outside.decisions), len(outside.dead_letters)
        outside.restart()
        worker = start(outside, CONFIG)
        assert worker.recover() == committed or committed == {}
        assert (len(outside.decisions), len(outside.dead_letters)) == (decisions, letters)
        assert worker.pipeline.metrics.events == 0
        replayed = committed.get(0, 0) - stored[0]
        assert worker.pipeline.metrics.replayed_events == replayed
        replays += replayed > 0
    assert replays > 10


# --- stopping --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("polls", [1, 4, 9])
def test_a_worker_that_was_told_to_stop_leaves_nothing_to_replay_and_nothing_undone(calm: Outside, polls: int) -> None:
    outside = _one_partition()
    worker = start(outside, CONFIG)
    poll = worker.source.poll
    seen = itertools.count(1)

    def last_poll(*arguments):
        if next(seen) == polls:
            worker.stop.set()
        return poll(*arguments)

    worker.source.poll = last_poll
    worker.run()
    assert not worker.ready
    assert outside.store.vector() == outside.committed
    assert 0 < outside.committed[0] < EVENTS
    outside.restart()
    _run(outside)
    assert len(outside.decisions) == len(calm.decisions)  # nothing twice
    _assert_same_outcome(outside, calm)


def test_a_worker_that_is_told_to_stop_during_its_replay_ends_well_and_changes_nothing(calm: Outside) -> None:
    outside = _one_partition()
    _run_into_crash(outside, len(calm.steps) - 4)
    outside.store.rows.clear()
    before = (dict(outside.committed), len(outside.decisions))
    outside.restart()
    worker = start(outside, CONFIG)
    poll = worker.source.poll

    def stop_at_once(*arguments):
        worker.stop.set()
        return poll(*arguments)

    worker.source.poll = stop_at_once
    worker.run()
    assert (outside.committed, len(outside.decisions)) == before
    outside.restart()
    _run(outside)
    _assert_same_outcome(outside, calm)


# --- the state was lost ----------------------------------------------------------------------------------------


def test_a_lost_state_is_rebuilt_from_the_topic(calm: Outside) -> None:
    outside = _one_partition()
    _run_into_crash(outside, len(calm.steps) // 2)
    outside.store.rows.clear()
    outside.restart()
    _run(outside)
    _assert_same_outcome(outside, calm)


def test_a_first_start_on_a_topic_that_has_lost_its_beginning_survives_a_crash() -> None:
    """Once it reads, it needs nobody's leave to start again: what was gone before was never its own to replay."""
    whole = _values(1)
    calm = Outside({0: whole[20:]}, first={0: 20})
    _run(calm)
    for crash_at in range(calm.steps.index("poll"), len(calm.steps)):
        outside = Outside({0: whole[20:]}, first={0: 20})
        _run_into_crash(outside, crash_at)
        outside.restart()
        _run(outside)
        _assert_same_outcome(outside, calm)


def _names(decision: bytes) -> list[str]:
    names: list[str] = orjson.loads(decision)["inexact"]
    return names


@pytest.mark.parametrize("left", [30, 40], ids=["some history left", "none left"])
def test_on_accepted_cold_state_nothing_that_reaches_back_is_called_exact(left: int) -> None:
    """Offsets 0 to 40 were decided by a worker whose state is lost, and the topic begins at `left`."""
    whole = _values(1)
    outside = Outside({0: whole[left:]}, first={0: left}, committed={0: 40})
    with pytest.raises(FatalError, match="--accept-cold-state"):
        _run(outside, profile())
    _run(outside, profile(), accept_cold_state=True)
    assert len(outside.decisions) > 10
    for decision in outside.decisions:
        inexact = _names(decision)
        assert "merchant.24h" in inexact
        assert "card.7d" in inexact or b'"missing_entity"' in decision
    # What is not known ends where reading began, however long it goes on.
    first_ms = 1_735_689_600_000 + 1_000 * left
    cold_ms = decode_header(outside.store.rows[HEADER]).cold_ms
    assert first_ms <= cold_ms <= first_ms + 10_000 + profile().mapping.horizon_future_ms
    # And it stays so after a restart: the events that are missing do not come back.
    again = Outside({0: [*whole[left:], json_of(event(EVENTS, card="44"))]}, first={0: left}, committed={0: EVENTS})
    again.store.rows = dict(outside.store.rows)
    _run(again, profile())
    (decision,) = again.decisions
    assert {"card.7d", "merchant.24h"} <= set(_names(decision))


def test_cold_state_is_as_cold_as_its_coldest_partition() -> None:
    """Partition 1 lost what it held until a day after the time at which partition 0 begins.

    first record    0: *                          1:                             *
                       |-- unknown ------------------------------------------------>|  horizon_future
    """
    day = 86_400
    late = [json_of(event(day + n, card="41", event_id=f"late-{n}")) for n in range(5)]
    log = {0: _values(1)[40:], 1: late}
    outside = Outside(log, first={0: 40, 1: day}, committed={0: 40, 1: day})
    _run(outside, profile(), accept_cold_state=True, order=lambda poll: 0)
    later = [decision for decision in outside.decisions if b'"late-' in decision]
    assert len(later) == 5
    for decision in later:
        assert {"card.1m", "card.1h", "merchant.1h"} <= set(_names(decision))


# --- several partitions ----------------------------------------------------------------------------------------


def test_with_several_partitions_nothing_is_lost_and_the_state_is_the_same() -> None:
    """In which order a replay takes the partitions is not recorded yet, so that decisions may differ."""
    calm = Outside({0: _values(1), 1: _values(2), 2: _values(3, 7)})
    _run(calm)
    for crash_at in range(0, len(calm.steps), 3):
        outside = Outside(calm.log)
        _run_into_crash(outside, crash_at)
        outside.restart()
        _run(outside)
        ids = {_identity(decision) for decision in outside.decisions}
        assert ids == {_identity(decision) for decision in calm.decisions}
        assert outside.committed == calm.committed
        assert _state(outside) == _state(calm)


def _identity(decision: bytes) -> str:
    identity: str = orjson.loads(decision)["decision_id"]
    return identity


def test_a_partition_that_is_new_joins_those_that_are_replayed() -> None:
    """Whatever step the recovery dies at, the next one goes on."""
    first = Outside({0: _values(1)})
    _run_into_crash(first, 60)
    assert first.committed[0] > (first.store.vector() or {0: 0})[0]
    calm = Outside({0: _values(1), 1: _values(2)}, committed=dict(first.committed))
    calm.store.rows = dict(first.store.rows)
    _run(calm)
    for crash_at in range(20):
        outside = Outside(calm.log, committed=dict(first.committed))
        outside.store.rows = dict(first.store.rows)
        _run_into_crash(outside, crash_at)
        outside.restart()
        _run(outside)
        assert outside.committed == calm.committed
        assert _state(outside) == _state(calm)


def test_a_flush_in_the_middle_of_a_replay_keeps_the_vector_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where memory fills up, a replay writes what it has; dying after that, no partition is taken in twice.

    Dedupe would hide that for as long as it remembers, which is not long here.
    """
    config = profile("ring_events_max = 4\ndedupe_horizon = '2s'")
    calm = Outside({0: _values(1), 1: _values(2)})
    _run(calm, config)
    # One partition is up to date, the other has everything to replay.
    left = Outside({0: [], 1: _values(2)})
    _run(left, config)
    rows, committed = dict(left.store.rows), {0: EVENTS, 1: EVENTS}
    monkeypatch.setattr(LocalState, "crowded", lambda self, events: True)
    reached = set()
    for crash_at in itertools.count():
        outside = Outside(calm.log, committed=dict(committed))
        outside.store.rows = dict(rows)
        outside.restart(crash_at)
        try:
            start(outside, config).recover()
        except Crash:
            reached.add(outside.steps[-1] if outside.steps else "")
            outside.restart()
            _run(outside, config)
            assert _entities(outside) == _entities(calm)
            continue
        break
    assert "flushed" in reached


# --- what is on disk belongs to one topic ----------------------------------------------------------------------


@pytest.mark.parametrize("attribute", ["cluster_id", "topic", "topic_id"])
def test_the_state_of_another_topic_is_refused(calm: Outside, attribute: str) -> None:
    outside = Outside(calm.log, committed=dict(calm.committed))
    outside.store.rows = dict(calm.store.rows)
    worker = start(outside, CONFIG)
    setattr(worker.source, attribute, "another")
    with pytest.raises(FatalError, match=r"the state was built from topic 'in' .*name another state.dir"):
        worker.run()
    assert outside.steps == []


def test_state_that_is_ahead_of_the_committed_offsets_is_refused(calm: Outside) -> None:
    outside = Outside(calm.log, committed={0: EVENTS - 1})
    outside.store.rows = dict(calm.store.rows)
    with pytest.raises(FatalError, match=f"the state stands at offset {EVENTS}, ahead of the committed {EVENTS - 1}"):
        _run(outside)
    assert outside.steps == []
    assert _state(outside) == _state(calm)


def test_the_dedupe_entries_on_disk_are_those_of_every_accepted_event(calm: Outside) -> None:
    """One segment holds them all: hashes, then clocks."""
    (segment,) = calm.store.under(DEDUPE).values()
    assert len(np.frombuffer(segment, np.uint64)) == 2 * len(by_id(calm.decisions))
