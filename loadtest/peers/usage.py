"""CPU time of a program and all that it started, as a series in time, from /proc."""

import os
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

SAMPLE_INTERVAL_S = 0.2
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# Of what stands in /proc/PID/stat after the name: the session, and own and waited-for children's user and system time.
_SESSION = 3
_TIMES = slice(11, 15)


def cpu_seconds(session: int) -> float:
    """User and system time of every process of a session, and of those of its children that have ended."""
    ticks = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            text = (entry / "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended meanwhile
        fields = text.rpartition(")")[2].split()
        if int(fields[_SESSION]) == session:
            ticks += sum(map(int, fields[_TIMES]))
    return ticks / _TICKS_PER_S


class Usage:
    """Samples from when the block begins to when it ends; `between` then says what a span of wall time cost."""

    def __init__(self, session: int) -> None:
        self._session = session
        self._times_s: list[float] = []
        self._cpu_s: list[float] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def _sample(self) -> None:
        last = False
        while True:
            self._times_s.append(time.time())
            self._cpu_s.append(cpu_seconds(self._session))
            if last:
                return
            last = self._over.wait(SAMPLE_INTERVAL_S)

    def between(self, began_s: float, ended_s: float) -> float:
        """CPU seconds between two moments of wall time (s since the epoch), interpolated between samples."""
        began, ended = np.interp((began_s, ended_s), self._times_s, self._cpu_s)
        return float(ended - began)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
