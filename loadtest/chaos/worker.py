"""One worker as a process that may be killed, frozen, and started anew on the state that it left."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from loadtest.errors import LoadTestError

HOST = "127.0.0.1"
# The system chooses the port, another at every start; the log says which.
LISTEN = f"{HOST}:0"
LISTENS = re.compile(rb"admin endpoint listening.*127\.0\.0\.1:(\d+)")
ANSWER_TIMEOUT_S = 2.0
END_TIMEOUT_S = 60.0
TOPICS_TIMEOUT_S = 60.0
LOG_LINES_SHOWN = 15
REFUSED = "Connection refused"
OVERRIDES = "TIDEGATE__"


class Health(NamedTuple):
    """What a worker says of itself; the role is empty where it says nothing."""

    role: str = ""
    ready: bool = False


class Worker:
    """`tidegate run`, with configuration, state and log in `folder`; they outlast the process."""

    def __init__(self, folder: Path, bootstrap: str) -> None:
        """Starts nothing yet; `config_file` is to be written before `start`."""
        folder.mkdir()
        self.name = folder.name
        self.config_file = folder / "tidegate.toml"
        self.log_file = folder / "worker.log"
        self._port: int | None = None
        self._log_start = 0
        self.frozen = False
        self.bootstrap = bootstrap
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the process, after which it takes some seconds until it is ready."""
        arguments = ["run", "--config", str(self.config_file), "--bootstrap", self.bootstrap]
        with self.log_file.open("ab") as log:
            self._port, self._log_start = None, log.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "engine.child", *arguments],
                env=plain_environment(),
                # Never written to: it ends when we do, and so tells the worker.
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                process_group=0,
            )

    @property
    def exit_code(self) -> int | None:
        """How the process that was started ended; None while it runs, and after `kill` or `stop`."""
        return self._process.poll() if self._process is not None else None

    @property
    def running(self) -> bool:
        """Whether there is a process, frozen or not."""
        return self._process is not None and self._process.poll() is None

    def health(self) -> Health:
        """What it says at `/readyz`: nothing while it starts, is frozen, or is gone."""
        if not self.running or self.frozen:
            return Health()
        if self._port is None and (said := LISTENS.search(self._log())):
            self._port = int(said[1])
        if self._port is None:
            return Health()
        try:
            with closing(http.client.HTTPConnection(HOST, self._port, timeout=ANSWER_TIMEOUT_S)) as connection:
                connection.request("GET", "/readyz")
                answer = connection.getresponse()
                return Health(json.loads(answer.read())["role"], answer.status == http.client.OK)
        except OSError:
            return Health()  # not listening yet, or not any more

    @property
    def metrics_url(self) -> str:
        """Where its numbers are; only once it has said something at `health`."""
        assert self._port is not None
        return f"http://{HOST}:{self._port}/metrics"

    def _log(self) -> bytes:
        """What this process has logged."""
        with self.log_file.open("rb") as log:
            log.seek(self._log_start)
            return log.read()

    def kill(self) -> None:
        """SIGKILL, as a crash would; returns once it is gone."""
        if self._process is not None:
            self._process.kill()
            self._gone(self._process)

    def freeze(self) -> None:
        """SIGSTOP: it does nothing, and keeps its connections."""
        self._signal(signal.SIGSTOP)
        self.frozen = True

    def thaw(self) -> None:
        """SIGCONT: it goes on and knows of nothing."""
        self._signal(signal.SIGCONT)
        self.frozen = False

    def ask_to_stop(self) -> None:
        """SIGTERM: it drains and ends; `exit_code` tells when."""
        self._signal(signal.SIGTERM)

    def stop(self) -> None:
        """SIGTERM, and waits; LoadTestError unless it ends well."""
        self.ask_to_stop()
        assert self._process is not None
        try:
            code = self._process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise LoadTestError(f"{self.name} did not stop within {END_TIMEOUT_S:g} s\n{self.last_words()}") from error
        if code != 0:
            raise LoadTestError(f"{self.name} ended with exit code {code} on SIGTERM\n{self.last_words()}")
        self._gone(self._process)

    def last_words(self) -> str:
        """The end of its log."""
        if not self.log_file.exists():
            return f"{self.name}: it never ran"
        lines = self.log_file.read_text("utf-8", errors="replace").splitlines()
        # Of a broker that is away there are hundreds.
        lines = [line for line in lines if REFUSED not in line][-LOG_LINES_SHOWN:]
        return "\n".join([f"{self.name}, last lines of {self.log_file}:", *(f"  {line}" for line in lines)])

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _gone(self, process: subprocess.Popen[bytes]) -> None:
        process.wait(END_TIMEOUT_S)
        if process.stdin is not None:
            process.stdin.close()
        self._process, self.frozen = None, False


def create_topics(worker: Worker) -> None:
    """Creates the topics of its configuration; LoadTestError where that does not go."""
    command = [sys.executable, "-m", "engine", "topics", "apply", "--config", str(worker.config_file)]
    command += ["--bootstrap", worker.bootstrap]
    done = subprocess.run(
        command, env=plain_environment(), capture_output=True, text=True, check=False, timeout=TOPICS_TIMEOUT_S
    )
    if done.returncode != 0:
        raise LoadTestError(f"tidegate topics apply ended with exit code {done.returncode}: {done.stderr.strip()}")


def plain_environment() -> dict[str, str]:
    """Ours, without what would override the configuration under test."""
    return {name: value for name, value in os.environ.items() if not name.startswith(OVERRIDES)}
