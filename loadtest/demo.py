"""The demo: a stream with known fraud is driven through the engine, and what comes back is shown, counted and checked.

    driver (a process) --> Kafka --> engine (a process) --> Kafka --> reader (a thread) --> tally
                                                                   view (here), a few times a second <--+

Nothing here looks into the engine: it is judged by what it writes, and by the metrics that anyone can read.
"""

import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from rich.console import Console

from loadtest.driver import Driver, Load
from loadtest.figures import Figures
from loadtest.measure import Tally
from loadtest.plan import steady
from loadtest.reader import Reader
from loadtest.report import Received, Report, Sent
from loadtest.settings import TrafficSettings
from loadtest.view import screen

TURN_S = 0.5
HISTORY_S = 1.0
# A thread that waits for the interpreter, as the reader does while the view is drawn, waits no longer than this.
SWITCH_INTERVAL_S = 0.0005
# Given up once nothing has come back for so long although events are open.
SETTLE_DEADLINE_S = 15.0
DUPLICATES = 'tidegate_events_total{outcome="duplicate"}'
UNRULY = TrafficSettings(duplicate_share=0.001, poison_share=0.001, late_share=0.001)


class Worker(Protocol):
    """The engine's process, as far as the demo needs it. Every method raises where the worker has ended badly."""

    def wait_active(self, stop: threading.Event) -> None:
        """Returns once events are decided as they come, or `stop` is set."""

    def check(self) -> None:
        """Raises if it has ended."""

    def samples(self) -> dict[str, float]:
        """Its metrics, by name and labels."""

    def stop(self) -> None:
        """Lets it drain and end."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where the engine under test is: librdkafka settings, topics, what its broker bears.

    `backlog_events_max`: with more events undecided the demo stops early, because the broker would begin to lose some.
    """

    name: str
    client: Mapping[str, Any]
    input: str
    decisions: str
    alerts: str
    dead_letters: str
    linger_ms: float
    backlog_events_max: int | None


def demo_traffic(rate: float, seed: int) -> TrafficSettings:
    """The default stream, with a few late, repeated and broken records."""
    start_ms = time.time_ns() // 1_000_000
    return replace(UNRULY, events_per_second=rate, seed=seed, start_time_ms=start_ms)


def run_demo(
    target: Target,
    worker: Worker,
    traffic: TrafficSettings,
    seconds: float,
    stop: threading.Event,
    *,
    mask: Callable[[str], str],
    console: Console,
) -> Report | None:
    """Drives, shows and measures for `seconds` or until `stop` is set; None when that was before the first event.

    `mask` makes a key fit for people's eyes. Raises LoadTestError where it could not be measured, and what the worker
    raises.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    tally = Tally(mask)
    producer = {**target.client, "linger.ms": target.linger_ms}
    with (
        Driver(Load(traffic, steady(traffic.events_per_second, seconds), target.input, producer)) as driver,
        closing(Reader(target.client, target.decisions, target.alerts, target.dead_letters, tally)) as reader,
    ):
        console.print("starting the engine; the first start compiles its kernels", style="dim")
        worker.wait_active(stop)
        if stop.is_set():
            return None
        driver.begin()
        return _Run(target, worker, driver, tally, traffic.events_per_second, seconds).until_done(reader, stop, console)


class _History:
    """Rate and p99 of every second."""

    def __init__(self) -> None:
        self.per_second: list[float] = []
        self.p99_ms: list[float] = []
        self._decided = 0
        self._since = time.monotonic()

    def add(self, tally: Tally) -> None:
        """Notes the last second, once it is over."""
        now = time.monotonic()
        if now - self._since < HISTORY_S or not tally.decided:
            return
        decided = tally.decided
        self.per_second.append((decided - self._decided) / (now - self._since))
        self.p99_ms.append(tally.recent_p99_ms())
        self._decided, self._since = decided, now


@dataclass(slots=True)
class _Run:
    """From the first event to the last decision."""

    target: Target
    worker: Worker
    driver: Driver
    tally: Tally
    rate: float
    seconds: float
    history: _History = field(default_factory=_History)
    interrupted: bool = False
    overrun: str = ""

    def until_done(self, reader: Reader, stop: threading.Event, console: Console) -> Report:
        """Shows how it goes, lets the engine end, reads what is left and reports."""
        engine_stopped = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(reader.run, self.driver.truths, engine_stopped)
            try:
                with screen(console) as show:
                    duplicates = self._watch(reading, stop, show)
                self.worker.stop()
            finally:
                engine_stopped.set()
            reading.result()
        return self._report(duplicates)

    def _watch(self, reading: Future[None], stop: threading.Event, show: Callable[[Figures], None]) -> int:
        """Until every event that was sent is settled; returns how many duplicates the engine recognised."""
        progress, tally = self.driver.progress, self.tally
        duplicates, open_before, progressed_at = 0, -1, 0.0
        while True:
            wait([reading], TURN_S)
            if reading.done():
                reading.result()
            self.worker.check()
            self.history.add(tally)
            show(self._figures())
            if not progress.done:
                self._stop_early(stop)
                continue
            duplicates = int(self.worker.samples().get(DUPLICATES, 0))
            still_open = progress.events - tally.decided - tally.dead_letters - duplicates
            if still_open != open_before:
                open_before, progressed_at = still_open, time.monotonic()
            if still_open <= 0 or time.monotonic() - progressed_at > SETTLE_DEADLINE_S:
                return duplicates

    def _stop_early(self, stop: threading.Event) -> None:
        if self.interrupted or self.overrun:
            return
        backlog, backlog_max = self.driver.progress.to_decide - self.tally.decided, self.target.backlog_events_max
        if backlog_max is not None and backlog > backlog_max:
            self.overrun = (
                f"given up: {backlog:,} events waited for a decision, more than {self.target.name} keeps safe"
            )
        self.interrupted = stop.is_set()
        if self.interrupted or self.overrun:
            self.driver.stop()

    def _figures(self) -> Figures:
        progress, tally = self.driver.progress, self.tally
        now_ms = time.time_ns() // 1_000_000
        elapsed_s = (now_ms - tally.first_due_ms) / 1e3 if tally.first_due_ms else 0.0
        return Figures(
            target=self.target.name,
            elapsed_s=min(max(elapsed_s, 0.0), self.seconds),
            seconds=self.seconds,
            rate=self.rate,
            sent=progress.events,
            to_decide=progress.to_decide,
            decided=tally.decided,
            dead_letters=tally.dead_letters,
            duplicates=progress.duplicates,
            kinds=dict(tally.kinds),
            latency=tally.latency(),
            alerts=tally.alerts,
            attacks=tally.attacks(now_ms),
            last_alerts=list(tally.last_alerts),
            per_second=self.history.per_second,
            p99_ms=self.history.p99_ms,
        )

    def _report(self, duplicates: int) -> Report:
        progress, tally = self.driver.progress, self.tally
        received = Received(
            tally.decided,
            tally.decided_again,
            tally.unknown,
            tally.dead_letters,
            duplicates,
            tally.alerts,
            tally.alerts_on_attacks,
        )
        return Report(
            target=self.target.name,
            rate=self.rate,
            seconds=max(0.0, tally.last_arrival_us / 1e6 - tally.first_due_ms / 1e3),
            sent=Sent(progress.events, progress.duplicates, progress.poison, progress.delay_ms_max, progress.behind),
            received=received,
            kinds=dict(tally.kinds),
            latency=tally.latency(),
            attacks=tally.attacks(progress.until_ms),
            interrupted=self.interrupted,
            overrun=self.overrun,
        )
