"""The database as a dictionary: what `engine.state.store` promises, and nothing that takes time."""

from collections.abc import Iterator


class MemoryStore:
    """Stands in for a `Store`. What was finished outlasts everything that was built upon it, as a disk would."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.flushes = 0

    def get(self, key: bytes) -> bytes | None:
        return self.rows.get(key)

    def get_many(self, keys: list[bytes]) -> list[bytes | None]:
        return [self.rows.get(key) for key in keys]

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        return iter(sorted(row for row in self.rows.items() if row[0].startswith(prefix)))

    def scan_from(self, first: bytes) -> Iterator[tuple[bytes, bytes]]:
        return iter(sorted(row for row in self.rows.items() if row[0] >= first))

    def begin_flush(self) -> "MemoryFlush":
        return MemoryFlush(self)

    def under(self, *prefixes: bytes) -> dict[bytes, bytes]:
        """The rows whose keys begin with one of these."""
        return {key: value for key, value in self.rows.items() if key.startswith(prefixes)}


class MemoryFlush:
    """Changes that `finish` makes visible. Refuses keys that do not ascend, as a sorted file does."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._changes: list[tuple[bytes, bytes | None]] = []

    def put(self, key: bytes, value: bytes) -> None:
        self._add(key, value)

    def delete(self, key: bytes) -> None:
        self._add(key, None)

    def _add(self, key: bytes, value: bytes | None) -> None:
        assert not self._changes or self._changes[-1][0] < key, "keys must ascend"
        self._changes.append((key, value))

    def ready(self) -> bool:
        return True

    def finish(self) -> None:
        for key, value in self._changes:
            if value is None:
                self._store.rows.pop(key, None)
            else:
                self._store.rows[key] = value
        self._store.flushes += 1
