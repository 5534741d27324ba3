"""The `tidegate` command as a child of `engine.process`: it ends at once when whoever started it is gone."""

import os
import sys
import threading

from engine.cli import main

ORPHANED_EXIT_CODE = 1


def _end_with_parent() -> None:
    """Returns never: standard input is a pipe that ends when the parent does."""
    os.read(sys.stdin.fileno(), 1)
    os._exit(ORPHANED_EXIT_CODE)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    main(prog_name="tidegate")
