"""Bytes that are flipped, zeroed, cut off or gone: found when they are opened or read, and never served.

For every file of a state and of a checkpoint, at places drawn by a seed: what is read is what was written, or it is a
DamageError of one line that says what to do.
"""

import random
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import orjson
import pytest

from engine.config import Config
from engine.errors import FatalError
from engine.state.cache import checksum
from engine.state.checkpoints import Checkpoints
from engine.state.damage import DamageError
from engine.state.dedupe import PartitionDedupe
from engine.state.header import decode_header, encode_header
from engine.state.keys import DEDUPE, ENTITY_KIND_FIRST, HEADER, segment_key
from engine.state.manifest import Manifest, read_manifest
from engine.state.peek import FrozenStore
from engine.state.restore import restore
from engine.state.store import Store
from engine.state.verify import Shape, verify_checkpoint, verify_state
from tests.commands import Run, refused
from tests.state.small import Rows, Small, configured, rows_in

CACHE_BYTES = 1 << 20
# Of each kind of damage to each file.
PLACES = 25
# rocksdict writes its file anew whenever a database is opened, if only to be read.
REWRITTEN = "rocksdict"
Spoil = Callable[[random.Random, bytes], bytes]


def flipped(draw: random.Random, data: bytes) -> bytes:
    at = draw.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]


def cut(draw: random.Random, data: bytes) -> bytes:
    return data[: draw.randrange(len(data))]


def zeroed(draw: random.Random, data: bytes) -> bytes:
    at = draw.randrange(len(data))
    return data[:at] + bytes(len(data[at : at + 64])) + data[at + 64 :]


SPOILS: list[Spoil] = [flipped, cut, zeroed]


class Written:
    """A state of three flushes, none of which RocksDB has compacted, and the rows after each."""

    def __init__(self, folder: Path) -> None:
        self.config = configured(folder)
        self.checkpoints = Checkpoints(folder / "checkpoints", keep=2)
        with Small(self.config) as small:
            self.state_dir = small.store.folder
            self.past = [small.flush(30)]
            self.checkpoint = self.checkpoints.create(small.store)
            self.past += [small.flush(30) for _ in range(2)]
        self.checkpoints.close()
        self.rows = self.past[-1]
        self.shape = Shape(self.config.feature_spec(), self.config.state.ring_events_max, self.config.ttl_ms)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return Written(tmp_path_factory.mktemp("written"))


def files_of(folder: Path) -> list[str]:
    """Those that hold something; the log is for people."""
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith("LOG") and path.stat().st_size
    )


def kind_of(name: str) -> str:
    return "sst" if name.endswith(".sst") else Path(name).name.split("-")[0]


def spoiled_copies(source: Path, folder: Path, seed: int, spoil: Spoil) -> Iterator[tuple[str, Path]]:
    """Copies of a folder, each with one file spoiled; never one that is as it was."""
    draw = random.Random(seed)
    for name in files_of(source):
        data = (source / name).read_bytes()
        for _ in range(PLACES):
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(source, folder)
            damaged = spoil(draw, data)
            if damaged != data:
                (folder / name).write_bytes(damaged)
                yield name, folder


def everything(folder: Path, keys: list[bytes]) -> Rows:
    """All rows, read in every way there is; they must agree."""
    with Store(folder, CACHE_BYTES) as store:
        rows = dict(store.scan(b""))
        one_by_one = {key: store.get(key) for key in keys}
        assert store.get_many(keys) == list(one_by_one.values())
        assert {key: value for key, value in one_by_one.items() if value is not None} == rows
    return rows


# --- the state -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spoil", SPOILS)
def test_damage_to_any_file_is_found_or_changes_nothing(written: Written, tmp_path: Path, spoil: Spoil) -> None:
    found: Counter[str] = Counter()
    tried: Counter[str] = Counter()
    said: list[str] = []
    keys = sorted(written.rows)
    for name, folder in spoiled_copies(written.state_dir, tmp_path / "state", 1, spoil):
        tried[kind_of(name)] += 1
        try:
            rows = everything(folder, keys)
        except DamageError as error:
            found[kind_of(name)] += 1
            said.append(str(error))
        else:
            # Any power cut may tear the end off a MANIFEST: the state is then that of an earlier flush, and whole.
            assert rows in [{}, *written.past] if kind_of(name) == "MANIFEST" else rows == written.rows
    assert {"sst", "MANIFEST", "CURRENT", "OPTIONS"} <= tried.keys()
    assert found["CURRENT"] == tried["CURRENT"]
    assert spoil is cut or found["MANIFEST"] > tried["MANIFEST"] * 0.5
    # But for the filter, which RocksDB does without where it cannot read it.
    assert found["sst"] > tried["sst"] * 0.9
    assert all("\n" not in line and "tidegate state restore" in line for line in said)


@pytest.mark.parametrize("spoil", SPOILS)
def test_verify_finds_what_reading_does_and_changes_nothing(written: Written, tmp_path: Path, spoil: Spoil) -> None:
    assert verify_state(written.state_dir, written.shape).sound
    for name, folder in spoiled_copies(written.state_dir, tmp_path / "state", 2, spoil):
        before = (folder / name).read_bytes()
        verdict = verify_state(folder, written.shape)
        assert (folder / name).read_bytes() == before or kind_of(name) == REWRITTEN
        assert not verdict.sound or kind_of(name) != "CURRENT"
        if verdict.sound:
            past = written.past[verdict.header.sequence - 1] if verdict.header else {}
            assert past == written.rows or kind_of(name) == "MANIFEST"
            assert (verdict.rows, verdict.bytes) == (len(past), sum(len(key) + len(past[key]) for key in past))


def test_every_byte_of_a_sorted_file_counts(tmp_path: Path) -> None:
    """Header, event ids and entities are under the checksums of its blocks, and so is what leads to the blocks."""
    with Store(tmp_path / "state", CACHE_BYTES) as store:
        file = store.begin_flush()
        rows = {HEADER: b"h" * 40, segment_key(0, 0): b"s" * 64, b"\x10" + bytes(9): b"e" * 40}
        for key in sorted(rows):
            file.put(key, rows[key])
        file.finish()
    (sorted_file,) = (tmp_path / "state" / "rocksdb").glob("*.sst")
    data = sorted_file.read_bytes()
    for at in range(0, len(data), 5):
        sorted_file.write_bytes(data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :])
        with suppress(DamageError), FrozenStore(tmp_path / "state") as frozen:
            # The block with the filter is only a hint, and one that cannot be read is not followed.
            assert dict(frozen.scan(b"")) == rows


@pytest.mark.parametrize("gone", ["sst", "MANIFEST", "CURRENT"])
def test_a_file_that_is_gone_is_found(written: Written, tmp_path: Path, gone: str) -> None:
    for name in files_of(written.state_dir):
        if kind_of(name) == gone:
            shutil.copytree(written.state_dir, tmp_path / name / "state")
            (tmp_path / name / "state" / name).unlink()
            with pytest.raises(DamageError):
                everything(tmp_path / name / "state", sorted(written.rows))
            assert not verify_state(tmp_path / name / "state", written.shape).sound


def test_a_file_in_place_of_another_is_found(written: Written, tmp_path: Path) -> None:
    """Both are sound, and neither is where it was."""
    shutil.copytree(written.state_dir, tmp_path / "state")
    first, second, *_ = sorted((tmp_path / "state" / "rocksdb").glob("*.sst"))
    first_bytes, second_bytes = first.read_bytes(), second.read_bytes()
    first.write_bytes(second_bytes)
    second.write_bytes(first_bytes)
    with pytest.raises(DamageError):
        everything(tmp_path / "state", sorted(written.rows))


# --- while the state is open -----------------------------------------------------------------------------------


def spoil_rows(database: Path) -> None:
    """Flips a bit in every block with rows of every sorted file."""
    for path in database.glob("*.sst"):
        data = bytearray(path.read_bytes())
        for at in range(100, len(data) // 2, 500):
            data[at] ^= 1
        path.write_bytes(data)


def test_a_scan_that_meets_damage_does_not_end_as_if_all_was_read(written: Written, tmp_path: Path) -> None:
    shutil.copytree(written.state_dir, tmp_path / "state")
    with Store(tmp_path / "state", CACHE_BYTES) as store:
        spoil_rows(tmp_path / "state" / "rocksdb")
        with pytest.raises(DamageError, match="block checksum mismatch"):
            list(store.scan(DEDUPE))
        with pytest.raises(DamageError, match="block checksum mismatch"):
            list(store.scan_from(bytes([ENTITY_KIND_FIRST])))


def test_damage_that_comes_while_a_worker_runs_stops_it_at_the_first_read(written: Written, tmp_path: Path) -> None:
    shutil.copytree(written.state_dir, tmp_path / "state")
    config = configured(tmp_path)
    with Small(config) as small:
        spoil_rows(small.store.folder / "rocksdb")
        with pytest.raises(DamageError, match="go back to a checkpoint"):
            small.take(40)


def test_a_flush_into_a_damaged_database_is_refused_in_one_line(written: Written, tmp_path: Path) -> None:
    """Expiry looks at rows with each flush."""
    shutil.copytree(written.state_dir, tmp_path / "state")
    config = configured(tmp_path)
    with Small(config) as small:
        small.state._times_ms[1] = 0
        spoil_rows(small.store.folder / "rocksdb")
        with pytest.raises(DamageError) as raised:
            small.state.begin_flush({0: 1})
    assert "\n" not in str(raised.value)
    assert raised.value.exit_code == FatalError.exit_code


# --- rows that fit their block, and are not what they should be -------------------------------------------------


def rewritten(source: Path, folder: Path, change: Callable[[Rows], None]) -> Path:
    """A sound database of other rows."""
    rows = rows_in(source)
    change(rows)
    with Store(folder, CACHE_BYTES) as store:
        file = store.begin_flush()
        for key in sorted(rows):
            file.put(key, rows[key])
        file.finish()
    return folder


def changed_header(rows: Rows, **fields: object) -> None:
    header = decode_header(rows[HEADER])
    rows[HEADER] = encode_header(msgspec.structs.replace(header, **fields))


def shortened(rows: Rows) -> None:
    rows[segment_key(0, 0)] = rows[segment_key(0, 0)][:-16]


def torn(rows: Rows) -> None:
    rows[segment_key(0, 0)] = rows[segment_key(0, 0)][:-3]


@pytest.mark.parametrize("change", [shortened, torn, lambda rows: rows.pop(segment_key(0, 0))])
def test_event_ids_that_are_missing_are_noticed_when_the_state_is_opened(
    written: Written, tmp_path: Path, change: Callable[[Rows], None]
) -> None:
    """An id that is not there would let its event be decided twice."""
    folder = rewritten(written.state_dir, tmp_path / "state", change)
    config = configured(tmp_path)
    with pytest.raises(DamageError, match="event ids"):
        Small(config)
    verdict = verify_state(folder, written.shape)
    assert "event ids" in verdict.problems[0]


def test_ids_are_looked_for_only_where_the_header_says(tmp_path: Path) -> None:
    with Store(tmp_path, CACHE_BYTES) as store:
        PartitionDedupe(4_096).load(3, store)
        with pytest.raises(DamageError, match="the state has 0 of the 2 event ids that partition 3 remembers"):
            PartitionDedupe(4_096, [5, 7, 100]).load(3, store)


def moved_entity(rows: Rows) -> None:
    key = next(key for key in rows if key[0] == ENTITY_KIND_FIRST)
    rows[key[:1] + bytes([key[1] ^ 1]) + key[2:]] = rows.pop(key)


def spoiled_entity(rows: Rows) -> None:
    key = next(key for key in rows if key[0] == ENTITY_KIND_FIRST)
    rows[key] = bytes([rows[key][0] ^ 128]) + rows[key][1:]


def emptied_entity(rows: Rows) -> None:
    key = next(key for key in rows if key[0] == ENTITY_KIND_FIRST + 1)
    rows[key] = b"\xff" + checksum(b"\xff")


def lost_entity(rows: Rows) -> None:
    rows.pop(next(key for key in rows if key[0] == ENTITY_KIND_FIRST + 1))


def stray_segment(rows: Rows) -> None:
    rows[segment_key(5, 0)] = bytes(16)


def outdated_segment(rows: Rows) -> None:
    rows[segment_key(0, 7)] = bytes(16)


def stray_key(rows: Rows) -> None:
    rows[b"\x7f" + bytes(9)] = b""


def lost_header(rows: Rows) -> None:
    rows.pop(HEADER)


def unreadable_header(rows: Rows) -> None:
    rows[HEADER] = rows[HEADER][:-1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (moved_entity, r"card \w{16} is in shard"),
        (spoiled_entity, r"card \w{16} does not fit its checksum"),
        (emptied_entity, r"merchant \w{16} has the checksum of an entity and is none"),
        (lost_entity, "there are 89 of entity merchant, and the header says 90"),
        (lambda rows: changed_header(rows, entities={"card": 7}), "there are 90 of entity merchant, and .* says 0"),
        (stray_segment, "partition 5: segment 0 of the event ids belongs to no partition of the header"),
        (outdated_segment, "partition 0: segment 7 of the event ids has none of those that the header counts"),
        (lambda rows: changed_header(rows, dedupe={0: [0, 91, 5]}), "there are 90 event ids, and the header says 91"),
        (lambda rows: changed_header(rows, dedupe={0: [0, 89, 5]}), "segment 0 .* has none of those .*, or more"),
        (stray_key, "key 7f000000000000000000 is of no known kind"),
        (lost_header, "there are rows, but no header"),
        (unreadable_header, "the state header is damaged"),
    ],
)  # fmt: skip
def test_verify_says_what_is_wrong_with_which_row(
    written: Written, tmp_path: Path, change: Callable[[Rows], None], said: str
) -> None:
    verdict = verify_state(rewritten(written.state_dir, tmp_path, change), written.shape)
    assert not verdict.sound
    assert any(re.search(said, problem) for problem in verdict.problems), verdict.problems


def test_verify_names_a_few_problems_and_counts_them_all(written: Written, tmp_path: Path) -> None:
    def spoil_all(rows: Rows) -> None:
        for key in rows:
            if key[0] >= ENTITY_KIND_FIRST:
                rows[key] = rows[key][:-1]

    verdict = verify_state(rewritten(written.state_dir, tmp_path, spoil_all), written.shape)
    assert (len(verdict.problems), verdict.problem_count) == (20, 97)
    assert verdict.entities == {"card": 7, "merchant": 90}


# --- checkpoints -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spoil", SPOILS)
def test_damage_to_any_file_of_a_checkpoint_is_found(written: Written, tmp_path: Path, spoil: Spoil) -> None:
    """Also to those that a state does without."""
    assert written.checkpoint is not None
    assert verify_checkpoint(written.checkpoint.folder, written.shape).sound
    kinds = set()
    for name, folder in spoiled_copies(written.checkpoint.folder, tmp_path / "checkpoint-1", 3, spoil):
        kinds.add(kind_of(name))
        if read_manifest_or_none(folder) == written.checkpoint.manifest:
            assert name != "manifest.json" or spoil is not flipped
            if name == "manifest.json":
                continue  # a space, where there may be any
        assert not verify_checkpoint(folder, written.shape).sound, name
        with pytest.raises(DamageError, match=Path(name).name):
            restore(folder, tmp_path / "state")
        assert not (tmp_path / "state" / "rocksdb").exists()
    assert kinds == {"sst", "MANIFEST", "CURRENT", "OPTIONS", "rocksdict", "manifest.json"}


def read_manifest_or_none(folder: Path) -> Manifest | None:
    with suppress(DamageError):
        return read_manifest(folder)
    return None


def test_every_byte_of_a_manifest_counts(written: Written, tmp_path: Path) -> None:
    assert written.checkpoint is not None
    whole = (written.checkpoint.folder / "manifest.json").read_bytes()
    draw = random.Random(4)
    for at in range(len(whole)):
        (tmp_path / "manifest.json").write_bytes(
            whole[:at] + bytes([whole[at] ^ 1 << draw.randrange(8)]) + whole[at + 1 :]
        )
        # Between its parts one kind of blank may stand for another.
        assert read_manifest_or_none(tmp_path) in (None, written.checkpoint.manifest)


def test_a_damaged_checkpoint_is_listed_as_such(written: Written, tmp_path: Path) -> None:
    assert written.checkpoint is not None
    for number, name in enumerate(("manifest.json", "rocksdb/CURRENT"), 1):
        folder = tmp_path / f"checkpoint-{number}"
        shutil.copytree(written.checkpoint.folder, folder)
        (folder / name).write_bytes(b"short")
    entries = Checkpoints(tmp_path, 2).entries()
    assert [(entry.folder.name, entry.manifest is None) for entry in entries] == [
        ("checkpoint-1", True),
        ("checkpoint-2", False),
    ]
    assert "manifest.json cannot be read" in entries[0].problem
    assert "rocksdb/CURRENT has 5 bytes, not 16" in entries[1].problem
    assert Checkpoints(tmp_path, 2).newest_not_after({0: 1_000}) is None


# --- as commands -----------------------------------------------------------------------------------------------


@pytest.fixture
def here(written: Written, run: Run) -> Config:
    """The configuration, a copy of the state and of the checkpoint in the folder that commands run in."""
    assert written.checkpoint is not None
    shutil.copytree(written.state_dir, "state")
    shutil.copytree(written.checkpoint.folder, "checkpoints/checkpoint-1")
    return configured(Path())


def test_verify_says_that_all_is_well(here: Config, run: Run) -> None:
    ended = run("state", "verify", "--checkpoints")
    assert ended.exit_code == 0
    state, checkpoint = ended.out.splitlines()
    assert state == "state: sound; 99 rows read (flush 3; 7 of card, 90 of merchant; 90 event ids)"
    assert checkpoint == "checkpoint-1: sound; 39 rows read (flush 1; 7 of card, 30 of merchant; 30 event ids)"


def test_verify_ends_with_1_where_the_state_is_damaged(here: Config, run: Run) -> None:
    spoil_rows(Path("state/rocksdb"))
    ended = run("state", "verify", "--json")
    assert ended.exit_code == 1
    verdict = orjson.loads(ended.out)["state"]
    assert not verdict["sound"]
    assert "block checksum mismatch" in verdict["problems"][0]
    ended = run("state", "verify")
    assert ended.exit_code == 1
    assert ended.out.startswith("state: DAMAGED; ")
    assert run("state", "verify", "--checkpoints").exit_code == 1


def test_verify_ends_with_1_where_only_a_checkpoint_is_damaged(here: Config, run: Run) -> None:
    Path("checkpoints/checkpoint-1/rocksdb/CURRENT").write_bytes(b"MANIFEST-000006\n")
    assert run("state", "verify").exit_code == 0
    ended = run("state", "verify", "--checkpoints")
    assert ended.exit_code == 1
    assert "rocksdb/CURRENT does not fit its checksum" in ended.out


def test_verify_needs_a_state_of_the_same_rules(here: Config, run: Run) -> None:
    with Path("tidegate.toml").open("a") as file:
        file.write("[mapping]\nlate_after = '5m'\n")
    assert "made under other rules" in refused(run("state", "verify"))
    shutil.rmtree("state")
    assert "checkpoint-1 was made under other rules" in refused(run("state", "verify", "--checkpoints"))
    assert "holds no state yet" in refused(run("state", "verify"))


def test_checkpoints_are_listed(here: Config, run: Run) -> None:
    shutil.copytree("checkpoints/checkpoint-1", "checkpoints/checkpoint-2")
    Path("checkpoints/checkpoint-2/manifest.json").unlink()
    (broken, sound) = orjson.loads(run("state", "checkpoints", "list", "--json").out)
    assert (broken["sequence"], broken["whole"]) == (None, False)
    assert (sound["sequence"], sound["whole"], sound["vector"]) == (1, True, {"0": 30})
    ended = run("state", "checkpoints", "list")
    assert ended.exit_code == 0
    assert "0: 30" in ended.out
    assert "manifest.json cannot be read" in " ".join(ended.out.split())


def test_a_checkpoint_is_restored_by_its_number(written: Written, here: Config, run: Run) -> None:
    ended = run("state", "restore", "1")
    assert ended.exit_code == 0
    assert "checkpoint 1 is the state now; a worker replays from (partition: offset) 0: 30" in ended.out
    assert "quarantine-3-1" in ended.out
    assert rows_in(Path("state")) == written.past[0]
    assert "there is no checkpoint 9; there are: 1" in refused(run("state", "restore", "9"))


def test_a_state_that_is_damaged_gets_well_as_its_error_says(written: Written, here: Config, run: Run) -> None:
    Path("state/rocksdb/CURRENT").write_bytes(b"?")
    with pytest.raises(DamageError, match="tidegate state restore"):
        Store(Path("state"), CACHE_BYTES)
    assert run("state", "restore", "1", "--json").exit_code == 0
    assert everything(Path("state"), sorted(written.past[0])) == written.past[0]


def test_a_damaged_state_ends_a_command_with_5(here: Config, run: Run) -> None:
    Path("state/rocksdb/CURRENT").write_bytes(b"?")
    ended = run("state", "inspect", "card", "c1")
    assert ended.exit_code == FatalError.exit_code
    assert "is damaged" in refused(ended)


def test_without_a_folder_there_are_no_checkpoints(here: Config, run: Run) -> None:
    text = Path("tidegate.toml").read_text().replace('dir = "checkpoints"\n', "")
    Path("tidegate.toml").write_text(text)
    for command in (("checkpoints", "list"), ("restore", "1"), ("verify", "--checkpoints")):
        assert "state.checkpoints.dir is empty" in refused(run("state", *command))
