"""Puts together what was counted between two commits, and says it every few seconds.

commits      |  |  |  |  |  |  |  |  |  |  |
swap                          ^
records      |-- 5 s: fraud/7 |--fraud/8 |--        one for each pair of model and policy that decided meanwhile

What a commit made final is counted, and nothing else. What was not said yet is lost with a worker that crashes, and
so is a commit of which it is not known how it ended.
"""

import os
import socket
from collections.abc import Callable, Mapping

from engine.clock import Clock
from engine.config import Config
from engine.observe.drift import Drift, Tally
from engine.pipeline import Pipeline
from engine.telemetry import Telemetry, Versions, encode


class Reporter:
    """Publishes by `put`, which waits for nothing and raises nothing."""

    def __init__(self, config: Config, drift: Drift | None, put: Callable[[bytes], None], clock: Clock) -> None:
        """`drift` is what the pipeline counts in; where there is none, nothing is ever said."""
        self._application_id = config.kafka.application_id
        self._worker_id = f"{socket.gethostname()}-{os.getpid()}"
        self._interval_s = config.telemetry.interval_s
        self._drift = drift
        self._put = put
        self._clock = clock
        self._tallies: dict[Versions, Tally] = {}
        self._versions = Versions("", "")
        self._from_ms = 0
        self._due_at = 0.0

    def begin(self, pipeline: Pipeline) -> None:
        """From here on this worker decides."""
        self._next(pipeline, self._clock.time_ms())

    def end(self, pipeline: Pipeline) -> None:
        """It decides no longer: what is committed is said, what is not is void."""
        self.take()
        self._say(pipeline)

    def take(self) -> dict[Versions, Tally]:
        """What was counted since this was asked last, for whoever commits it to `add`."""
        return {} if self._drift is None else self._drift.take()

    def add(self, tallies: Mapping[Versions, Tally]) -> None:
        """These are committed."""
        for versions, tally in tallies.items():
            if versions in self._tallies:
                self._tallies[versions].add(tally)
            else:
                self._tallies[versions] = tally

    def tick(self, pipeline: Pipeline) -> None:
        """Publishes where the time is over, if only that nothing was decided, and where others decide from now on."""
        due = self._clock.monotonic() >= self._due_at
        if due and not self._tallies and self._drift is not None:
            self._tallies[pipeline.versions] = self._drift.tally(pipeline.model)
        if due or pipeline.versions != self._versions:
            self._say(pipeline)

    def _say(self, pipeline: Pipeline) -> None:
        to_ms = self._clock.time_ms()
        for versions, tally in self._tallies.items():
            self._put(encode(self._record(versions, tally, to_ms)))
        self._tallies = {}
        self._next(pipeline, to_ms)

    def _next(self, pipeline: Pipeline, from_ms: int) -> None:
        self._versions = pipeline.versions
        self._from_ms = from_ms
        self._due_at = self._clock.monotonic() + self._interval_s

    def _record(self, versions: Versions, tally: Tally, to_ms: int) -> Telemetry:
        return Telemetry(
            application_id=self._application_id,
            worker_id=self._worker_id,
            from_ms=self._from_ms,
            to_ms=to_ms,
            events=tally.events,
            decisions=tally.decisions(),
            event_time_ms_max=tally.newest_ms,
            versions=versions,
            score=tally.scores(),
            features=tally.features(),
            fields=tally.fields(),
        )
