"""Whatever the process of a challenger does, the worker's side drops, counts and ends, and never waits long."""

import socket
import subprocess
import sys
import textwrap
import time
from typing import Any

import numpy as np
import pytest

import engine.shadow
from engine.observe.metrics import Challenger
from engine.shadow import BATCHES_MAX, Offered, Shadow
from engine.shadow_wire import Channel, encode_seen
from tests.pipelines import event, json_of, pipeline_of, profile, records_of

GIVE_UP_S = 30.0
EVENTS = 3
BEGINNING = """
import socket, sys, time, os
from engine.shadow_wire import Channel, Failed, Loaded, Refused, Scored
connection = socket.socket(fileno=int(sys.argv[1]))
channel = Channel(connection)
task = channel.task()
"""


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Starts challengers whose process runs this code instead."""
    monkeypatch.setattr(engine.shadow, "RESTART_S", 0.05)
    monkeypatch.setattr(engine.shadow, "LOOK_S", 0.05)
    monkeypatch.setattr(engine.shadow, "CLOSE_S", 0.3)
    monkeypatch.setattr(engine.shadow, "GONE_S", GIVE_UP_S)
    shadows: list[Shadow] = []

    def make(code: str) -> Shadow:
        def start(connection: Any) -> Any:
            descriptor = connection.fileno()
            arguments = [sys.executable, "-c", BEGINNING + textwrap.dedent(code), str(descriptor)]
            return subprocess.Popen(arguments, pass_fds=(descriptor,))

        monkeypatch.setattr(engine.shadow, "_start", start)
        shadows.append(Shadow(profile(), Challenger("fraud/2")))
        return shadows[-1]

    yield make
    for shadow in shadows:
        shadow.close(time.monotonic() + 1)
        assert shadow.ended


def batch() -> Offered:
    return Offered(EVENTS, b"anything")


def until(holds: Any) -> None:
    give_up_at = time.monotonic() + GIVE_UP_S
    while not holds():
        assert time.monotonic() < give_up_at


def close_quickly(shadow: Shadow) -> None:
    began = time.monotonic()
    shadow.close(time.monotonic() + 1)
    assert shadow.ended
    assert time.monotonic() - began < 5


ANSWERS = """
channel.send(Loaded({"name": "fraud"}))
while True:
    try:
        channel._receive(None)
    except EOFError:
        sys.exit()
    channel.send(Scored(1))
"""


def test_what_it_scores_is_counted(made: Any) -> None:
    shadow = made(ANSWERS)
    until(lambda: shadow.counts.facts == {"name": "fraud"})
    shadow.offer(batch())
    until(lambda: shadow.counts.scored == EVENTS)
    assert shadow.counts.undelivered == 1
    close_quickly(shadow)
    assert (shadow.counts.facts, shadow.counts.failures) == (None, 0)


def test_while_it_loads_some_batches_wait_and_others_are_dropped(made: Any) -> None:
    shadow = made("time.sleep(1000)")
    for _ in range(BATCHES_MAX + 2):
        shadow.offer(batch())
    assert shadow.counts.dropped == 2 * EVENTS
    close_quickly(shadow)
    assert shadow.counts.dropped == (BATCHES_MAX + 2) * EVENTS


def test_who_does_not_answer_is_killed_and_started_again(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.shadow, "BATCH_S", 0.3)
    shadow = made("channel.send(Loaded({}))\ntime.sleep(1000)")
    until(lambda: shadow.counts.facts is not None)
    shadow.offer(batch())
    until(lambda: shadow.counts.failures == 1)
    assert shadow.counts.failed == EVENTS
    until(lambda: shadow.counts.facts is not None)


def test_who_does_not_even_read_is_killed(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that is larger than the socket's buffer is not waited for."""
    monkeypatch.setattr(engine.shadow, "BATCH_S", 0.3)
    shadow = made("channel.send(Loaded({}))\ntime.sleep(1000)")
    until(lambda: shadow.counts.facts is not None)
    shadow.offer(Offered(EVENTS, bytes(64 << 20)))
    until(lambda: shadow.counts.failures == 1)


def test_one_that_crashes_is_noticed_though_nothing_is_sent(made: Any) -> None:
    shadow = made("channel.send(Loaded({}))\nos._exit(3)")
    until(lambda: shadow.counts.failures >= 3)
    close_quickly(shadow)


@pytest.mark.parametrize(
    "code",
    [
        "os._exit(3)",
        "channel.send(Scored(0))\ntime.sleep(1000)",
        "connection.sendall(b'\\x00\\x00\\x00\\x02\\xc1\\xc1')\ntime.sleep(1000)",
        "connection.sendall(b'\\xff\\xff\\xff\\xff')\ntime.sleep(1000)",
    ],
    ids=["crashes", "answers_otherwise", "no_message", "far_too_long"],
)
def test_one_that_does_not_load_is_started_again(code: str, made: Any) -> None:
    shadow = made(code)
    until(lambda: shadow.counts.failures >= 2)
    assert shadow.counts.facts is None
    close_quickly(shadow)


def test_a_model_that_raises_goes_on_with_what_comes_next(made: Any, caplog: pytest.LogCaptureFixture) -> None:
    shadow = made(
        """
        channel.send(Loaded({}))
        for answer in (Failed("for a reason"), Failed("again"), Scored(0)):
            channel._receive(None)
            channel.send(answer)
        time.sleep(1000)
        """
    )
    for _ in range(3):
        shadow.offer(batch())
    until(lambda: shadow.counts.scored == EVENTS)
    assert (shadow.counts.failures, shadow.counts.failed, shadow.counts.facts) == (2, 2 * EVENTS, {})
    # One line of the log, not one for each micro-batch.
    assert caplog.text.count("a challenger has no answer") == 1


@pytest.mark.parametrize("answer", ["Loaded({})", 'Refused("now")'])
def test_one_that_answers_otherwise_is_started_again(answer: str, made: Any) -> None:
    shadow = made(f"channel.send(Loaded({{}}))\nchannel._receive(None)\nchannel.send({answer})\ntime.sleep(1000)")
    until(lambda: shadow.counts.facts is not None)
    shadow.offer(batch())
    until(lambda: shadow.counts.failures == 1)
    assert (shadow.counts.scored, shadow.counts.failed) == (0, EVENTS)


def test_one_that_is_refused_is_no_failure(made: Any, caplog: pytest.LogCaptureFixture) -> None:
    shadow = made("channel.send(Refused('for a reason'))")
    until(lambda: "a challenger is refused" in caplog.text)
    shadow.offer(batch())
    assert shadow.counts.failures == 0
    close_quickly(shadow)


def test_one_that_hangs_holds_up_no_end(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.shadow, "BATCH_S", 1000.0)
    shadow = made("channel.send(Loaded({}))\ntime.sleep(1000)")
    until(lambda: shadow.counts.facts is not None)
    shadow.offer(batch())
    close_quickly(shadow)


def test_where_there_is_no_thread_there_is_no_challenger(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_thread: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", refuse)
    shadow = Shadow(profile(), Challenger("fraud/2"))
    assert shadow.counts.failures == 1
    shadow.close(0.0)


def test_a_batch_reaches_the_other_side_as_it_was() -> None:
    pipeline = pipeline_of(profile())
    records = records_of([json_of(event(number, card=f"4000{number:012d}")) for number in range(50)])
    decoded, _ = pipeline.decoder.decode(records)
    sent = pipeline.state.accept(decoded)
    matrix = pipeline.state.features(sent)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        Channel(ours).send_encoded(encode_seen(sent, matrix))
        seen = Channel(theirs).batch()
    came, features = seen.batch(), seen.matrix()
    for name in ("values", "exact_windows", "exact_all", "missing"):
        assert np.array_equal(getattr(features, name), getattr(matrix, name), equal_nan=name == "values")
    for name in ("times_ms", "partitions", "offsets", "late"):
        assert np.array_equal(getattr(came, name), getattr(sent, name))
    assert (came.topic, came.event_ids, came.partition_keys) == (sent.topic, sent.event_ids, sent.partition_keys)
    made_by = [pipeline.champion.encoder, pipeline.champion.decider, pipeline.model.score(matrix.values)]
    encoder, decider, probabilities = made_by
    assert (
        encoder.encode_decisions(came, features, decider.decide(came, features.values, probabilities))
        == (encoder.encode(sent, matrix, decider.decide(sent, matrix.values, probabilities))[0])
    )
