"""A load on a real broker from end to end, and what a worker that stands still costs."""

import os
import signal
import threading
from pathlib import Path

import pytest

from loadtest.run.conduct import conduct
from loadtest.run.profile import LoadProfile, parse_load_profile
from loadtest.run.target import own_target

pytestmark = pytest.mark.broker

NEVER = threading.Event()
PAUSE_S = 1.5


def profile(delivery: str, seconds: float, rate: float) -> LoadProfile:
    text = f"""
    delivery = "{delivery}"
    warm_up_s = 1.0
    partitions = 3
    plan = [{{ seconds = {seconds}, rate = {rate} }}]
    [traffic]
    duplicate_share = 0.01
    duplicate_mean_s = 0.3
    poison_share = 0.01
    """
    return parse_load_profile(text, "short")


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_every_event_of_a_short_load_is_settled(kafka_bootstrap: str, tmp_path: Path, delivery: str) -> None:
    wanted = profile(delivery, 4.0, 3_000.0)
    with own_target(wanted, kafka_bootstrap, tmp_path) as endpoint:
        figures = conduct(wanted, endpoint, lambda _: None, NEVER)
        again = conduct(wanted, endpoint, lambda _: None, NEVER)
    for found in (figures, again):
        assert found["sent"] == found["intended_events"] == 12_000
        assert (found["missing"], found["duplicated"]) == (0, 0)
        assert found["dead_letters"] == found["poison_sent"] > 0
        assert found["repeats_sent"] > 0
        assert found["decided"] == 12_000 - found["repeats_sent"] - found["poison_sent"]
        assert 0 < found["p50_ms"] <= found["p99_ms"] <= found["p999_ms"] <= found["max_ms"]
        assert found["rss_bytes_last"] > 1e7
        assert found["cpu_us_per_event"] > 0
        assert {"decode", "features", "score"} <= found["stages_us_per_event"].keys()


def test_a_worker_that_stands_still_makes_all_that_was_due_late(kafka_bootstrap: str, tmp_path: Path) -> None:
    r"""
    due      | | | | | | | | | | | | | | |
    worker   ======[ SIGSTOP  1.5 s ]=====
    latency         1.5  1.0  0.5  0        nearly a fifth of what was due in 8 s: more than one event or a hundred
    """
    wanted = profile("at_least_once", 9.0, 500.0)
    with own_target(wanted, kafka_bootstrap, tmp_path) as endpoint:
        assert endpoint.worker is not None
        pid = endpoint.worker.pid
        assert pid is not None
        thaw = threading.Timer(PAUSE_S, os.kill, (pid, signal.SIGCONT))
        said: list[str] = []

        def freeze_once(line: str) -> None:
            # Said every few seconds; the second time is in the middle of the run.
            said.append(line)
            if len(said) == 2:
                os.kill(pid, signal.SIGSTOP)
                thaw.start()

        figures = conduct(wanted, endpoint, freeze_once, NEVER)
        thaw.join()
    late_ms = PAUSE_S * 1_000
    assert figures["missing"] == figures["duplicated"] == 0
    assert figures["max_ms"] > 0.9 * late_ms
    # Of 8 s counted, 1.5 s stood still: their events waited 0.75 s on average, though Kafka took each at once.
    assert figures["curve_ms"]["90"] > 0.3 * late_ms
    assert figures["send_delay_ms_max"] < 0.5 * late_ms
