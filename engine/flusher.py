"""When state goes to disk: never ahead of the committed offsets, and bit by bit between micro-batches."""

from dataclasses import dataclass, field

from engine.clock import Clock
from engine.config import State
from engine.crashpoints import reached
from engine.pipeline import Pipeline
from engine.state.checkpoints import Checkpoints

# A flush writes at least this many entities between two micro-batches, and more than a batch can make dirty, so that
# it ends before the next one is due.
FLUSH_SLICE_ENTITIES = 256


@dataclass(frozen=True, slots=True)
class Position:
    """What a state that may go to disk is the state of: see `engine.state.header.Header`."""

    vector: dict[int, int]
    commits: int
    progress_offset: int


@dataclass(slots=True)
class Flusher:
    """Knows when a flush is due, and brings it to its end."""

    pipeline: Pipeline
    settings: State
    clock: Clock
    checkpoints: Checkpoints | None = None
    _due_at: float = field(init=False)

    def __post_init__(self) -> None:
        self._due_at = self.clock.monotonic() + self.settings.flush_interval_s

    def due(self) -> bool:
        """Whether the interval is over, or changed entities take up their share of memory."""
        state = self.pipeline.state
        over = self.pipeline.metrics.dirty_bytes > self.settings.dirty_bytes_max
        return (over or self.clock.monotonic() >= self._due_at) and not state.flushing

    def begin(self, position: Position) -> None:
        """Takes the snapshot of the state, which must be at this position, and that committed."""
        reached("snapshot")
        header = self.pipeline.state.header
        header.commits, header.progress_offset = position.commits, position.progress_offset
        self.pipeline.state.begin_flush(position.vector)
        self._due_at = self.clock.monotonic() + self.settings.flush_interval_s

    def advance(self, events: int) -> None:
        """Writes a slice of the snapshot, if there is one, after a batch of so many events."""
        if self.pipeline.state.flushing and self.pipeline.state.continue_flush(FLUSH_SLICE_ENTITIES + events):
            self._flushed()

    def whole(self, position: Position) -> None:
        """Writes all of it now."""
        self.begin(position)
        self.pipeline.state.finish_flush()
        self._flushed()

    def _flushed(self) -> None:
        """What is on disk now may be due for a checkpoint; FatalError where there is no room for one."""
        self.pipeline.metrics.flushes += 1
        now, store = self.clock.monotonic(), self.pipeline.state.store
        if self.checkpoints is not None and store is not None and self.checkpoints.due(now):
            self.checkpoints.begin(store, now)

    def note(self) -> None:
        """Numbers that need not be fresher than a second; FatalError where a checkpoint could not be made."""
        metrics = self.pipeline.metrics
        metrics.note_state(self.pipeline.state)
        if self.checkpoints is not None:
            self.checkpoints.settle()
            metrics.checkpoint_age_s = self.checkpoints.age_s()
