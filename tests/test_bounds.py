"""The kernels once more with bounds checks, which they are compiled without: no index of theirs is out of bounds.

numba's cache does not know whether it was filled with checks, so these runs have one of their own.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
KERNEL_TESTS = ("tests/property", "tests/unit/test_cache.py", "tests/unit/test_dedupe.py")

# A ring that claims to lie past the heap's end, and a batch that claims a slot that is not there.
PLANTED = """
import sys
import numpy as np
from features.arena import CAPACITY, KIND, LENGTH, POSITION, SLOT_WORDS, pack, ring_words

slots, heap = np.zeros((1, SLOT_WORDS), np.int64), np.zeros(64, np.int64)
slots[0, [POSITION, CAPACITY, LENGTH]] = (60, 4, 4)
counts, blobs = np.zeros(1, np.int64), np.zeros(1_000, np.uint8)
planted = {
    "heap": lambda: pack(np.zeros(1, np.int64), slots, heap, counts, blobs),
    "slot": lambda: ring_words(np.ones(1, np.int32), slots, counts),
}
planted[sys.argv[1]]()
print("read")
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("numba")


def checked(cache: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs Python with every index of every kernel checked."""
    environment = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(cache)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_no_kernel_reads_or_writes_out_of_bounds(cache: Path) -> None:
    ended = checked(cache, "-m", "pytest", "-p", "no:cacheprovider", *KERNEL_TESTS)
    assert ended.returncode == 0, ended.stdout[-4_000:]
    assert list(cache.rglob("*.nbi")), "nothing was compiled"


@pytest.mark.parametrize("where", ["heap", "slot"])
def test_what_is_out_of_bounds_is_found_in_this_way(cache: Path, where: str) -> None:
    ended = checked(cache, "-c", PLANTED, where)
    assert ended.returncode == 1
    assert "IndexError: index is out of bounds" in ended.stderr
