"""A peer's program: what it said last where it ends, and what all its processes cost."""

import sys
import threading
import time
from pathlib import Path

import pytest

from loadtest.errors import LoadTestError
from loadtest.peers.peer import Command
from loadtest.peers.program import running
from loadtest.peers.usage import Usage, cpu_seconds

BURN_S = 0.3
GIVE_UP_S = 30.0
BURN = f"import time\nwhile time.process_time() < {BURN_S}: pass"
# One that works in a child which ends, and then waits to be told to end.
WORK = f"import signal, subprocess, sys\nsubprocess.run([sys.executable, '-c', {BURN!r}])\nsignal.pause()"


def test_a_program_that_ends_says_why(tmp_path: Path) -> None:
    command = Command(["sh", "-c", 'echo "$GREETING" && echo last words >&2 && exit 3'], {"GREETING": "hello"})
    with running(command, tmp_path) as program:
        program.process.wait(GIVE_UP_S)
        with pytest.raises(LoadTestError, match=r"exit code 3: hello \| last words"):
            program.check()


def test_the_time_of_children_that_ended_counts(tmp_path: Path) -> None:
    never, give_up_at = threading.Event(), time.monotonic() + GIVE_UP_S
    with running(Command([sys.executable, "-c", WORK]), tmp_path) as program:
        began_s = time.time()
        with Usage(program.session) as usage:
            while cpu_seconds(program.session) < BURN_S:
                assert time.monotonic() < give_up_at
                never.wait(0.02)
        program.check()
        assert BURN_S / 2 < usage.between(began_s, time.time()) < GIVE_UP_S
    assert program.process.returncode < 0
