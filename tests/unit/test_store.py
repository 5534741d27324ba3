"""The store: a flush is there whole or not at all, and one process at a time has the folder."""

import shutil
from pathlib import Path

import pytest

from engine.errors import FatalError, FencedError
from engine.state.damage import DamageError
from engine.state.store import DISK_FREE_BYTES_MIN, FlushFile, Store

CACHE_BYTES = 1 << 20


def _open(folder: Path) -> Store:
    return Store(folder, CACHE_BYTES)


def _flush(store: Store, rows: dict[bytes, bytes], deleted: tuple[bytes, ...] = ()) -> None:
    file = store.begin_flush()
    _write(file, rows, deleted)
    file.finish()


def _write(file: FlushFile, rows: dict[bytes, bytes], deleted: tuple[bytes, ...] = ()) -> None:
    for key in sorted({*rows, *deleted}):
        if key in rows:
            file.put(key, rows[key])
        else:
            file.delete(key)


def test_nothing_is_visible_before_finish_and_everything_after(tmp_path: Path) -> None:
    with _open(tmp_path) as store:
        _flush(store, {b"a": b"1", b"b": b"1"})
        file = store.begin_flush()
        _write(file, {b"a": b"2", b"c": b"2"}, deleted=(b"b",))
        assert store.get_many([b"a", b"b", b"c"]) == [b"1", b"1", None]
        assert list(store.scan(b"")) == [(b"a", b"1"), (b"b", b"1")]
        file.finish()
        assert store.get_many([b"a", b"b", b"c"]) == [b"2", None, b"2"]
        assert list(store.scan(b"")) == [(b"a", b"2"), (b"c", b"2")]


def test_what_was_finished_outlasts_the_process(tmp_path: Path) -> None:
    with _open(tmp_path) as store:
        _flush(store, {b"a": b"1", b"b": b"1"})
        _flush(store, {b"b": b"2"}, deleted=(b"a",))
    with _open(tmp_path) as store:
        assert list(store.scan(b"")) == [(b"b", b"2")]


def test_an_existing_database_has_the_block_cache_asked_for(tmp_path: Path) -> None:
    Store(tmp_path, CACHE_BYTES).close()
    with Store(tmp_path, 3 * CACHE_BYTES) as store:
        assert store.block_cache_bytes_max == 3 * CACHE_BYTES


def test_a_flush_that_was_not_finished_leaves_nothing(tmp_path: Path) -> None:
    with _open(tmp_path) as store:
        _flush(store, {b"a": b"1"})
        _write(store.begin_flush(), {b"a": b"2", b"z": b"2"})
    with _open(tmp_path) as store:
        assert list(store.scan(b"")) == [(b"a", b"1")]
        _flush(store, {b"a": b"3"})
        assert store.get(b"a") == b"3"


@pytest.mark.parametrize("left", [b"", b"half of a file", None], ids=["empty", "torn", "whole"])
def test_a_file_that_a_crash_left_is_ignored(tmp_path: Path, left: bytes | None) -> None:
    with _open(tmp_path / "other") as other:
        _flush(other, {b"z": b"9"})
    with _open(tmp_path / "state") as store:
        _flush(store, {b"a": b"1"})
    whole = next((tmp_path / "other" / "rocksdb").glob("*.sst")).read_bytes()
    (tmp_path / "state" / "flush.sst").write_bytes(whole if left is None else left)
    with _open(tmp_path / "state") as store:
        assert list(store.scan(b"")) == [(b"a", b"1")]
        assert not (tmp_path / "state" / "flush.sst").exists()
        _flush(store, {b"b": b"2"})
        assert list(store.scan(b"")) == [(b"a", b"1"), (b"b", b"2")]


def test_a_folder_that_is_in_use_is_refused_until_it_is_closed(tmp_path: Path) -> None:
    with _open(tmp_path) as store:
        _flush(store, {b"a": b"1"})
        file = store.begin_flush()
        _write(file, {b"a": b"2"})
        with pytest.raises(FatalError, match=r"cannot be opened: .*lock"):
            _open(tmp_path)
        file.finish()  # the second one has not taken the first one's file away
        assert store.get(b"a") == b"2"
    with _open(tmp_path) as store:
        assert store.get(b"a") == b"2"


def test_a_folder_that_cannot_be_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here already")
    with pytest.raises(FatalError, match=r"state directory .*file cannot be opened"):
        _open(tmp_path / "file")


def test_a_damaged_database_is_refused(tmp_path: Path) -> None:
    with _open(tmp_path) as store:
        _flush(store, {b"a": b"1"})
    for manifest in (tmp_path / "rocksdb").glob("MANIFEST-*"):
        manifest.write_bytes(b"\x00" * 100)
    with pytest.raises(DamageError, match=r"is damaged: Corruption: .*; go back to a checkpoint"):
        _open(tmp_path)


def test_a_database_without_its_first_file_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    """RocksDB would delete every sorted file that it knows nothing of."""
    with _open(tmp_path) as store:
        _flush(store, {b"a": b"1"})
    database = tmp_path / "rocksdb"
    for name in ("CURRENT", *(file.name for file in database.glob("*.log"))):
        (database / name).unlink()
    files = sorted(database.glob("*.sst"))
    with pytest.raises(DamageError, match="CURRENT is missing"):
        _open(tmp_path)
    assert sorted(database.glob("*.sst")) == files != []


def test_scan_keeps_to_its_prefix_and_to_the_order_of_bytes(tmp_path: Path) -> None:
    keys = [b"\x01", b"\x01\x00", b"\x01\x00\xff", b"\x01\xff", b"\x02", b"\xff\xff"]
    with _open(tmp_path) as store:
        assert list(store.scan(b"\x01")) == []
        _flush(store, {key: key for key in keys[::2]})
        _flush(store, {key: key for key in keys[1::2]})
        assert [key for key, _ in store.scan(b"\x01")] == keys[:4]
        assert [key for key, _ in store.scan(b"\x01\x00")] == keys[1:3]
        assert [key for key, _ in store.scan(b"\xff\xff")] == keys[5:]
        assert list(store.scan(b"\x03")) == []


def test_keys_and_values_are_any_bytes(tmp_path: Path) -> None:
    values = {bytes([at]): bytes(range(256)) * at for at in range(0, 256, 51)}
    with _open(tmp_path) as store:
        _flush(store, values)
        assert store.get_many(list(values)) == list(values.values())
        assert store.get_many([b"none", b"\x00"]) == [None, b""]


def test_deleting_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    with _open(tmp_path) as store:
        _flush(store, {}, deleted=(b"a",))
        assert store.get(b"a") is None


def test_a_full_disk_is_found_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with _open(tmp_path) as store:
        _flush(store, {b"a": b"1"})
        usage = shutil.disk_usage(tmp_path)._replace(free=DISK_FREE_BYTES_MIN - 1)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
        with pytest.raises(FatalError, match="less than 64 MiB free for the state directory"):
            store.begin_flush()
        assert not (tmp_path / "flush.sst").exists()
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=DISK_FREE_BYTES_MIN))
        _flush(store, {b"a": b"2"})
        assert store.get(b"a") == b"2"


class Unwritable:
    """A database whose closing fails, as after a write that failed."""

    def close(self) -> None:
        raise Exception("IO error: No space left on device: While appending to file: MANIFEST-000005")


def test_a_database_that_cannot_be_closed_says_so_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(FatalError, match="no room left"), _open(tmp_path) as store:
        store._database = Unwritable()


def test_of_two_errors_the_first_one_stands(tmp_path: Path) -> None:
    """Its exit code says what to do."""

    def fenced() -> None:
        with _open(tmp_path) as store:
            store._database = Unwritable()
            raise FencedError("somebody else owns the input")

    with pytest.raises(FencedError, match="somebody else"):
        fenced()
