"""One partition: records and control markers, each at an offset, and what a read_committed consumer may see of them."""

from dataclasses import dataclass


@dataclass(slots=True)
class Stored:
    """One record. `writer` is the producer id of a transaction; `open` until its marker is written."""

    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]] | None
    timestamp_ms: int
    writer: int | None = None
    open: bool = False
    aborted: bool = False
    marker: bool = False


class Log:
    """Offsets count up from 0 for ever; `first` moves on when records are deleted."""

    def __init__(self) -> None:
        self.first = 0
        self.records: list[Stored] = []
        # Per producer id, where its open transaction began.
        self.open_from: dict[int, int] = {}

    @property
    def end(self) -> int:
        """The high watermark: the offset of the next record."""
        return self.first + len(self.records)

    @property
    def stable(self) -> int:
        """The last stable offset: from here on nothing is decided yet."""
        return min(self.open_from.values(), default=self.end)

    def append(self, record: Stored) -> int:
        """Takes the record in at the end and returns its offset."""
        record.offset = self.end
        self.records.append(record)
        if record.writer is not None:
            record.open = True
            self.open_from.setdefault(record.writer, record.offset)
        return record.offset

    def end_transaction(self, writer: int, *, commit: bool, timestamp_ms: int) -> None:
        """Writes the control marker, which takes up an offset, and decides the records before it."""
        began = self.open_from.pop(writer, None)
        for record in self.records[max(0, began - self.first) :] if began is not None else []:
            if record.writer == writer and record.open:
                record.open, record.aborted = False, not commit
        self.records.append(Stored(self.end, None, None, None, timestamp_ms, marker=True))

    def visible_end(self, *, committed_only: bool) -> int:
        """Where a consumer's reading ends for now."""
        return self.stable if committed_only else self.end

    def read(self, start: int, count: int, *, committed_only: bool) -> tuple[list[Stored], int]:
        """Up to `count` records from `start` on and the next position, past markers and what was aborted."""
        end = self.visible_end(committed_only=committed_only)
        found: list[Stored] = []
        position = start
        while position < end and len(found) < count:
            record = self.records[position - self.first]
            position += 1
            if not record.marker and not (committed_only and record.aborted):
                found.append(record)
        return found, position

    def truncate(self, first: int) -> None:
        """Deletes the records before this offset."""
        assert first <= self.end, "nothing beyond the end can be deleted"
        if first > self.first:
            del self.records[: first - self.first]
            self.first = first
