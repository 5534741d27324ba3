"""What a worker says of itself, each second: CPU, memory, lag, and the time in each stage."""

import re
import threading
import time
from dataclasses import dataclass, field

import numpy as np

from loadtest.run.target import Endpoint, Samples

INTERVAL_S = 1.0
JOIN_TIMEOUT_S = 5.0
CPU, RSS = "process_cpu_seconds_total", "process_resident_memory_bytes"
LAG = "tidegate_consumer_lag_events{"
_STAGE = re.compile(r'tidegate_stage_seconds_sum\{stage="(\w+)"\}')


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer. `at_s` is seconds since 1970, CPU of the process since it began, bytes, events, stages in s."""

    at_s: float
    cpu_s: float
    rss_bytes: float
    lag_events: float
    stages_s: dict[str, float] = field(default_factory=dict)


class Sampler(threading.Thread):
    """Asks once a second until stopped; a worker that does not answer leaves a gap."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(name="sampler", daemon=True)
        self.samples: list[Sample] = []
        self._endpoint = endpoint
        self._ending = threading.Event()

    def run(self) -> None:
        """The thread."""
        while True:
            found = self._endpoint.samples()
            if found is not None:
                self.samples.append(sample_of(found, time.time()))
            if self._ending.wait(INTERVAL_S - time.time() % INTERVAL_S):
                return

    def stop(self) -> None:
        """Asks no more."""
        self._ending.set()
        self.join(JOIN_TIMEOUT_S)


def sample_of(metrics: Samples, at_s: float) -> Sample:
    """What is kept of the metrics."""
    lag = sum(value for name, value in metrics.items() if name.startswith(LAG))
    stages = {found[1]: value for name, value in metrics.items() if (found := _STAGE.fullmatch(name))}
    return Sample(at_s, metrics.get(CPU, 0.0), metrics.get(RSS, 0.0), lag, stages)


def cpu_between(samples: list[Sample], from_s: float, to_s: float) -> float | None:
    """CPU seconds between two moments, by straight lines between samples; None where they do not reach so far."""
    if len(samples) < 2 or samples[0].at_s > from_s + INTERVAL_S or samples[-1].at_s < to_s - INTERVAL_S:
        return None
    first, last = np.interp([from_s, to_s], [s.at_s for s in samples], [s.cpu_s for s in samples])
    return float(last - first)
