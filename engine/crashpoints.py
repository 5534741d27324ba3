"""Named places at which a test ends the process as a power cut would, with nothing flushed and nobody told.

`TIDEGATE_CRASH_AT=commit:2` ends it when `commit` is reached for the second time. Without it nothing happens.
"""

import os
from collections import Counter

VARIABLE = "TIDEGATE_CRASH_AT"
EXIT_CODE = 137

# On the way to the input.
TAKE_OVER = (
    "followed",  # what others committed was taken into memory, and nothing of it is on disk
    "settled",  # what the predecessor left open is settled; the committed offsets are not read yet
    "begin",  # the whole vector is committed anew; nothing is read yet
)
# While it is owned.
OWNED = (
    "produce",  # outputs of a batch are about to be queued
    "produced",  # they are queued
    "progress",  # the progress record is about to be queued
    "flush_outputs",  # it is queued; nothing need be acknowledged
    "offsets",  # all outputs are acknowledged; offsets are about to be sent
    "commit",  # offsets are with the broker; the commit is about to be asked for
    "committed",  # the broker has committed; nobody here knows
    "snapshot",  # the state at the committed vector is about to be frozen
    "ingest",  # its file is written; RocksDB does not know it
    "ingested",  # RocksDB has it
    "checkpoint",  # a checkpoint is about to be made
    "checkpointed",  # it is whole; old ones are still there
    "delete",  # an old one is about to be deleted
)
POINTS = TAKE_OVER + OWNED

_reached: Counter[str] = Counter()
_name, _, _number = os.environ.get(VARIABLE, "").partition(":")


def reached(point: str) -> None:
    """Ends the process if this is the place."""
    if point != _name:
        return
    _reached[point] += 1
    if _reached[point] == int(_number or 1):
        os._exit(EXIT_CODE)
