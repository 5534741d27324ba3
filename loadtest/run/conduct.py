"""One load on one running engine: sends, reads, samples, waits until all is settled, and counts."""

import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import replace
from typing import Any

from loadtest.driver import CHUNK_S, LEAD_MS, Driver, Load, Progress
from loadtest.measure import Tally
from loadtest.reader import Reader
from loadtest.run.outcome import figures_of
from loadtest.run.profile import LoadProfile
from loadtest.run.sampler import Sampler
from loadtest.run.target import Endpoint, client_of

TURN_S = 0.25
SAY_EVERY_S = 5.0
SETTLE_DEADLINE_S = 15.0
SWITCH_INTERVAL_S = 0.0005
# The producer is handed what is due every millisecond or two, a batch already: to wait for more would only cost.
LINGER_MS = 0.5
# Rendered before the first event is due, about 700 bytes each.
AHEAD_EVENTS_MAX = 200_000
RENDER_US = 25


def conduct(
    profile: LoadProfile, endpoint: Endpoint, say: Callable[[str], None], stop: threading.Event
) -> dict[str, Any]:
    """Returns the figures of `outcome.figures_of`; `stop` ends it early. Raises LoadTestError."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    tally = Tally(str)
    sampler = Sampler(endpoint)
    with (
        Driver(_load(profile, endpoint)) as driver,
        closing(
            Reader(
                client_of(endpoint, profile), endpoint.decisions, endpoint.alerts, endpoint.dead_letters, tally,
                only_new=True,
            )
        ) as reader,
        ThreadPoolExecutor(1) as pool,
    ):  # fmt: skip
        driver.begin()
        sampler.start()
        ended = threading.Event()
        reading = pool.submit(reader.run, driver.truths, ended)
        try:
            _until_settled(driver, tally, endpoint, reading, say, stop)
        finally:
            sampler.stop()
            ended.set()
        reading.result()
        return figures_of(profile, driver.progress, tally, sampler.samples, endpoint.bootstrap)


def _load(profile: LoadProfile, endpoint: Endpoint) -> Load:
    # The time makes event ids unlike those of other runs with the same seed.
    traffic = replace(profile.traffic, start_time_ms=time.time_ns() // 1_000_000)
    chunk_events = max(1, round(traffic.events_per_second * CHUNK_S))
    ahead = max(2, min(AHEAD_EVENTS_MAX, profile.plan.events) // chunk_events)
    lead_ms = LEAD_MS + ahead * chunk_events * RENDER_US // 1_000
    producer = {"bootstrap.servers": endpoint.bootstrap, "linger.ms": LINGER_MS}
    return Load(traffic, profile.plan.seconds, endpoint.input, producer, profile.plan, ahead, lead_ms)


def _until_settled(
    driver: Driver, tally: Tally, endpoint: Endpoint, reading: Future[None], say: Callable[[str], None],
    stop: threading.Event,
) -> None:  # fmt: skip
    progress, said_at, open_before, progressed_at = driver.progress, 0.0, -1, 0.0
    stopped = False
    while True:
        wait([reading], TURN_S)
        if reading.done():
            reading.result()
        endpoint.check()
        now = time.monotonic()
        if now - said_at > SAY_EVERY_S:
            said_at = now
            say(f"{progress.events:,} sent  {tally.decided:,} decided  p99 {tally.recent_p99_ms():.1f} ms  "
                f"load average {os.getloadavg()[0]:.1f}")  # fmt: skip
        if stop.is_set() and not stopped:
            stopped = True
            driver.stop()
        if not progress.done:
            continue
        still_open = unsettled(progress, tally)
        if still_open != open_before:
            open_before, progressed_at = still_open, now
        if still_open <= 0 or now - progressed_at > SETTLE_DEADLINE_S:
            return


def unsettled(progress: Progress, tally: Tally) -> int:
    """Records that were sent and have neither decision nor dead letter; of repeats, none is due."""
    return progress.events - progress.duplicates - tally.decided - tally.dead_letters
