"""Challengers: they score what the champion scored, say so on a topic of their own, and can do nothing else."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from engine.process import WorkerProcess
from engine.shadow_child import NICE
from models.assignment import promoted
from tests.broker.application import GIVE_UP_S, Application
from tests.broker.outcome import judged
from tests.broker.rollout import (
    BROKEN,
    FRAGILE,
    STORE,
    application_with_store,
    challenger_processes,
    command,
    decisions,
    models_in_use,
    say,
    send,
    send_failing,
    wait_for,
)
from tests.conftest import TopicFactory

pytestmark = pytest.mark.broker

EVENTS = 2_000
WITH_ALIAS = STORE | {"models__challengers": ["fraud@challenger"]}


@pytest.fixture
def application(kafka_bootstrap: str, tmp_path: Path, topic_factory: TopicFactory) -> Application:
    return application_with_store(kafka_bootstrap, tmp_path, topic_factory)


def up(version: int) -> str:
    return f'tidegate_shadow_up{{model="fraud/{version}"}}'


def events(version: int, outcome: str) -> str:
    return f'tidegate_shadow_events_total{{model="fraud/{version}",outcome="{outcome}"}}'


def failures(version: int) -> str:
    return f'tidegate_shadow_failures_total{{model="fraud/{version}"}}'


def process_of(worker: WorkerProcess) -> int:
    (process,) = challenger_processes(worker)
    return process


def gone(process: int) -> bool:
    """Whether it has ended, though perhaps nobody has asked how."""
    try:
        return "\nState:\tZ" in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return True


def without_role(decision: dict[str, Any]) -> dict[str, Any]:
    """What a challenger with the champion's bytes has in common with it."""
    return {key: value for key, value in decision.items() if key not in ("role", "model", "decided_at")}


def test_a_challenger_scores_the_same_events_to_the_bit(application: Application) -> None:
    with application.worker(**WITH_ALIAS) as worker:
        assert command(application, "promote", "fraud/2", "--alias", "challenger").exit_code == 0
        wait_for(worker, up(2), 1)
        assert models_in_use(worker) == {"champion": "1", "challenger": "2"}
        send(application, EVENTS, events_per_s=1_000)
        application.wait_committed(worker)
        give_up_at = time.monotonic() + GIVE_UP_S
        while (samples := worker.samples())[events(2, "scored")] + samples[events(2, "dropped")] < EVENTS:
            assert time.monotonic() < give_up_at
        worker.stop()
    champion, challenger = decisions(application), decisions(application, application.shadow_decisions)
    assert {decision["role"] for decision in challenger} == {"challenger"}
    assert {decision["model"]["version"] for decision in challenger} == {"2"}
    assert all("role" not in decision for decision in champion)
    by_id = {decision["decision_id"]: without_role(decision) for decision in champion}
    assert all(without_role(decision) == by_id[decision["decision_id"]] for decision in challenger)
    # It gets what time the others leave, which may not be enough for all.
    assert len(challenger) == samples[events(2, "scored")] > EVENTS / 4


def test_a_challenger_steps_back_behind_everybody_on_the_machine(application: Application) -> None:
    with application.worker(models__challengers=["fraud/2"], **STORE) as worker:
        wait_for(worker, up(2), 1)
        process = process_of(worker)
        assert os.getpriority(os.PRIO_PROCESS, process) == NICE
        assert os.sched_getscheduler(process) == os.SCHED_IDLE
        # Where processes are grouped by session, a nice value counts only within one.
        assert os.getsid(process) == process
        autogroup = Path(f"/proc/{process}/autogroup")
        assert not autogroup.exists() or autogroup.read_text().split()[-1] == str(NICE)


def test_a_challenger_that_sleeps_is_ended_and_nobody_waits_for_it(application: Application) -> None:
    with application.worker(models__challengers=["fraud/2"], **STORE) as worker:
        wait_for(worker, up(2), 1)
        os.kill(process_of(worker), signal.SIGSTOP)
        send(application, EVENTS)
        application.wait_committed(worker)
        wait_for(worker, failures(2), 1)
        wait_for(worker, up(2), 0)
        samples = worker.samples()
        assert samples[events(2, "scored")] == 0
        assert samples[events(2, "failed")] > 0
        began = time.monotonic()
        worker.stop()
        assert time.monotonic() - began < 10
    assert judged(application, application.header().vector, **STORE) == (EVENTS, [])


def test_a_worker_ends_though_its_challenger_hangs(application: Application) -> None:
    with application.worker(models__challengers=["fraud/2"], **STORE) as worker:
        wait_for(worker, up(2), 1)
        challenger = process_of(worker)
        os.kill(challenger, signal.SIGSTOP)
        send(application, 10)
        application.wait_committed(worker)
        began = time.monotonic()
        worker.stop()
        assert time.monotonic() - began < 10
    assert gone(challenger)


def test_a_challenger_that_raises_or_crashes_harms_nobody(application: Application) -> None:
    with application.worker(models__challengers=[f"fraud/{FRAGILE}"], **STORE) as worker:
        wait_for(worker, up(FRAGILE), 1)
        send_failing(application)
        wait_for(worker, failures(FRAGILE), 1)
        # It goes on with what comes next, and then crashes on its own.
        send(application, EVENTS)
        wait_for(worker, events(FRAGILE, "failed"), 1)
        application.wait_committed(worker)
        give_up_at = time.monotonic() + GIVE_UP_S
        while (samples := worker.samples())[events(FRAGILE, "scored")] + samples[events(FRAGILE, "dropped")] < EVENTS:
            assert time.monotonic() < give_up_at
        assert samples[events(FRAGILE, "scored")] > 0
        os.kill(process_of(worker), signal.SIGKILL)
        wait_for(worker, failures(FRAGILE), 2)
        assert worker.samples()["tidegate_transaction_aborts_total"] == 0
        worker.stop()
    # To the bit what a replay without any challenger decides.
    assert judged(application, application.header().vector, **STORE) == (EVENTS + 1, [])


def test_a_challenger_that_the_gate_refuses_is_refused_once(application: Application) -> None:
    with application.worker(**WITH_ALIAS) as worker:
        say(application, promoted(None, BROKEN, "tests", "test"), "challenger")
        wait_for(worker, up(BROKEN), 0)
        give_up_at = time.monotonic() + GIVE_UP_S
        while "a challenger is refused" not in worker.log_file.read_text():
            assert time.monotonic() < give_up_at
        send(application, 10)
        application.wait_committed(worker)
        assert worker.samples()[failures(BROKEN)] == 0
        # The next command has it right.
        assert command(application, "promote", "fraud/3", "--alias", "challenger").exit_code == 0
        wait_for(worker, up(3), 1)
        assert up(BROKEN) not in worker.samples()


@pytest.mark.parametrize("stopped", [False, True])
def test_challengers_end_with_their_worker(stopped: bool, application: Application) -> None:
    with application.worker(models__challengers=["fraud/2"], **STORE) as worker:
        wait_for(worker, up(2), 1)
        challenger = process_of(worker)
        if stopped:
            os.kill(challenger, signal.SIGSTOP)
        worker.kill()
        give_up_at = time.monotonic() + GIVE_UP_S
        while not gone(challenger):
            assert time.monotonic() < give_up_at
