"""The first load of a model, in a process of its own: a file that crashes, hangs or eats memory harms nobody else.

    models.trial                                    models.trial_child
    manifest.json and model.onnx, as they were read ------> limits itself, so that it can open no file any more
                                                            graph, session, golden rows, probes
    what is wrong with the model, or nothing <------------- or its end: by a signal, or by the limit of time

What stood the trial is remembered by its bytes while this process lives. Another process tries it again, for it may
have another ONNX Runtime, another machine and other limits.
"""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from hashlib import sha256

import msgspec

from models.errors import ModelError, one_line


@dataclass(frozen=True, slots=True)
class Limits:
    """What the trial of one model may take: address space, libraries included; time of the processor; time."""

    memory_bytes: int = 2 * 1024 * 1024 * 1024
    cpu_s: int = 30
    wall_s: float = 120.0


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the child found; `refusal` is None for a model that may be loaded."""

    refusal: str | None


LIMITS = Limits()
_stood: set[tuple[bytes, bytes]] = set()


def stand_trial(manifest: bytes, model: bytes) -> None:
    """Returns where the model may be loaded into this process; ModelError says why it may not."""
    tried = (sha256(manifest).digest(), sha256(model).digest())
    if tried in _stood:
        return
    refusal = _try(manifest, model, LIMITS)
    if refusal is not None:
        raise ModelError(refusal)
    _stood.add(tried)


def _try(manifest: bytes, model: bytes, limits: Limits) -> str | None:
    child = subprocess.Popen(
        # -P: nothing is imported from the folder that this command runs in.
        [sys.executable, "-P", "-m", "models.trial_child"],
        env=_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        process_group=0,  # Ctrl-C is for us
    )
    with child:
        try:
            said, complained = child.communicate(msgspec.msgpack.encode((limits, manifest, model)), limits.wall_s)
        except subprocess.TimeoutExpired:
            return f"its trial takes more than {limits.wall_s:g} s"
        finally:
            child.kill()
    if child.returncode < 0:
        return _ended_by(-child.returncode, limits)
    if child.returncode > 0:
        last = one_line(complained.decode("utf-8", "replace").rstrip().rpartition("\n")[2])
        return f"its trial failed: {last or f'exit code {child.returncode}'}"
    return msgspec.json.decode(said, type=Answer).refusal


def _environment() -> dict[str, str]:
    """Ours without our settings, for passwords may be among them, and without threads, for these take address space."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE")}
    return {**kept, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def _ended_by(number: int, limits: Limits) -> str:
    if number == signal.SIGXCPU:
        return f"its trial takes more than {limits.cpu_s} s of the processor"
    return f"it crashes whoever loads it ({signal.Signals(number).name})"
