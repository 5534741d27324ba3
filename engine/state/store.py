"""The RocksDB database that state rests in: point reads, prefix scans, and atomic writes of whole sorted files.

A flush is written as one sorted file beside the database and taken in by one `ingest`: all of it appears, or nothing
does, and neither a write-ahead log nor a memtable sees the bytes. Against a WriteBatch of the same rows it costs a
third of the time, and it never holds the interpreter for longer than one put (docs/performance.md).
"""

import itertools
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
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
DISK_FREE_BYTES_MIN = 64 * 1024 * 1024
# A file of changes goes to the disk in steps of at least this size while it grows.
WRITE_BACK_BYTES = 4 * 1024 * 1024
READ_BYTES = 1024 * 1024
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
        self._aside = _Aside(path)
        # Put since somebody was last asked to write back.
        self._bytes = 0
        self._closed = False
        self._writer = SstFileWriter(options)
        try:
            self._writer.open(str(path))
        except Exception as error:  # rocksdict raises nothing narrower
            raise self._told(error) from error

    def put(self, key: bytes, value: bytes) -> None:
        """Sets one key."""
        try:
            self._writer[key] = value
            self._bytes += len(key) + len(value)
            if self._bytes >= WRITE_BACK_BYTES and self._aside.idle:
                self._write_back()
        except Exception as error:  # as in __init__
            raise self._told(error) from error

    def delete(self, key: bytes) -> None:
        """Removes one key."""
        try:
            del self._writer[key]
        except Exception as error:  # as in __init__
            raise self._told(error) from error

    def ready(self) -> bool:
        """Whether `finish` need not wait for the disk, nor the reads that follow it; brings that nearer, waits not.

        For when all has been put: then the file is synced, closed, and read, since what RocksDB writes to a file of
        its own it has the system forget at once.
        """
        try:
            if not self._aside.idle:
                return False
            if self._closed:
                return True
            if self._bytes:
                self._write_back()
            else:
                self._close()
                self._aside.begin(_read)
        except Exception as error:  # as in __init__
            raise self._told(error) from error
        return False

    def finish(self) -> None:
        """Makes every change visible and durable at once."""
        try:
            self._aside.end()
            self._close()
            reached("ingest")
            ingest = IngestExternalFileOptions()
            ingest.set_move_files(True)
            self._database.ingest_external_file([str(self._path)], ingest)
            reached("ingested")
        except Exception as error:  # as in __init__
            raise self._told(error) from error

    def _write_back(self) -> None:
        self._bytes = 0
        self._aside.begin(_sync)

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self._writer.finish()

    def _told(self, error: Exception) -> Exception:
        return told(error, self._path.parent, "written")


class _Aside:
    """Does one thing at a time to a file, on a thread of its own, that the stream need not wait for the disk.

    A file of 40 MiB that nobody has written back takes a second to sync where the disk is slow.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, "flush")
        self._pending: Future[None] | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing is under way; raises what the last thing raised."""
        if self._pending is not None and self._pending.done():
            self._pending.result()
            self._pending = None
        return self._pending is None

    def begin(self, work: Callable[[Path], None]) -> None:
        """Begins it; only while idle."""
        self._pending = self._thread.submit(work, self._path)

    def end(self) -> None:
        """Waits for what is under way, and raises what it raises; nothing is begun afterwards."""
        self._thread.shutdown()
        if self._pending is not None:
            self._pending.result()


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _read(path: Path) -> None:
    buffer = bytearray(READ_BYTES)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


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
