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
# Overflow, tiles, tables of values, forgetting, growth, giving up, flush and reload are all in these.
KERNEL_TESTS = ("tests/property", "tests/features", "tests/unit/test_cache.py", "tests/unit/test_dedupe.py")
PROPERTY_EXAMPLES = "200"

# A state with an entity whose ring has overflowed, in which one number then points out of bounds: the entity's block
# in its slot, its tiles in its block, a batch's slot, or a word of a batch that is not there.
PLANTED = """
import sys
from engine.state.local import LocalState
from features.arena import POSITION, block_words
from features.ring import TILES_AT
from tests.build import batch_of, full_config
from tests.features.timelines import event

config = full_config(("1s", "1h"), 4)
spec = config.feature_spec()
state = LocalState(config, spec, "f", None)
cache = state._cache
batch = batch_of([event(number, 100 + number, number) for number in range(12)], spec)
state.features(batch)


def block():
    cache.slots[:2, POSITION] = len(cache.heap)
    state.features(batch)


def tiles():
    for slot in range(2):
        cache.heap[cache.slots[slot, POSITION] + TILES_AT] = len(cache.heap)
    state.features(batch)


def slot():
    cache.dirty[:1] = len(cache.slots)
    block_words(cache.dirty[:1], cache.slots, cache.heap)


def word():
    batch.words = batch.words[:, : len(spec.entities)].copy()
    state.features(batch)


{"block": block, "tiles": tiles, "slot": slot, "word": word}[sys.argv[1]]()
print("read")
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("numba")


def checked(cache: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs Python with every index of every kernel checked."""
    environment = {
        **os.environ,
        "NUMBA_BOUNDSCHECK": "1",
        "NUMBA_CACHE_DIR": str(cache),
        "TIDEGATE_PROPERTY_EXAMPLES": PROPERTY_EXAMPLES,
    }
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_no_kernel_reads_or_writes_out_of_bounds(cache: Path) -> None:
    ended = checked(cache, "-m", "pytest", "-p", "no:cacheprovider", *KERNEL_TESTS)
    assert ended.returncode == 0, ended.stdout[-4_000:]
    assert list(cache.rglob("*.nbi")), "nothing was compiled"


@pytest.mark.parametrize("where", ["block", "tiles", "slot", "word"])
def test_what_is_out_of_bounds_is_found_in_this_way(cache: Path, where: str) -> None:
    ended = checked(cache, "-c", PLANTED, where)
    assert ended.returncode == 1
    assert "IndexError: index is out of bounds" in ended.stderr
