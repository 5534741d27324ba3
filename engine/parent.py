"""Ends a process as soon as the one that started it is gone, however that ended."""

import os
import sys
import threading

ORPHANED_EXIT_CODE = 1


def end_with_parent() -> None:
    """Standard input must be a pipe that the parent never writes to: it ends when the parent does."""
    threading.Thread(target=_await_end, name="parent", daemon=True).start()


def _await_end() -> None:
    os.read(sys.stdin.fileno(), 1)
    os._exit(ORPHANED_EXIT_CODE)
