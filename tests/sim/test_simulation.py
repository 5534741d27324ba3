"""Two workers on a simulated cluster, in which everything goes wrong that can: nothing is lost or decided twice.

A seed that fails fails again: `scripts/simulate --seeds 1 --start SEED --trace`.
"""

import gc
import logging
from collections import Counter
from collections.abc import Iterable, Iterator

import pytest
from confluent_kafka import Message

from engine.errors import FatalError, MissingTopicError
from engine.kafka.tail import Tail
from engine.worker import MISSING_S
from tests.provenance import commit
from tests.sim.planted import AT_LEAST_ONCE, EXACTLY_ONCE, Planted, abort_asked_twice, progress_end_after_commit
from tests.sim.run import RATES, Outcome, Simulation
from tests.sim.session import CONCURRENT_RETRY_S

FEW, MANY, SHARES = 10, 200, 10
REPEATED = (0, 7)
# A planted bug is found by one of so many seeds.
BUG_SEEDS = 60


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """A worker has much to say about what goes wrong."""
    # Not `logging.disable`: a broken connection is heard of in a producer's own log.
    logger = logging.getLogger("tidegate")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(before)


def run(seed: int, delivery: str) -> Outcome:
    try:
        outcome = Simulation(seed, delivery).run()
        gc.collect()  # dead processes are cycles of large arrays
    except Exception as error:
        error.add_note(f"seed {seed}, {delivery}, commit {commit()}")
        raise
    assert outcome.problems == [], f"seed {seed}, {delivery}, commit {commit()}"
    return outcome


@pytest.mark.parametrize("delivery", ["exactly_once", "at_least_once"])
def test_a_few_runs(delivery: str) -> None:
    outcomes = [run(seed, delivery) for seed in range(FEW)]
    ended = sum((outcome.ended for outcome in outcomes), Counter[str]())
    assert ended["crashed"] > FEW
    assert ended["stopped"] == 2 * FEW
    assert sum(outcome.commits for outcome in outcomes) > 5 * FEW


@pytest.mark.slow
@pytest.mark.parametrize("share", range(SHARES))
def test_many_runs(share: int) -> None:
    for seed in range(FEW + share, FEW + MANY, SHARES):
        run(seed, "exactly_once")


@pytest.mark.slow
def test_many_runs_at_least_once() -> None:
    for seed in range(FEW, FEW + MANY // 4):
        run(seed, "at_least_once")


@pytest.mark.parametrize("seed", REPEATED)
def test_the_same_seed_gives_the_same_run(seed: int) -> None:
    first, again = run(seed, "exactly_once"), run(seed, "exactly_once")
    assert first == again
    assert first.trace_hash != run(seed + 1, "exactly_once").trace_hash


def standing_still(seed: int, commits: int) -> Simulation:
    """Nothing goes wrong, but that each worker stands still once, right after so many commits."""
    simulation = Simulation(seed, rates=dict.fromkeys(RATES, 0.0))
    for process in ("a1", "b1"):
        simulation.cluster.faults.force("stall", f"{process} commit_transaction done", commits)
    return simulation


def problems(simulations: Iterable[Simulation]) -> Iterator[str]:
    for simulation in simulations:
        try:
            yield from simulation.run().problems
        except FatalError as error:
            yield str(error)


def problems_of_standing_still() -> Iterator[str]:
    return problems(standing_still(seed, commits) for seed in range(3) for commits in range(6))


def test_a_worker_stands_still_after_a_commit() -> None:
    assert list(problems_of_standing_still()) == []


def test_what_is_looked_up_after_a_commit_may_be_a_successors(monkeypatch: pytest.MonkeyPatch) -> None:
    progress_end_after_commit(monkeypatch)
    assert any("records are missing" in problem for problem in problems_of_standing_still())


def late_abort(commits: int, late_s: float) -> Simulation:
    """Nothing goes wrong, but that after so many commits one is overtaken, and its abort arrives so much too late."""
    simulation = Simulation(0, rates=dict.fromkeys(RATES, 0.0), late_s=late_s)
    faults = simulation.cluster.faults
    faults.random.uniform = lambda _, longest: longest  # type: ignore[method-assign]
    for process in ("a1", "b1"):
        faults.force("overtaken", f"{process} TxnOffsetCommit", commits)
        faults.force("late request", f"{process} EndTxn abort")
    return simulation


def problems_of_late_aborts() -> Iterator[str]:
    # An abort that is asked for again is answered, and the next transaction begun, after one retry and some requests:
    # what arrives then, between outputs and offsets, takes the outputs along.
    late_s = [CONCURRENT_RETRY_S + tenths_ms / 10_000 for tenths_ms in range(10, 60, 5)]
    return problems(late_abort(commits, seconds) for seconds in late_s for commits in (0, 2, 4))


def test_an_abort_arrives_late() -> None:
    assert list(problems_of_late_aborts()) == []


def test_an_abort_that_is_asked_for_again_ends_the_next_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    abort_asked_twice(monkeypatch)
    assert any("missing" in problem for problem in problems_of_late_aborts())


@pytest.mark.parametrize("skipped", [0, 4, 9])
def test_what_was_decided_in_vain_is_not_counted(skipped: int) -> None:
    """Nothing goes wrong, but that an output cannot be delivered: then all is decided again that was not committed."""
    simulation = Simulation(0, rates=dict.fromkeys(RATES, 0.0))
    for process in ("a1", "b1"):
        simulation.cluster.faults.force("failed produce", f"{process} Produce decisions-", skipped)
    outcome = simulation.run()
    assert outcome.problems == []
    assert outcome.counted == outcome.decisions > 100


def unknown_progress(monkeypatch: pytest.MonkeyPatch, seconds: float) -> Simulation:
    """Nothing goes wrong, but that for so long nobody knows of the topic `progress`."""
    simulation = Simulation(0, rates=dict.fromkeys(RATES, 0.0))
    poll = Tail.poll

    def unknown(tail: Tail, timeout_s: float) -> list[Message]:
        if tail.topic == "progress" and 10.0 < simulation.cluster.clock.now_s < 10.0 + seconds:
            raise MissingTopicError("topic 'progress' does not exist")
        return poll(tail, timeout_s)

    monkeypatch.setattr(Tail, "poll", unknown)
    return simulation


def test_a_topic_may_be_unknown_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = unknown_progress(monkeypatch, MISSING_S / 2).run()
    assert outcome.problems == []
    assert outcome.ended == {"stopped": 2}


def test_a_topic_that_stays_unknown_ends_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = unknown_progress(monkeypatch, MISSING_S * 2)
    with pytest.raises(MissingTopicError):
        simulation.run()
    assert simulation.cluster.clock.now_s > 10.0 + MISSING_S


CASES = [("exactly_once", planted) for planted in EXACTLY_ONCE] + [
    ("at_least_once", planted) for planted in AT_LEAST_ONCE
]


@pytest.mark.slow
@pytest.mark.parametrize(("delivery", "planted"), CASES, ids=[f"{p.bug.__name__}-{delivery}" for delivery, p in CASES])
def test_a_planted_bug_is_found(delivery: str, planted: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    planted.bug(monkeypatch)
    for seed in range(BUG_SEEDS):
        gc.collect()
        try:
            found = Simulation(seed, delivery, planted.rates).run().problems
        except Exception as error:  # noqa: BLE001 - whatever a bug leads to shows it
            found = [repr(error)]
        if found:
            return
    pytest.fail(f"{BUG_SEEDS} seeds did not find it")
