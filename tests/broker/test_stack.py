"""scripts/stack starts everything, starts again what was killed, and leaves nothing behind."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka.admin import AdminClient

pytestmark = [pytest.mark.broker, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
# The first start on a machine compiles the kernels.
DEADLINE_S = 300.0
END_DEADLINE_S = 60.0


def until(holds: Callable[[], bool], why: Callable[[], str]) -> None:
    """Waits for what other processes do."""
    give_up_at = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < give_up_at, why()
        time.sleep(0.2)


def ask(url: str) -> str:
    """What is answered; nothing where nobody answers, or with an error."""
    with contextlib.suppress(OSError):
        return str(urllib.request.urlopen(url, timeout=2).read().decode())
    return ""


def processes(home: Path) -> dict[int, str]:
    """Command lines of everything that was started with something in the folder."""
    found = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and str(home).encode() in (line := (entry / "cmdline").read_bytes()):
                found[int(entry.name)] = line.replace(b"\0", b" ").decode()
    return found


def test_it_decides_restarts_and_ends(kafka_bootstrap: str, tmp_path: Path) -> None:
    home = tmp_path / f"stack-{uuid4().hex[:8]}"
    environment = {**os.environ, "TIDEGATE_STACK_HOME": str(home), "KAFKA_BOOTSTRAP_SERVERS": kafka_bootstrap}
    out = tmp_path / "out"
    with out.open("w") as file:
        stack = subprocess.Popen(
            [sys.executable, ROOT / "scripts" / "stack", "--rate", "100"], env=environment, stdout=file, stderr=file
        )
    try:
        until(lambda: "Ctrl-C ends" in out.read_text() or stack.poll() is not None, out.read_text)
        workers = re.findall(r"^worker \w +(http://\S+)/metrics", out.read_text(), re.MULTILINE)
        assert len(workers) == 2, out.read_text()
        decided = re.compile(r'^tidegate_events_total{outcome="decided"} [1-9]', re.MULTILINE)
        until(lambda: any(decided.search(ask(f"{url}/metrics")) for url in workers), out.read_text)

        (killed,) = [pid for pid, line in processes(home).items() if f"run --config {home}/a.toml" in line]
        os.kill(killed, signal.SIGKILL)
        until(lambda: "a ended by SIGKILL" in out.read_text(), out.read_text)
        until(
            lambda: (
                sorted("active" in ask(f"{url}/readyz") for url in workers) == [False, True]
                and all('"ok":true' in ask(f"{url}/readyz") for url in workers)
            ),
            out.read_text,
        )

        again = subprocess.run(
            [sys.executable, ROOT / "scripts" / "stack"], env=environment, capture_output=True, text=True, check=False
        )
        assert (again.returncode, again.stderr) == (1, f"scripts/stack: another one runs in {home}\n")

        stack.send_signal(signal.SIGINT)
        assert stack.wait(END_DEADLINE_S) == 0, out.read_text()
    finally:
        stack.kill()
        stack.wait()
    until(lambda: not processes(home), lambda: str(processes(home)))
    topics = AdminClient({"bootstrap.servers": kafka_bootstrap}).list_topics(timeout=10).topics
    assert [name for name in topics if name.startswith(home.name)] == []
    assert "killed" not in out.read_text()
    assert (home / "a.log").read_text().rstrip().splitlines()[-1].find('"stopped"') > 0


def test_what_the_control_plane_says_is_measured_while_it_is_killed(kafka_bootstrap: str, tmp_path: Path) -> None:
    """Short: too short for every attack, and for figures that are within three points of the truth."""
    home, figures = tmp_path / f"stack-{uuid4().hex[:8]}", tmp_path / "stack.json"
    environment = {**os.environ, "TIDEGATE_STACK_HOME": str(home), "KAFKA_BOOTSTRAP_SERVERS": kafka_bootstrap}
    options = ["--minutes=0.9", "--rate=200", "--attacks=8", "--labels", "--kills=1", f"--json={figures}"]
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "stack", *options],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
    )
    assert figures.exists(), done.stderr
    found = json.loads(figures.read_text())
    assert (found["missing"], found["sampled"]) == (0, found["labelled"]), found
    assert found["sent"] == found["decided"] > 0
    for name in ("precision", "recall"):
        assert found[name] == pytest.approx(found[f"{name}_sampled"], abs=1e-6), found
        assert 0 < found[f"{name}_truth"] < 1
    assert 0 < found["attacks_in_cases"] <= found["attacks"]
    assert "is not what the samples say" not in done.stderr
    until(lambda: not processes(home), lambda: str(processes(home)))
