"""A state directory that outlasts its process: a flush is taken in whole or not at all, and the disk can be full."""

from engine.errors import FatalError
from tests.memory_store import MemoryFlush, MemoryStore
from tests.sim.faults import Crash
from tests.sim.process import Process


class Disk:
    """What outlasts the process: the rows, and whether there is room. `flush_file` is what a crash left beside them."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.flushes = 0
        self.full = False
        self.flush_file: list[tuple[bytes, bytes | None]] | None = None


class SimStore(MemoryStore):
    """Stands in for a `Store` of one process. Opening it removes what an unfinished flush left."""

    def __init__(self, disk: Disk, process: Process) -> None:
        super().__init__()
        process.step("open store")
        self.disk = disk
        self.process = process
        self.rows = disk.rows
        disk.flush_file = None

    def begin_flush(self) -> "SimFlush":
        """Raises FatalError where the disk is as good as full, before anything is written."""
        self.process.step("begin flush")
        if self.disk.full:
            raise FatalError("no space is left for the state directory")
        return SimFlush(self)


class SimFlush(MemoryFlush):
    """One sorted file, and its ingestion, which is atomic: `flush` is the step before it and `flush done` after it.

    `torn flush` is a crash inside: all of it or nothing is there afterwards. `full disk` fails it while it is written.
    """

    def __init__(self, store: SimStore) -> None:
        super().__init__(store)
        self._sim = store
        store.disk.flush_file = self._changes
        # Of every other flush the disk takes longer than a batch.
        self._ready = store.disk.flushes % 2 == 0

    def ready(self) -> bool:
        """Perhaps not when asked for the first time."""
        was, self._ready = self._ready, True
        return was

    def finish(self) -> None:
        process, disk = self._sim.process, self._sim.disk
        faults = process.cluster.faults
        with process.call("flush"):
            if faults.hit("full disk", f"{process.name} flush"):
                disk.full = True
            if disk.full:
                raise FatalError("no space is left for the state directory")
            torn = faults.hit("torn flush", f"{process.name} flush")
            if not torn or faults.random.random() < 0.5:
                super().finish()
                disk.flushes, disk.flush_file = disk.flushes + 1, None
            if torn:
                process.kill()
                raise Crash("torn flush")
