"""One run: the plan is driven, what comes back is counted, and the worker's own numbers are noted beside it."""

import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass

import numpy as np

from loadtest.columns import Int64, id_prefix
from loadtest.driver import Driver, Load, Progress
from loadtest.measure import Tally
from loadtest.plan import Plan
from loadtest.reader import Reader
from loadtest.run.outcome import (
    CURVE,
    Outcome,
    attacks_of,
    by_second,
    machine,
    own_figures,
    percentiles_ms,
    versions,
)
from loadtest.run.profile import Profile
from loadtest.run.scrape import Sample, Scraper
from loadtest.run.stage import Target
from loadtest.settings import TrafficSettings

TURN_S = 0.2
SWITCH_INTERVAL_S = 0.0005
# Given up once nothing has come back for so long although events are open: longer than a standby takes to take over.
SETTLE_DEADLINE_S = 30.0
SAY_EVERY_S = 10.0
EVENTS_QUEUED_KBYTES = 65_536

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """What is run: a profile by its name, and its seed."""

    name: str
    profile: Profile
    seed: int | None


def run(asked: Asked, target: Target, say: Say) -> Outcome:
    """Drives the profile's plan against what is ready at `target`; LoadTestError where it could not be measured."""
    profile, plan = asked.profile, asked.profile.planned()
    traffic = profile.settings(asked.seed, time.time_ns() // 1_000_000)
    tally = Tally(lambda key: key, id_prefix(traffic.run))
    client = {"bootstrap.servers": target.bootstrap}
    reading = {
        **client,
        "isolation.level": profile.isolation,
        "fetch.queue.backoff.ms": 10,
        "queued.max.messages.kbytes": EVENTS_QUEUED_KBYTES,
    }
    with ExitStack() as parts:
        parts.enter_context(_undisturbed())
        load = Load(traffic, plan, target.input, {**client, "linger.ms": profile.linger_ms})
        driver = parts.enter_context(Driver(load))
        topics = (target.decisions, target.alerts, target.dead_letters)
        reader = parts.enter_context(closing(Reader(reading, *topics, tally, from_end=True)))
        scraper = parts.enter_context(Scraper(target.metrics)) if target.metrics is not None else None
        _drive(driver, reader, tally, target, scraper, say)
    progress, samples = driver.progress, [] if scraper is None else scraper.samples
    return outcome(asked, traffic, plan, target, progress, tally, samples)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """What the interpreter does for itself would hold up the reader, and count as latency."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.disable()  # what a run keeps has no cycles
    try:
        yield
    finally:
        gc.enable()


def _drive(driver: Driver, reader: Reader, tally: Tally, target: Target, scraper: Scraper | None, say: Say) -> None:
    """Until every event is settled, or nothing has come for too long."""
    everything_is_there = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(reader.run, driver.truths, everything_is_there)
        try:
            driver.begin()
            _settle(driver.progress, tally, reading, target, scraper, say)
        finally:
            everything_is_there.set()
        reading.result()


def _settle(
    progress: Progress, tally: Tally, reading: Future[None], target: Target, scraper: Scraper | None, say: Say
) -> None:
    open_before, progressed_at, said_at = -1, time.monotonic(), time.monotonic()
    while True:
        wait([reading], TURN_S)
        if reading.done():
            reading.result()
        target.check()
        if scraper is not None:
            scraper.check()
        now = time.monotonic()
        still_open = progress.to_decide - tally.decided + progress.poison - tally.dead_letters
        if now - said_at >= SAY_EVERY_S:
            said_at = now
            say(f"{progress.events:,} sent, {still_open:,} open, p99 of late {tally.recent_p99_ms():,.0f} ms")
        if not progress.done or still_open != open_before:
            open_before, progressed_at = still_open, now
        if progress.done and (still_open <= 0 or now - progressed_at > SETTLE_DEADLINE_S):
            return


def outcome(
    asked: Asked,
    traffic: TrafficSettings,
    plan: Plan,
    target: Target,
    progress: Progress,
    tally: Tally,
    samples: list[Sample],
) -> Outcome:
    """The figures of what was sent and came back."""
    profile = asked.profile
    counting_ms = tally.first_due_ms + round(profile.warm_up_s * 1_000)
    due_ms, latencies_us = tally.timed()
    counted_us = latencies_us[due_ms >= counting_ms]
    ended_ms = tally.first_due_ms + round(plan.seconds * 1_000)
    counted = [one for one in samples if counting_ms <= one.time_ms <= ended_ms]
    cpu_us, stages_us = own_figures(counted)
    p50, p90, p99, p999, largest = percentiles_ms(counted_us, (50, 90, 99, 99.9, 100))
    missing = progress.to_decide - tally.decided
    return Outcome(
        profile=asked.name,
        delivery=target.delivery,
        isolation=profile.isolation,
        seed=traffic.seed,
        warm_up_s=profile.warm_up_s,
        plan=[{"seconds": one.seconds, "from": one.start, "to": one.end} for one in plan.pieces],
        sent=progress.events,
        sent_again=progress.duplicates,
        sent_broken=progress.poison,
        decided=tally.decided,
        dead_letters=tally.dead_letters,
        duplicated=tally.decided_again,
        missing=missing,
        unknown=tally.unknown,
        valid=not progress.behind,
        send_delay_ms_max=round(progress.delay_ms_max, 3),
        counted=len(counted_us),
        events_per_second=round(_per_second(due_ms, latencies_us, counting_ms), 1),
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        p999_ms=p999,
        max_ms=largest,
        cpu_us_per_event=cpu_us,
        rss_bytes_first=counted[0].rss_bytes if counted else None,
        rss_bytes_last=counted[-1].rss_bytes if counted else None,
        lag_events_max=max((one.lag_events for one in counted), default=None),
        aborts=samples[-1].aborts - samples[0].aborts if samples else None,
        stages_us_per_event=stages_us,
        alerts=tally.alerts,
        alert_precision=tally.alerts_on_attacks / tally.alerts if tally.alerts else None,
        attacks=attacks_of(tally.attacks(progress.until_ms)),
        failures=failures(progress, tally),
        machine=machine(),
        versions=versions(),
        curve_ms=curve_ms(counted_us),
        marks=profile.marks,
        seconds=by_second(due_ms, latencies_us, tally.due_ms(), counting_ms),
        samples=samples,
    )


def curve_ms(latencies_us: Int64) -> dict[str, float]:
    """Latencies by percentile, as the page draws them; empty where there are none."""
    values = percentiles_ms(latencies_us, CURVE)
    return {f"{at:g}": value for at, value in zip(CURVE, values, strict=True) if value is not None}


def _per_second(due_ms: Int64, latencies_us: Int64, counting_ms: int) -> float:
    """Decisions a second, from the first intended send time that counts to the last arrival."""
    counted = due_ms >= counting_ms
    if not counted.any():
        return 0.0
    last_ms = float(np.max(due_ms[counted] + latencies_us[counted] / 1_000))
    return int(counted.sum()) / max(last_ms - counting_ms, 1.0) * 1_000


def failures(progress: Progress, tally: Tally) -> list[str]:
    """What must not happen and did, a line each."""
    missing, broken = progress.to_decide - tally.decided, progress.poison
    claims = (
        (not progress.behind, "the generator fell behind: less was offered than planned, and the result is not valid"),
        (missing == 0, f"{missing:,} of {progress.to_decide:,} events have no decision"),
        (tally.decided_again == 0, f"{tally.decided_again:,} decisions are of events that had one already"),
        (tally.dead_letters == broken, f"{tally.dead_letters:,} dead letters came, and {broken:,} broken events went"),
        (tally.unknown == 0, f"{tally.unknown:,} decisions or alerts are of events that were never sent"),
    )
    return [text for holds, text in claims if not holds]
