"""A Kafka of the run's own, whose nodes may be killed: `scripts/kafka` with a folder of its own."""

import os
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loadtest.errors import LoadTestError

SCRIPT = Path(__file__).parents[2] / "scripts" / "kafka"
START_TIMEOUT_S = 240.0
END_TIMEOUT_S = 30.0


class OwnKafka:
    """Some nodes, numbered from 1; their data outlasts `kill`."""

    def __init__(self, folder: Path, nodes: int) -> None:
        """Nothing runs yet; LoadTestError where this is no checkout, which alone has the script."""
        if not SCRIPT.is_file():
            raise LoadTestError("there is no scripts/kafka beside this package: give --bootstrap")
        self.nodes = nodes
        self._folder = folder / "kafka"
        self._kills = 0

    def start(self) -> str:
        """Starts what does not run, and returns the address once all answer."""
        said = self._run("start", "--nodes", str(self.nodes)).strip()
        return said.rpartition("KAFKA_BOOTSTRAP_SERVERS=")[2]

    def kill(self, node: int) -> None:
        """SIGKILL; returns once it is gone."""
        folder = self._folder / "nodes" / str(node)
        pid = int((folder / "pid").read_text())
        # Not our child, so that only this tells of its end.
        process = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(process, signal.SIGKILL)
            gone, _, _ = select.select([process], [], [], END_TIMEOUT_S)
        finally:
            os.close(process)
        if not gone:
            raise LoadTestError(f"node {node}, process {pid}, outlived SIGKILL by {END_TIMEOUT_S:g} s")
        self._kills += 1
        # The next start begins a log of its own.
        (folder / "server.log").rename(folder / f"server-{self._kills}.log")

    def stop(self) -> None:
        """Ends all; their data stays in the folder."""
        self._run("stop")

    def _run(self, *arguments: str) -> str:
        environment = {**os.environ, "TIDEGATE_KAFKA_HOME": str(self._folder)}
        try:
            done = subprocess.run(
                [SCRIPT, *arguments],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=START_TIMEOUT_S,
            )
        except subprocess.TimeoutExpired as error:
            raise LoadTestError(f"scripts/kafka {arguments[0]} took longer than {START_TIMEOUT_S:g} s") from error
        if done.returncode != 0:
            raise LoadTestError(f"scripts/kafka {arguments[0]} failed: {done.stderr.strip()}")
        return done.stdout


@contextmanager
def running_kafka(folder: Path, nodes: int) -> Iterator[tuple[OwnKafka, str]]:
    """A Kafka and its address; ended at the end, whatever happened."""
    broker = OwnKafka(folder, nodes)
    try:
        yield broker, broker.start()
    finally:
        broker.stop()
