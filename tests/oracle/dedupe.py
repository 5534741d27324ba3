"""Accepted event ids of one partition as a plain list: slow, obvious, and what the kernel must equal."""

from collections.abc import Hashable
from dataclasses import dataclass, field


@dataclass
class Remembered:
    """`entries` are (id, the partition's newest accepted time when it came in), oldest first."""

    entries_max: int
    horizon_ms: int
    late_after_ms: int
    entries: list[tuple[Hashable, int]] = field(default_factory=list)
    newest_ms: int | None = None

    def accept(self, event_id: Hashable, time_ms: int) -> tuple[bool, bool]:
        """Whether the event is new, and, if it is, whether it is late."""
        if self.newest_ms is not None:
            oldest_ms = self.newest_ms - self.horizon_ms
            self.entries = [entry for entry in self.entries if entry[1] >= oldest_ms]
        if event_id in {known for known, _ in self.entries}:
            return False, False
        late = self.newest_ms is not None and time_ms < self.newest_ms - self.late_after_ms
        self.newest_ms = time_ms if self.newest_ms is None else max(self.newest_ms, time_ms)
        self.entries = [*self.entries, (event_id, self.newest_ms)][-self.entries_max :]
        return True, late
