"""A worker in a process of its own: started from a configuration, awaited, asked for its numbers, stopped.

start ----> wait_ready ----> wait_active ----> samples, check ... ----> stop (SIGTERM: drains)
  |             |                 |                                 \\-> kill (SIGKILL: as a crash would)
  +-- died: every method but `kill` raises what the worker said last, as the error it ended with
"""

import http.client
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from engine.errors import ConfigError, FatalError, FencedError, RetriableError
from engine.observe.server import LISTENING

HOST = "127.0.0.1"
# The system chooses the port: one that was chosen here might be anybody's by the time that the worker wants it.
LISTEN = f"{HOST}:0"
ACTIVE = 'tidegate_worker_role{role="active"}'
READY_POLL_S = 0.05
# The first start on a machine compiles the kernels.
READY_DEADLINE_S = 300.0
# From ready to the lease.
ACTIVE_DEADLINE_S = 120.0
STOP_DEADLINE_S = 60.0
ANSWER_TIMEOUT_S = 5.0

_SAID = re.compile(rf"{LISTENING}.*{re.escape(HOST)}:(\d+)".encode())
_ERRORS = {error.exit_code: error for error in (ConfigError, RetriableError, FencedError, FatalError)}


class WorkerProcess:
    """`tidegate run` as a child. Leaving the block stops it, and kills it where an exception leaves."""

    def __init__(self, config_text: str, folder: Path, bootstrap: str, environment: Mapping[str, str]) -> None:
        """Starts it, with configuration and log in `folder`."""
        self.log_file = folder / "worker.log"
        config_file = folder / "tidegate.toml"
        config_file.write_text(config_text, "utf-8")
        self._port: int | None = None
        arguments = ["run", "--config", str(config_file), "--bootstrap", bootstrap]
        with self.log_file.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "engine.child", *arguments],
                env={**environment, "TIDEGATE__OBSERVE__LISTEN": LISTEN},
                # Never written to: it ends when we do, and so tells the worker.
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                process_group=0,  # Ctrl-C is for us; the worker is told by `stop`
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def wait_ready(self, stop: threading.Event, deadline_s: float = READY_DEADLINE_S) -> None:
        """Returns once the worker decides or follows, or `stop` is set; FatalError after `deadline_s`."""
        self._wait(self.ready, "was not ready", stop, deadline_s)

    def wait_active(self, stop: threading.Event) -> None:
        """Returns once the worker is ready and has the lease, so that it decides, or `stop` is set."""
        self.wait_ready(stop)
        self._wait(lambda: self.samples()[ACTIVE] == 1, "did not decide", stop, ACTIVE_DEADLINE_S)

    def _wait(self, holds: Callable[[], bool], lacking: str, stop: threading.Event, deadline_s: float) -> None:
        give_up_at = time.monotonic() + deadline_s
        while not stop.wait(READY_POLL_S):
            self.check()
            if holds():
                return
            if time.monotonic() > give_up_at:
                raise FatalError(f"the worker {lacking} after {deadline_s:g} s: {self._last_words()}")

    def ready(self) -> bool:
        """What it says of itself."""
        try:
            return self._get("/readyz")[0] == http.client.OK
        except OSError:
            return False  # not listening yet

    def check(self) -> None:
        """Raises the error that the worker ended with, if it has ended."""
        if self._process.poll() is not None:
            self._raise_ended()

    def samples(self) -> dict[str, float]:
        """Its metrics: `{'tidegate_events_total{outcome="decided"}': 12.0, ...}`."""
        try:
            status, text = self._get("/metrics")
        except OSError:
            self._process.wait(ANSWER_TIMEOUT_S)
            self._raise_ended()
        if status != http.client.OK:
            raise FatalError(f"the worker answered /metrics with {status}")
        lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in lines}

    def stop(self) -> None:
        """Lets the worker drain and end; raises the error that it ended with, if it did not end well."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired as error:
            self.kill()
            raise FatalError(f"the worker did not stop within {STOP_DEADLINE_S:g} s and was killed") from error
        # A worker that has not got as far as to drain on SIGTERM has nothing to drain.
        if self._process.returncode not in (0, -signal.SIGTERM):
            self._raise_ended()

    def send(self, number: signal.Signals) -> None:
        """Sends it a signal, and does not wait for what becomes of it."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """Ends it as a crash would, and waits until it is gone."""
        self._process.kill()
        self._process.wait()

    def _get(self, path: str) -> tuple[int, str]:
        if self._port is None:
            self._port = port_said(self.log_file, self._log_start)
        # Not urllib, which would ask a proxy.
        with closing(http.client.HTTPConnection(HOST, self._port, timeout=ANSWER_TIMEOUT_S)) as connection:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()

    def _raise_ended(self) -> NoReturn:
        code = self._process.returncode
        if code < 0:
            raise FatalError(f"the worker was killed ({signal.Signals(-code).name})")
        raise _ERRORS.get(code, FatalError)(f"the worker ended with exit code {code}: {self._last_words()}")

    def _last_words(self) -> str:
        lines = self.log_file.read_text("utf-8", errors="replace").splitlines()
        return lines[-1].removeprefix("tidegate: ") if lines else "it said nothing"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            if kind is None:
                self.stop()
            else:
                self.kill()
        if self._process.stdin is not None:
            self._process.stdin.close()


def port_said(log_file: Path, start: int) -> int:
    """Where a worker listens that wrote its log from byte `start` on; ConnectionRefusedError before it does."""
    with log_file.open("rb") as log:
        log.seek(start)
        said = _SAID.search(log.read())
    if said is None:
        raise ConnectionRefusedError
    return int(said[1])
