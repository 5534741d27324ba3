"""Simulated workers: the real worker, pipeline and delivery code of one process on a simulated cluster and disk."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import ExitStack
from typing import Any

from engine.assemble import watched
from engine.config import Config
from engine.errors import FatalError, FencedError, RetriableError
from engine.kafka.consume import Input
from engine.kafka.control import Control
from engine.kafka.deliver import Delivery, delivery_of
from engine.kafka.journal import Journal
from engine.kafka.lease import Lease
from engine.kafka.telemetry import TelemetryTopic
from engine.reporter import Reporter
from engine.rollout import Rollout
from engine.serving import Serving
from engine.worker import Worker
from models.errors import ModelError
from tests.pipelines import pipeline_of
from tests.sim.clients import SimClients
from tests.sim.cluster import Cluster
from tests.sim.faults import Crash
from tests.sim.process import Process
from tests.sim.store import Disk, SimStore

RESTART_S = 1.0
STEPS_MAX = 200


def _no_other(reference: str) -> Serving:
    raise ModelError(f"the simulation has no model {reference}")


class Inline(Executor):
    """Does what it is given at once."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except ModelError as error:
            done.set_exception(error)
        return done


class _Call(Future[None]):
    """One call on a thread, made once: `after` so many steps of its process, or when somebody waits for it."""

    def __init__(self, call: Callable[[], None], after: int) -> None:
        super().__init__()
        self._call: Callable[[], None] | None = call
        self.after = after

    def make(self) -> None:
        call, self._call = self._call, None
        if call is None:
            return
        try:
            call()
        except Exception as error:  # noqa: BLE001 - whoever asks for the result has it raised there
            self.set_exception(error)
        else:
            self.set_result(None)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self.make()
        return super().exception(timeout)


class Threads(Executor):
    """A process's threads: what one is given is done whole, at once or at some later step of the process.

    So it may come after whatever gave it has been given up.
    """

    def __init__(self, process: Process) -> None:
        self._process = process
        self._left: list[_Call] = []
        self._at_work = False
        process.on_step.append(self._go_on)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        faults = self._process.cluster.faults
        slow = faults.hit("slow thread", f"{self._process.name} thread")
        call = _Call(lambda: fn(*args, **kwargs), faults.random.randint(1, STEPS_MAX) if slow else 0)
        self._left.append(call)
        self._go_on()
        return call

    def _go_on(self) -> None:
        if self._at_work:
            return
        self._at_work = True
        try:
            for call in [call for call in self._left if call.after <= 0]:
                self._left.remove(call)
                call.make()
        finally:
            self._at_work = False
        for call in self._left:
            call.after -= 1


class SimClock:
    """A process's clock: waiting lets the others go on."""

    def __init__(self, cluster: Cluster, process: Process) -> None:
        self._cluster = cluster
        self._process = process

    def monotonic(self) -> float:
        return self._cluster.clock.monotonic()

    def time_ms(self) -> int:
        return self._cluster.now_ms()

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        self._cluster.wait(self._process, self._cluster.clock.now_s + timeout_s, event.is_set)
        return event.is_set()


class Machine:
    """Where one worker runs, again and again: its disk outlasts it. `ended` says how each process ended."""

    def __init__(self, cluster: Cluster, config: Config, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.disk = Disk()
        self.ended: list[str] = []
        self.worker: Worker | None = None
        self._config = config
        self._starts = 0
        self._starts_at_s = 0.0
        self._turns: Iterator[None] | None = None
        self._process: Process | None = None
        # While a call of its waits, others take their steps.
        self._busy = False

    @property
    def runs(self) -> bool:
        """Whether there is a process, if only one that stands still."""
        return self._turns is not None

    @property
    def process(self) -> Process | None:
        """The process, if there is one."""
        return self._process if self.runs else None

    def step(self) -> None:
        """One turn of the worker, or its start once that is due."""
        if self._busy:
            return
        if self._turns is None:
            if self.cluster.clock.now_s >= self._starts_at_s:
                self._starts += 1
                self._process = self.cluster.process(f"{self.name}{self._starts}")
                self._guarded(self._start)
            return
        assert self._process is not None
        if not self._process.alive:
            self._end("killed")
        elif not self._process.paused:
            self._guarded(self._turn)

    def _guarded(self, action: Callable[[], None]) -> None:
        self._busy = True
        try:
            action()
        except Crash:
            self._end("crashed")
        except FencedError as error:
            self._end(f"fenced: {error}")
        except RetriableError as error:
            self._end(f"no broker: {error}")
        except FatalError as error:
            if "no space" not in str(error):
                raise
            self.disk.full = False
            self._end("disk full")
        finally:
            self._busy = False

    def _start(self) -> None:
        process = self._process
        assert process is not None
        clients = SimClients(self.cluster, process)
        store = SimStore(self.disk, process)
        pipeline = pipeline_of(self._config, store)
        source = Input(self._config, clients)
        journal, lease = Journal(self._config, clients), Lease(self._config, clients)
        delivery: Delivery = delivery_of(self._config, lease, clients, Threads(process))
        self._resources = ExitStack()
        self._resources.callback(delivery.close)
        watched(self._config, pipeline)
        telemetry = TelemetryTopic(self._config, pipeline.metrics, clients)
        self._resources.callback(telemetry.close)
        clock = SimClock(self.cluster, process)
        rollout = Rollout(self._config, Control(self._config, clients), _no_other, Inline(), clock)
        reporter = Reporter(self._config, pipeline.drift, telemetry.put, clock)
        self.worker = Worker(
            self._config, pipeline, source, journal, lease, delivery, rollout, reporter, threading.Event(), clock=clock
        )
        self._turns = self.worker.turns()

    def _turn(self) -> None:
        assert self._turns is not None
        if next(self._turns, "end") == "end":
            self._resources.close()
            self._end("stopped")

    def _end(self, how: str) -> None:
        self.cluster.note(f"{self.name} {how}")
        self.ended.append(how)
        if self._process is not None and how != "stopped":
            self._process.kill()
        # Kept as it is: closing a generator would run what a killed process does not.
        self._buried = getattr(self, "_buried", [])
        self._buried.append((self._turns, self.worker))
        self._turns = self.worker = None
        self._starts_at_s = self.cluster.clock.now_s + RESTART_S
