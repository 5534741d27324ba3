"""Checkpoints: whole or not there, whatever happens while one is made; the newest kept; restored beside what was."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

import engine.state.shared_files
from engine.config import Config
from engine.errors import FatalError
from engine.state.checkpoints import LINKED, Checkpoint, Checkpoints
from engine.state.damage import DamageError
from engine.state.durable import checksum
from engine.state.header import decode_header
from engine.state.keys import HEADER
from engine.state.manifest import Manifest, read_manifest, write_manifest
from engine.state.peek import read_header
from engine.state.restore import restore
from engine.state.store import DISK_FREE_BYTES_MIN
from tests.state.dying import Death, dying
from tests.state.small import Rows, Small, configured, rows_in

ROOT = Path(__file__).parent.parent.parent
NEVER = 1_000_000


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return configured(tmp_path)


@pytest.fixture
def small(config: Config) -> Iterator[Small]:
    with Small(config) as small:
        yield small


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


@pytest.fixture
def checkpoints(folder: Path) -> Iterator[Checkpoints]:
    made = Checkpoints(folder, keep=2)
    yield made
    made.close()


def sequences(checkpoints: Checkpoints) -> list[int]:
    assert all(entry.manifest and not entry.problem for entry in checkpoints.entries())
    return [entry.manifest.sequence for entry in checkpoints.entries() if entry.manifest]


def created(checkpoints: Checkpoints, small: Small) -> Checkpoint:
    made = checkpoints.create(small.store)
    assert made is not None
    return made


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# --- made ------------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_the_state_as_it_was(small: Small, checkpoints: Checkpoints) -> None:
    rows = small.flush()
    made = created(checkpoints, small)
    assert small.flush() != rows
    assert rows_in(made.folder) == rows
    manifest, header = made.manifest, decode_header(rows[HEADER])
    assert manifest is not None
    assert (manifest.sequence, manifest.vector, manifest.fingerprint) == (1, {0: 40}, header.fingerprint)
    assert made.folder.name == "checkpoint-1"
    for file in manifest.files:
        assert checksum(made.folder / file.name) == file.xxh3
        assert (made.folder / file.name).stat().st_size == file.identity.bytes


def test_what_the_manifest_names_is_all_there_is(small: Small, checkpoints: Checkpoints) -> None:
    small.flush()
    made = created(checkpoints, small)
    assert made.manifest is not None
    there = {str(path.relative_to(made.folder)) for path in made.folder.rglob("*") if path.is_file()}
    assert there == {file.name for file in made.manifest.files} | {"manifest.json"}
    assert LINKED not in names(small.store.folder)


def test_the_newest_are_kept(small: Small, checkpoints: Checkpoints, folder: Path) -> None:
    for _ in range(4):
        small.flush()
        created(checkpoints, small)
    assert sequences(checkpoints) == [3, 4]
    assert names(folder) == {"checkpoint-3", "checkpoint-4", ".lock"}


def test_an_empty_database_has_nothing_to_keep(small: Small, checkpoints: Checkpoints, folder: Path) -> None:
    assert checkpoints.create(small.store) is None
    assert not folder.exists()


def test_a_state_that_did_not_change_is_not_kept_twice(small: Small, folder: Path) -> None:
    now_ms = count(1_000_000, 1_000)
    checkpoints = Checkpoints(folder, 2, clock_ms=lambda: next(now_ms))
    small.flush()
    first = created(checkpoints, small)
    assert created(checkpoints, small) == first
    assert checkpoints.age_s() == 1.0
    checkpoints.close()


def test_files_are_hashed_once_and_stored_once(
    small: Small, checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    monkeypatch.setattr(engine.state.shared_files, "checksum", lambda path: hashed.append(path.name) or checksum(path))
    small.flush()
    first = created(checkpoints, small)
    hashed.clear()
    small.flush()
    second = created(checkpoints, small)
    old = {path.name for path in (first.folder / "rocksdb").glob("*.sst")}
    new = {path.name for path in (second.folder / "rocksdb").glob("*.sst")} - old
    assert {name for name in hashed if name.endswith(".sst")} == new
    for name in old:
        inodes = {(folder / "rocksdb" / name).stat().st_ino for folder in (first.folder, second.folder)}
        assert inodes == {(small.store.folder / "rocksdb" / name).stat().st_ino}


def test_on_another_disk_files_are_copied_once(
    small: Small, checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def not_from_here(source: Path, target: Path) -> None:
        if small.store.folder in source.parents:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        link(source, target)

    monkeypatch.setattr(os, "link", not_from_here)
    small.flush()
    first = created(checkpoints, small)
    rows = small.flush()
    second = created(checkpoints, small)
    (sorted_file,) = (first.folder / "rocksdb").glob("*.sst")
    assert sorted_file.stat().st_nlink == 2  # both checkpoints, and not the state
    assert sorted_file.samefile(second.folder / "rocksdb" / sorted_file.name)
    assert rows_in(second.folder) == rows
    for made in (first, second):
        assert made.manifest is not None
        assert all(checksum(made.folder / file.name) == file.xxh3 for file in made.manifest.files)


def test_where_nothing_can_be_linked_everything_is_copied(
    small: Small, checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(source: Path, target: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    for _ in range(2):
        rows = small.flush()
        made = created(checkpoints, small)
    assert rows_in(made.folder) == rows
    assert all(path.stat().st_nlink == 1 for path in (made.folder / "rocksdb").iterdir())


def test_a_file_number_that_is_used_again_is_another_file(
    small: Small, checkpoints: Checkpoints, config: Config
) -> None:
    """A state that goes on from an older checkpoint gives its files the numbers of those it has lost."""
    small.flush()
    first = created(checkpoints, small)
    small.flush()
    created(checkpoints, small)
    small.resources_open.close()
    restore(first.folder, small.store.folder)
    with Small(config) as again:
        rows = again.flush(41)
        made = created(checkpoints, again)
    assert made.manifest is not None
    assert (made.manifest.sequence, made.manifest.vector) == (2, {0: 81})
    assert sequences(checkpoints) == [1, 2]
    assert rows_in(made.folder) == rows
    assert all(checksum(made.folder / file.name) == file.xxh3 for file in made.manifest.files)


def test_the_newest_is_known_though_the_clock_was_set_back(small: Small, folder: Path) -> None:
    now_ms = iter(range(1_000_000, 0, -1_000))
    checkpoints = Checkpoints(folder, 2, clock_ms=lambda: next(now_ms))
    for _ in range(3):
        small.flush()
        created(checkpoints, small)
    assert sequences(checkpoints) == [2, 3]
    checkpoints.close()


# --- when ------------------------------------------------------------------------------------------------------


def test_one_is_due_at_once_and_then_after_each_interval(small: Small, folder: Path) -> None:
    checkpoints = Checkpoints(folder, 2, interval_s=300.0)
    small.flush()
    assert checkpoints.age_s() is None
    assert checkpoints.due(50.0)
    checkpoints.begin(small.store, 50.0)
    checkpoints.settle(wait=True)
    assert not checkpoints.due(349.0)
    assert checkpoints.due(350.0)
    checkpoints.close()


def test_the_interval_goes_on_over_a_restart(small: Small, folder: Path) -> None:
    first = Checkpoints(folder, 2, interval_s=300.0, clock_ms=lambda: 1_000_000)
    small.flush()
    first.create(small.store)
    first.close()
    second = Checkpoints(folder, 2, interval_s=300.0, clock_ms=lambda: 1_100_000)
    assert second.age_s() == 100.0
    assert not second.due(5_000.0)
    assert not second.due(5_199.0)
    assert second.due(5_200.0)
    assert Checkpoints(folder, 2, interval_s=300.0, clock_ms=lambda: 9_000_000).due(7.0)


def test_none_is_due_while_one_is_under_way(small: Small, folder: Path) -> None:
    checkpoints = Checkpoints(folder, 2, interval_s=1.0)
    small.flush()
    checkpoints.begin(small.store, 0.0)
    assert not checkpoints.due(1e9)
    checkpoints.settle(wait=True)
    assert checkpoints.due(1e9)
    checkpoints.close()


def test_two_workers_do_not_share_a_folder(small: Small, checkpoints: Checkpoints, folder: Path) -> None:
    small.flush()
    created(checkpoints, small)
    other = Checkpoints(folder, 2)
    small.flush()
    with pytest.raises(FatalError, match=r"another worker writes checkpoints to .*each needs a state.checkpoints.dir"):
        other.create(small.store)
    checkpoints.close()
    assert created(other, small).folder.name == "checkpoint-2"
    other.close()


# --- what goes wrong -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "no room left in .*checkpoints"),
        (OSError(errno.EIO, "Input/output error"), "no checkpoint can be written to .*Input/output error"),
    ],
    ids=["full", "broken"],
)
def test_one_that_fails_leaves_nothing_and_says_so(
    small: Small, checkpoints: Checkpoints, folder: Path, error: OSError, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.flush()
    created(checkpoints, small)
    small.flush()

    def fails(descriptor: int) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails)
        checkpoints.begin(small.store, 0.0)
        with pytest.raises(FatalError, match=said):
            checkpoints.settle(wait=True)
    assert names(folder) == {"checkpoint-1", ".lock"}
    assert created(checkpoints, small).folder.name == "checkpoint-2"


def test_one_that_fails_while_the_worker_ends_does_not_hide_why_it_ends(
    small: Small, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    checkpoints = Checkpoints(folder, 2)
    small.flush()
    monkeypatch.setattr(os, "fsync", fails)
    checkpoints.begin(small.store, 0.0)
    checkpoints.close()
    assert [record.message for record in caplog.records] == ["the last checkpoint was not made"]


def test_a_disk_that_is_as_good_as_full_is_not_written_to(
    small: Small, checkpoints: Checkpoints, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.flush()
    usage = shutil.disk_usage(folder.parent)._replace(free=DISK_FREE_BYTES_MIN - 1)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage)
        with pytest.raises(FatalError, match="less than 64 MiB free for a checkpoint"):
            checkpoints.create(small.store)
    assert names(folder) == {".lock"}
    assert LINKED not in names(small.store.folder)
    assert sequences(checkpoints) == []
    created(checkpoints, small)


def test_a_crash_at_any_call_leaves_whole_checkpoints_or_what_the_next_one_removes(small: Small, folder: Path) -> None:
    kept: dict[int, Rows] = {}
    for at in count():
        kept[at + 1] = small.flush(3)
        dead = Checkpoints(folder, keep=2)
        before = sequences(dead)
        with dying(at) as made, suppress(Death):
            dead.create(small.store)
        crashed = len(made) == at
        dead.close()
        after = Checkpoints(folder, keep=2)
        assert set(before[-1:]) <= set(sequences(after)) <= {*before, at + 1}
        for entry in after.entries():
            assert entry.manifest is not None
            assert rows_in(entry.folder) == kept[entry.manifest.sequence]
        created(after, small)
        assert sequences(after)[-1] == at + 1
        assert names(folder) == {*(f"checkpoint-{n}" for n in sequences(after)), ".lock"}
        assert LINKED not in names(small.store.folder)
        after.close()
        if not crashed:
            break
    assert at > 20  # so many calls one takes


# --- which one -------------------------------------------------------------------------------------------------


def test_the_newest_that_is_not_after_the_committed_offsets(small: Small, folder: Path) -> None:
    checkpoints = Checkpoints(folder, keep=5)
    for _ in range(3):
        small.flush(10)
        created(checkpoints, small)

    def sequence(committed: dict[int, int]) -> int | None:
        found = checkpoints.newest_not_after(committed)
        return found and found.manifest and found.manifest.sequence

    assert [sequence({0: offset}) for offset in (9, 10, 19, 20, 30, 31)] == [None, 1, 1, 2, 3, 3]
    assert sequence({0: 20, 1: 5}) == 2  # a partition that the state had not seen begins at its beginning
    assert sequence({1: 20}) is None
    assert sequence({}) is None
    assert checkpoints.newest_not_after({0: 99}, lambda manifest: manifest.fingerprint == "other") is None
    checkpoints.close()


def test_of_checkpoints_of_two_pasts_the_one_that_leaves_less_to_replay(
    small: Small, folder: Path, config: Config
) -> None:
    checkpoints = Checkpoints(folder, keep=5)
    small.flush(10)
    first = created(checkpoints, small)
    small.flush(10)
    small.flush(10)
    created(checkpoints, small)  # at 30, by the third flush
    small.resources_open.close()
    restore(first.folder, small.store.folder)
    with Small(config) as again:
        again.flush(1)
        made = created(checkpoints, again)  # made last, and stands at 11
    assert sequences(checkpoints) == [1, 3, 2]
    found = checkpoints.newest_not_after({0: 30})
    assert found is not None
    assert found.folder.name == "checkpoint-3"
    assert checkpoints.newest_not_after({0: 29}) == made
    checkpoints.close()


# --- restored --------------------------------------------------------------------------------------------------


class Restored:
    """A state that is closed at its second flush, and a checkpoint of its first."""

    def __init__(self, config: Config, folder: Path) -> None:
        self.checkpoints = Checkpoints(folder, keep=2)
        with Small(config) as small:
            self.state_dir = small.store.folder
            self.old = small.flush()
            self.checkpoint = created(self.checkpoints, small).folder
            self.new = small.flush()
        self.checkpoints.close()


@pytest.fixture
def past(config: Config, folder: Path) -> Restored:
    return Restored(config, folder)


def test_a_restored_state_is_that_of_the_checkpoint_and_the_other_is_kept(past: Restored) -> None:
    quarantine = restore(past.checkpoint, past.state_dir)
    assert quarantine == past.state_dir / "quarantine-2-1"
    assert names(past.state_dir) == {"rocksdb", "quarantine-2-1"}
    assert rows_in(past.state_dir) == past.old
    quarantine.rename(past.state_dir / "elsewhere")
    (past.state_dir / "back").mkdir()
    (past.state_dir / "elsewhere").rename(past.state_dir / "back" / "rocksdb")
    assert rows_in(past.state_dir / "back") == past.new


def test_what_goes_on_from_a_checkpoint_leaves_it_alone(past: Restored, config: Config) -> None:
    restore(past.checkpoint, past.state_dir)
    with Small(config) as again:
        assert again.events == 40
        assert again.flush()[HEADER] == past.new[HEADER]
        again.flush()
    assert rows_in(past.checkpoint) == past.old
    links = [path.stat().st_ino for path in (past.state_dir / "rocksdb").iterdir()]
    assert not {path.stat().st_ino for path in (past.checkpoint / "rocksdb").iterdir()} & set(links)


def test_every_quarantine_has_a_name_of_its_own(past: Restored) -> None:
    for number in (1, 2):
        assert restore(past.checkpoint, past.state_dir) == past.state_dir / f"quarantine-{3 - number}-1"
    assert restore(past.checkpoint, past.state_dir) == past.state_dir / "quarantine-1-2"


def test_a_state_that_cannot_be_read_is_kept_too(past: Restored) -> None:
    (past.state_dir / "rocksdb" / "CURRENT").write_bytes(b"nonsense")
    assert restore(past.checkpoint, past.state_dir) == past.state_dir / "quarantine-damaged-1"
    assert rows_in(past.state_dir) == past.old


def test_an_empty_state_dir_is_filled(past: Restored, tmp_path: Path) -> None:
    assert restore(past.checkpoint, tmp_path / "new" / "state") is None
    assert rows_in(tmp_path / "new" / "state") == past.old


def test_a_crash_at_any_call_loses_nothing_and_can_be_done_again(config: Config, tmp_path: Path) -> None:
    past = Restored(config, tmp_path / "checkpoints")
    whole = tmp_path / "whole"
    past.state_dir.rename(whole)
    for at in count():
        shutil.rmtree(past.state_dir, ignore_errors=True)
        shutil.copytree(whole, past.state_dir)
        with dying(at) as made, suppress(Death):
            restore(past.checkpoint, past.state_dir)
        if len(made) < at:
            break
        kept = past.state_dir / "quarantine-2-1"
        if (past.state_dir / "rocksdb").exists() and not kept.exists():
            assert rows_in(past.state_dir) == past.new
        else:
            assert (kept / "CURRENT").is_file()
            # Nothing, or all of the checkpoint; nothing is what a worker restores the newest checkpoint for.
            assert not (past.state_dir / "rocksdb").exists() or rows_in(past.state_dir) == past.old
        restore(past.checkpoint, past.state_dir)
        assert rows_in(past.state_dir) == past.old
        assert "restoring" not in names(past.state_dir)
    assert at > 8


def test_a_damaged_checkpoint_is_refused_and_its_file_named(past: Restored) -> None:
    (sorted_file,) = (past.checkpoint / "rocksdb").glob("*.sst")
    data = bytearray(sorted_file.read_bytes())
    data[100] ^= 1
    sorted_file.unlink()  # the state has the same file
    sorted_file.write_bytes(data)
    with pytest.raises(DamageError, match=rf"rocksdb/{sorted_file.name} does not fit its checksum"):
        restore(past.checkpoint, past.state_dir)
    assert names(past.state_dir) == {"rocksdb"}
    assert rows_in(past.state_dir) == past.new


def test_the_next_older_one_is_restored_where_the_newest_is_damaged(config: Config, folder: Path) -> None:
    checkpoints = Checkpoints(folder, keep=3)
    with Small(config) as small:
        rows = small.flush()
        created(checkpoints, small)
        small.flush()
        newest = created(checkpoints, small).folder
        state_dir = small.store.folder
    checkpoints.close()
    (newest / "rocksdb" / "CURRENT").unlink()
    (newest / "rocksdb" / "CURRENT").write_bytes(b"MANIFEST-000009\n")
    restored = checkpoints.restore_newest({0: 1_000}, state_dir)
    assert restored is not None
    assert restored.folder.name == "checkpoint-1"
    assert rows_in(state_dir) == rows
    assert checkpoints.restore_newest({0: 1}, state_dir) is None
    assert rows_in(state_dir) == rows


def test_a_checkpoint_of_another_state_than_its_manifest_says_is_refused(past: Restored, config: Config) -> None:
    """Every file fits its checksum, and yet it is not what it is taken for."""
    manifest = read_manifest(past.checkpoint)
    (past.checkpoint / "manifest.json").unlink()
    fields = {name: getattr(manifest, name) for name in Manifest.__struct_fields__} | {"vector": {0: 39}}
    write_manifest(past.checkpoint, Manifest(**fields))
    with pytest.raises(DamageError, match="not the one that its manifest names"):
        restore(past.checkpoint, past.state_dir)
    assert rows_in(past.state_dir) == past.new


def test_a_disk_that_would_not_hold_both_is_refused(past: Restored, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = sum(path.stat().st_size for path in (past.checkpoint / "rocksdb").iterdir()) + DISK_FREE_BYTES_MIN
    usage = shutil.disk_usage(past.state_dir)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed - 1))
    with pytest.raises(FatalError, match="no room left"):
        restore(past.checkpoint, past.state_dir)
    assert names(past.state_dir) == {"rocksdb"}
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed))
    restore(past.checkpoint, past.state_dir)


def test_a_state_that_a_worker_has_open_is_not_touched(past: Restored) -> None:
    holding = f"""
import sys
from pathlib import Path
from engine.state.store import Store
with Store(Path({str(past.state_dir)!r}), 1 << 20):
    print("open", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", holding], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        assert worker.stdout.readline() == "open\n"
        with pytest.raises(FatalError, match="held by a running worker"):
            restore(past.checkpoint, past.state_dir)
        worker.stdin.close()
        assert worker.wait() == 0
    restore(past.checkpoint, past.state_dir)
    header = read_header(past.state_dir)
    assert header is not None
    assert header.sequence == 1
