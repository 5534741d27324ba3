"""Lists and policies on a real broker: changed while workers run, and every decision found again from the topics."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner

from engine.cli import main
from engine.process import WorkerProcess
from tests.broker.application import Application, new_application, wait_for
from tests.broker.replayed import decisions_again, told
from tests.broker.rollout import send
from tests.conftest import TopicFactory

pytestmark = pytest.mark.broker

EVENTS = 3_000
FILE = {"policy__file": "policy.toml"}
BLOCK = "list.block.merchant"
POLICY = """
name = "cards"
version = "1"
challenge = 2
review = 5
decline = 900
[[rules]]
id = "busy"
when = "card.count.1h > 2 and amount > 20"
action = "review"
reason = "{card.count.1h} payments by {card} in an hour"
"""
NEXT = """
name = "cards"
version = "2"
texts = ["currency"]
[[rules]]
id = "euros"
when = "card.count.1h > 2 and currency == 'EUR'"
action = "challenge"
"""


@pytest.fixture
def application(kafka_bootstrap: str, tmp_path: Path, topic_factory: TopicFactory) -> Application:
    made = new_application(kafka_bootstrap, tmp_path, topic_factory, 2)
    (tmp_path / "policy.toml").write_text(POLICY)
    return made


def lists(application: Application, *arguments: str) -> str:
    """`tidegate lists ...`, as an operator types it."""
    options = ["--config", str(application.folder / "tidegate.toml"), "--bootstrap", application.bootstrap]
    done = CliRunner().invoke(main, ["lists", *arguments, *options], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def policy_swaps(times: int) -> Callable[[dict[str, float]], bool]:
    return lambda samples: samples["tidegate_policy_swaps_total"] == times


def merchants(application: Application) -> dict[tuple[int, int], str]:
    return {
        (message.partition(), message.offset()): orjson.loads(message.value())["merchant"]
        for message in application.read_all(application.input)
    }


def place(decision: dict[str, Any]) -> tuple[int, int]:
    return decision["source"]["partition"], decision["source"]["offset"]


def send_all(application: Application, worker: WorkerProcess, seed: int, **pace: float) -> set[tuple[int, int]]:
    """Sends a stream, and returns where it went once all of it is decided."""
    before = len(application.sent)
    send(application, EVENTS, seed=seed, **pace)
    application.wait_committed(worker)
    return {(sent.partition, sent.offset) for sent in application.sent[before:]}


def test_what_is_said_while_workers_run_decides_and_every_decision_is_found_again(application: Application) -> None:
    reason = ("--reason", "test", "--author", "ana")
    with application.worker(**FILE) as worker:
        first = send_all(application, worker, 1)
        of_merchant = merchants(application)
        busiest = Counter(of_merchant[sent] for sent in first).most_common(1)[0][0]
        lists(application, "add", "block", "merchant", busiest, *reason)
        send_all(application, worker, 2, events_per_s=3_000.0)
        worker.stop()
    assert lists(application, "show").endswith("for good: test (ana)\n1 entries\n")
    # Another worker hears what was said before its time, then what is taken back, and then another policy.
    with application.worker(**FILE) as worker:
        third = send_all(application, worker, 3)
        lists(application, "remove", "block", "merchant", busiest, *reason)
        (application.folder / "policy.toml").write_text(NEXT)
        wait_for(worker, "another policy", policy_swaps(1))
        fourth = send_all(application, worker, 4)
        worker.stop()
    assert lists(application, "show") == "0 entries\n"

    found = [told(message.value()) for message in application.read_all(application.decisions)]
    assert len(found) == len({place(decision) for decision in found}) == 4 * EVENTS
    of_merchant = merchants(application)
    blocked = {place(decision) for decision in found if BLOCK in [rule["id"] for rule in decision["rules"]]}
    assert {decision["decision"] for decision in found if place(decision) in blocked} == {"decline"}
    assert not blocked & (first | fourth)
    assert blocked & third == {sent for sent in third if of_merchant[sent] == busiest}
    assert {decision["policy"]["version"] for decision in found if place(decision) in third} == {"1"}
    assert {decision["policy"]["version"] for decision in found if place(decision) in fourth} == {"2"}

    configs = []
    for text in (POLICY, NEXT):
        (application.folder / "policy.toml").write_text(text)
        configs.append(application.config(**FILE))
    again = decisions_again(
        configs,
        application.folder / "again",
        application.read_all(application.input),
        application.read_all(application.progress),
        application.read_all(application.control),
    )
    assert {decision["decision_id"]: decision for decision in again} == {
        decision["decision_id"]: decision for decision in found
    }
