"""Disk full: said in one line, nothing of the state lost, and once there is room it goes on from there.

On a real small file system, in a mount namespace of its own; where that is not allowed, and beside it everywhere, with
a limit on the size of files, which needs nobody's leave and fails the same writes.
"""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import orjson
import pytest

from engine.state.store import DISK_FREE_BYTES_MIN
from tests.state.full_disk import TASKS, Outcome, file_limit, outcomes

ROOT = Path(__file__).parent.parent.parent
DISK_BYTES = 4 << 20
# As root, and as somebody who may be root among his own.
NAMESPACES = (("unshare", "--mount"), ("unshare", "--user", "--map-root-user", "--mount"))

FLUSHING = ("flush", "ingest", "checkpoint")


def judge(found: list[Outcome]) -> Counter[str]:
    """Nothing lost, whatever failed; how often which task failed."""
    for outcome in found:
        assert outcome.stands != "LOST", outcome
        assert outcome.sound, outcome
        assert outcome.goes_on, outcome
        assert "\n" not in outcome.said, outcome
        assert outcome.said == "" or "no room left" in outcome.said, outcome
        # The fourth flush may be there although it failed, for it is of what was committed.
        assert outcome.stands == "before" or outcome.task in FLUSHING, outcome
        assert outcome.stands == "after" or outcome.task not in FLUSHING or outcome.said, outcome
    return Counter(outcome.task for outcome in found if outcome.said)


def test_a_file_that_cannot_grow_loses_nothing(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    failed = judge(outcomes(tmp_path / "base", tmp_path / "disk", file_limit, range(0, 24_000, 800)))
    assert all(failed[task] >= 3 for task in TASKS), failed


def _on_a_small_disk(namespace: tuple[str, ...], command: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    script = f'mount -t tmpfs -o size={DISK_BYTES} tidegate "$1" && {command}'
    return subprocess.run(
        [*namespace, "sh", "-c", script, "sh", *arguments], cwd=ROOT, capture_output=True, check=False
    )


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    disk, base = tmp_path / "disk", tmp_path / "base"
    disk.mkdir()
    allowed = [namespace for namespace in NAMESPACES if _on_a_small_disk(namespace, "true", str(disk)).returncode == 0]
    if not allowed:
        pytest.skip("nothing may be mounted here; the test with a limit on the size of files stands in for it")
    command = f'exec "{sys.executable}" -m tests.state.full_disk "$1" "$2"'
    done = _on_a_small_disk(allowed[0], command, str(disk), str(base))
    assert done.returncode == 0, done.stderr.decode()
    failed = judge([Outcome(**fields) for fields in orjson.loads(done.stdout)])
    # A page of MANIFEST has room for one line more.
    assert all(failed[task] >= 2 for task in TASKS if task != "ingest"), failed


def test_so_much_is_kept_free_that_none_of_this_is_met_by_a_worker() -> None:
    assert DISK_FREE_BYTES_MIN >= 64 << 20
