"""Kafka Streams and Flink: a small Maven project each, in `scripts/peers.d`, built once into classes and jars."""

import hashlib
import os
import shutil
import subprocess
from functools import partial
from pathlib import Path

from loadtest.errors import LoadTestError
from loadtest.peers.peer import Command, Peer, Run
from loadtest.peers.python_peers import SOURCES

# As for every other JVM here, see scripts/kafka: on two processors several collecting threads wait for one another.
JVM = ("-Xms2g", "-Xmx2g", "-XX:+UseG1GC", "-XX:ParallelGCThreads=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
# Flink's own start scripts open these for Java 17 (conf/config.yaml, env.java.opts.all).
_OPENED_PACKAGES = (
    "lang net io nio text time util lang.reflect util.concurrent util.concurrent.atomic util.concurrent.locks"
)
OPENED = tuple(f"--add-opens=java.base/java.{package}=ALL-UNNAMED" for package in _OPENED_PACKAGES.split())


def _program(name: str) -> str:
    """The path of java or mvn; LoadTestError where it is missing."""
    home = os.environ.get("JAVA_HOME")
    found = (home and shutil.which(name, path=f"{home}/bin")) or shutil.which(name)
    if found is None:
        raise LoadTestError(f"{name} is missing: apt-get install openjdk-17-jdk-headless maven")
    return found


def _sources(project: str) -> str:
    """What is to be built, as a digest."""
    digest = hashlib.sha256()
    for path in sorted((SOURCES / project).rglob("*")):
        if path.is_file() and "target" not in path.parts:
            digest.update(path.read_bytes())
    return digest.hexdigest()


def install(project: str, cache: Path) -> None:
    """Compiles the project and gets its jars, unless that is done; LoadTestError where Maven cannot."""
    folder, stamp, sources = cache / project, cache / project / "built.sha256", _sources(project)
    if stamp.exists() and stamp.read_text() == sources:
        return
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(SOURCES / project, folder)
    command = [_program("mvn"), "-q", "-B", "compile", "dependency:copy-dependencies"]
    command += ["-DincludeScope=runtime", f"-DoutputDirectory={folder / 'lib'}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LoadTestError(f"{project}: Maven: {done.stdout.strip()[-1_000:]}")
    stamp.write_text(sources)


def _command(project: str, main: str, run: Run) -> Command:
    folder = run.cache / project
    path = f"{folder / 'target' / 'classes'}:{folder / 'lib'}/*"
    return Command([_program("java"), *JVM, *OPENED, "-cp", path, main, *run.options()])


def _peer(name: str, project: str, main: str, parallelism: int) -> Peer:
    command, built = partial(_command, project, main), partial(install, project)
    return Peer(name, "sliding", True, command, built, parallelism=parallelism)


STREAMS = _peer("kafka-streams", "kafka-streams", "peers.WindowStoreJob", 2)
STREAMS_SLIDING = _peer("kafka-streams-sliding", "kafka-streams", "peers.SlidingWindowsJob", 2)
FLINK_SQL = _peer("flink-sql", "flink", "peers.SqlJob", 1)
FLINK_PROCESS = _peer("flink-process", "flink", "peers.ProcessJob", 1)
