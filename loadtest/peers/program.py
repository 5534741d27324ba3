"""A peer's program: started in a session of its own, asked whether it lives, and ended."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from loadtest.errors import LoadTestError
from loadtest.peers.peer import Command

STOP_DEADLINE_S = 60.0
_LINES_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Program:
    """What runs; its process id is that of its session."""

    process: "subprocess.Popen[bytes]"
    log_file: Path

    @property
    def session(self) -> int:
        """Every process of the peer is in it."""
        return self.process.pid

    def check(self) -> None:
        """Raises LoadTestError, with what it said last, where it has ended."""
        if self.process.poll() is not None:
            lines = self.log_file.read_text("utf-8", errors="replace").splitlines()[-_LINES_SHOWN:]
            raise LoadTestError(f"ended with exit code {self.process.returncode}: {' | '.join(lines)}")

    def stop(self) -> None:
        """Asks it to end, and ends it where it does not."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_DEADLINE_S)
            except subprocess.TimeoutExpired:
                os.killpg(self.session, signal.SIGKILL)
                self.process.wait()


@contextmanager
def running(command: Command, folder: Path) -> Iterator[Program]:
    """The program while the block runs; its log is `folder`/log."""
    log_file = folder / "log"
    with log_file.open("ab") as log:
        process = subprocess.Popen(
            command.arguments,
            cwd=folder,
            env={**os.environ, **command.environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    program = Program(process, log_file)
    try:
        yield program
    finally:
        program.stop()
