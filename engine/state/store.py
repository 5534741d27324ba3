"""The RocksDB database that state rests in: point reads, prefix scans, and atomic writes of whole sorted files.

A flush is written as one sorted file beside the database and taken in by one `ingest`: all of it appears, or nothing
does, and neither a write-ahead log nor a memtable sees the bytes. Against a WriteBatch of the same rows it costs a
third of the time, and it never holds the interpreter for longer than one put (docs/performance.md).
"""

import itertools
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from rocksdict import (
    BlockBasedIndexType,
    BlockBasedOptions,
    Cache,
    Checkpoint,
    DBCompressionType,
    IngestExternalFileOptions,
    Options,
    Rdict,
    SstFileWriter,
)

from engine.crashpoints import reached
from engine.errors import FatalError
from engine.state.damage import damaged, told

_log = logging.getLogger("tidegate.state")

DATABASE = "rocksdb"
# Of a file of changes, what its filters and index take at most.
FILTERS_BYTES_MIN, FILTERS_SHARE = 1024 * 1024, 32
DISK_FREE_BYTES_MIN = 64 * 1024 * 1024
# Reads are of single entities of about 100 bytes, none near the other: a block is mostly read in vain.
BLOCK_BYTES = 2_048


class Store:
    """One open database; a second process that opens the same folder is refused.

    Every byte that is read has a checksum of RocksDB's: DamageError where it does not fit, in whatever method.
    """

    def __init__(self, folder: Path, block_cache_bytes_max: int) -> None:
        """Opens or creates it; raises FatalError where the folder cannot be used or another worker holds it."""
        self.folder = folder
        self._options = _options(block_cache_bytes_max)
        database = folder / DATABASE
        if not (database / "CURRENT").is_file() and any(database.glob("*.sst")):
            # RocksDB would take it for a new database and delete the files.
            raise damaged(folder, f"{database / 'CURRENT'} is missing")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Named for the column family too: without that, an existing database would be opened with what its
            # OPTIONS file says, which holds neither our cache nor our filter.
            self._database = Rdict(str(database), self._options, {"default": self._options})
        except Exception as error:  # rocksdict raises nothing narrower
            raise told(error, folder, "opened") from error
        # What a crash left of an unfinished flush was never part of the state.
        self._flush_path.unlink(missing_ok=True)

    @property
    def _flush_path(self) -> Path:
        return self.folder / "flush.sst"

    def __enter__(self) -> "Store":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except FatalError as closing:
            if error is None:
                raise
            # Of two errors the first says more, and its exit code stands.
            _log.warning("the state was not closed well", extra={"why": str(closing)})

    @property
    def block_cache_bytes_max(self) -> int:
        """The bound of the block cache, as the database has it."""
        bytes_max: int = self._database.property_int_value("rocksdb.block-cache-capacity")
        return bytes_max

    def get(self, key: bytes) -> bytes | None:
        """One value."""
        try:
            value: bytes | None = self._database.get(key)
        except Exception as error:  # as in __init__
            raise told(error, self.folder, "read") from error
        return value

    def get_many(self, keys: list[bytes]) -> list[bytes | None]:
        """One value, or None, for each key."""
        try:
            values: list[bytes | None] = self._database.get(keys)
        except Exception as error:  # as in __init__
            raise told(error, self.folder, "read") from error
        return values

    def scan_from(self, first: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values from a key on, in key order."""
        cursor = self._database.iter()
        cursor.seek(first)
        while cursor.valid():
            yield cursor.key(), cursor.value()
            cursor.next()
        # A cursor that meets damage ends like one that has come to the end.
        try:
            cursor.status()
        except Exception as error:  # as in __init__
            raise told(error, self.folder, "read") from error

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values below a prefix, in key order."""
        return itertools.takewhile(lambda row: row[0].startswith(prefix), self.scan_from(prefix))

    def begin_flush(self) -> "FlushFile":
        """A new file of changes; FatalError, before anything is written, where the disk is as good as full."""
        if shutil.disk_usage(self.folder).free < DISK_FREE_BYTES_MIN:
            raise FatalError(f"less than {DISK_FREE_BYTES_MIN >> 20} MiB free for the state directory {self.folder}")
        return FlushFile(self._database, self._options, self._flush_path)

    def link_files(self, folder: Path) -> None:
        """Makes a folder, which must not be there yet, with a database that is this one as it is now.

        Its files are hard links where it is on the same file system, which takes some ms, and copies elsewhere. The
        interpreter waits for all of it.
        """
        try:
            Checkpoint(self._database).create_checkpoint(str(folder))
        except Exception as error:  # as in __init__
            raise told(error, folder, "written") from error

    def close(self) -> None:
        """Closes the database; background work ends first. FatalError where a write has failed before, as it may."""
        try:
            self._database.close()
        except Exception as error:  # as in __init__
            raise told(error, self.folder, "closed") from error


class FlushFile:
    """Changes on their way to the database, keys strictly ascending; nothing is visible before `finish`.

    FatalError where one of them cannot be written. Then none is part of the state, and the store must be opened anew.
    """

    def __init__(self, database: Rdict, options: Options, path: Path) -> None:
        self._database = database
        self._path = path
        self._writer = SstFileWriter(options)
        try:
            self._writer.open(str(path))
        except Exception as error:  # rocksdict raises nothing narrower
            raise self._told(error) from error

    def put(self, key: bytes, value: bytes) -> None:
        """Sets one key."""
        try:
            self._writer[key] = value
        except Exception as error:  # as in __init__
            raise self._told(error) from error

    def delete(self, key: bytes) -> None:
        """Removes one key."""
        try:
            del self._writer[key]
        except Exception as error:  # as in __init__
            raise self._told(error) from error

    def finish(self) -> None:
        """Makes every change visible and durable at once."""
        try:
            self._writer.finish()
            _read_ahead(self._path)
            reached("ingest")
            ingest = IngestExternalFileOptions()
            ingest.set_move_files(True)
            self._database.ingest_external_file([str(self._path)], ingest)
            reached("ingested")
        except Exception as error:  # as in __init__
            raise self._told(error) from error

    def _told(self, error: Exception) -> Exception:
        return told(error, self._path.parent, "written")


def _read_ahead(path: Path) -> None:
    """Asks the system to have a file in memory, its end first, and does not wait.

    What RocksDB writes to a file of its own it has the system forget at once: the first keys that are looked for would
    wait for the disk, one block after the other. Filters and index stand at the end.
    """
    if not hasattr(os, "posix_fadvise"):
        return
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        end = min(size, FILTERS_BYTES_MIN + size // FILTERS_SHARE)
        os.posix_fadvise(file.fileno(), size - end, end, os.POSIX_FADV_WILLNEED)
        os.posix_fadvise(file.fileno(), 0, size - end, os.POSIX_FADV_WILLNEED)


def _options(block_cache_bytes_max: int) -> Options:
    table = BlockBasedOptions()
    table.set_block_cache(Cache(block_cache_bytes_max))
    table.set_bloom_filter(10.0, block_based=False)
    table.set_cache_index_and_filter_blocks(True)
    table.set_pin_l0_filter_and_index_blocks_in_cache(True)
    table.set_block_size(BLOCK_BYTES)
    # Whole filters and indexes of a file are megabytes, more than a shard of the cache holds: it would read them again
    # and again.
    table.set_index_type(BlockBasedIndexType.two_level_index_search())
    table.set_partition_filters(True)
    table.set_pin_top_level_index_and_filter(True)
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_block_based_table_factory(table)
    # Blobs are packed integers and hashes: compression would cost more than it saves.
    options.set_compression_type(DBCompressionType.none())
    options.set_keep_log_file_num(4)
    return options
