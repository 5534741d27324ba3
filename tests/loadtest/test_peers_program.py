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
        # How much of it was spent before the first sample is the machine's affair.
        assert 0.0 <= usage.between(began_s, time.time()) <= cpu_seconds(program.session)
    assert program.process.returncode < 0


def test_the_time_of_a_span_lies_between_the_samples() -> None:
    usage = Usage(0)
    usage._times_s, usage._cpu_s = [10.0, 12.0, 14.0], [1.0, 3.0, 3.0]
    assert usage.between(11.0, 12.0) == 1.0
    assert usage.between(10.0, 99.0) == 2.0
    assert usage.between(12.0, 14.0) == 0.0
