"""The process of a challenger: gets out of the champion's way before it does anything else."""

import ctypes
import os
import resource
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

from engine.parent import end_with_parent
from models.limits import limit

NICE = 19
# Address space, libraries included.
MEMORY_BYTES_MAX = 4 * 1024 * 1024 * 1024
OOM_FIRST = "1000"
PR_SET_PDEATHSIG = 1


def main() -> None:
    """Works for whoever has the other end of the socket, whose descriptor is the argument."""
    _end_with_worker()
    _yield_processor()
    limit(resource.RLIMIT_AS, MEMORY_BYTES_MAX, MEMORY_BYTES_MAX)
    # Where memory runs out, this process goes, and not the one with the champion; other systems have no such file.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(OOM_FIRST)
    # The worker ends it, by closing the socket or by force.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What takes time to import is imported only now.
    from engine.shadow_loop import work
    from engine.shadow_wire import Channel

    work(Channel(socket.socket(fileno=int(sys.argv[1]))))


def _end_with_worker() -> None:
    """However that ends. Linux kills us with the thread that started us, which lives as long as it needs us.

    That also ends a process that is stopped, which does not read that its standard input has ended.
    """
    end_with_parent()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _yield_processor() -> None:
    """To whatever else runs on the machine.

    Where Linux groups processes by session (sched(7), autogroup), a nice value counts only within one, and those of
    other sessions, a broker say, would be kept waiting for ours: so our session, which is ours alone, has one as well.
    Under SCHED_IDLE moreover whoever wakes up may take our processor as if nobody used it, in a container too, where
    sessions do not count.
    """
    os.nice(NICE)
    with suppress(OSError):  # not on every system, and a sandbox may forbid it
        if sys.platform == "linux":
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(NICE))


if __name__ == "__main__":
    main()
