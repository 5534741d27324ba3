"""Faust and Quix Streams: a virtual environment each, from a lock file, and a program in `scripts/peers.d`."""

import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

from loadtest.errors import LoadTestError
from loadtest.peers.peer import Command, Peer, Run

SOURCES = Path(__file__).resolve().parents[2] / "scripts" / "peers.d"


def install(library: str, cache: Path) -> None:
    """Makes the environment that the lock file describes, unless it is there; LoadTestError where pip cannot."""
    lock = SOURCES / f"{library}.lock"
    environment, stamp = cache / library, cache / library / "installed.lock"
    if stamp.exists() and stamp.read_bytes() == lock.read_bytes():
        return
    shutil.rmtree(environment, ignore_errors=True)
    pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for command in (
        [sys.executable, "-m", "venv", str(environment)],
        [*pip, "--require-hashes", "-r", str(lock)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise LoadTestError(f"{library}: {' '.join(command)}: {done.stderr.strip()[-500:]}")
    stamp.write_bytes(lock.read_bytes())


def _command(library: str, program: str, further: tuple[str, ...], run: Run) -> Command:
    python = run.cache / library / "bin" / "python"
    return Command([str(python), str(SOURCES / program), *run.options(), *further])


QUIX = Peer(
    "quix",
    "tumbling",
    False,
    partial(_command, "quix", "quix_job.py", ("--window", "tumbling")),
    partial(install, "quix"),
)
QUIX_SLIDING = Peer(
    "quix-sliding",
    "sliding",
    True,
    partial(_command, "quix", "quix_job.py", ("--window", "sliding")),
    partial(install, "quix"),
)
FAUST = Peer(
    "faust",
    "tumbling",
    False,
    partial(_command, "faust", "faust_job.py", ()),
    partial(install, "faust"),
)
