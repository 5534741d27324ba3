"""Tries a model for `models.trial`: reads it from standard input, answers on standard output.

Once the bytes are here, no file, socket or pipe can be opened any more, by whatever code, nor anything be written to a
file: a process whose limit of descriptors is 0 gets none. Whatever a model names outside itself stays unread.
"""

import resource
import sys
from pathlib import Path

import msgspec

from models.errors import ModelError
from models.gate import MODEL_BYTES_MAX, check_graph
from models.limits import limit
from models.manifest import MANIFEST_BYTES_MAX, parse_manifest
from models.store import MANIFEST_FILE, MODEL_FILE, read_part, resolve, shipped_store
from models.trial import Answer, Limits
from models.trust import trusted_session

REHEARSED = "demo@champion"
PARTS = ((MANIFEST_FILE, MANIFEST_BYTES_MAX), (MODEL_FILE, MODEL_BYTES_MAX))


def main() -> None:
    """One model; what is no ModelError ends the process and is the parent's to tell."""
    limits, manifest, model = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=tuple[Limits, bytes, bytes])
    rehearse()
    confine(limits)
    sys.stdout.buffer.write(msgspec.json.encode(Answer(refusal(manifest, model))))


def rehearse() -> None:
    """Tries a model that ships, for libraries read parts of themselves only when these are used."""
    located = resolve(shipped_store(), REHEARSED)
    manifest, model = (read_part(shipped_store(), located, *part) for part in PARTS)
    if (found := refusal(manifest, model)) is not None:
        raise RuntimeError(f"the model that ships: {found}")


def confine(limits: Limits) -> None:
    """Gives up files for good, and takes on the limits of memory and of time of the processor."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = int(used.ru_utime + used.ru_stime) + 1 + limits.cpu_s
    limit(resource.RLIMIT_AS, limits.memory_bytes, limits.memory_bytes)
    limit(resource.RLIMIT_CORE, 0, 0)
    limit(resource.RLIMIT_FSIZE, 0, 0)
    limit(resource.RLIMIT_NOFILE, 0, 0)
    # At the first comes SIGXCPU, by which the parent knows what happened; SIGKILL at the second.
    limit(resource.RLIMIT_CPU, cpu_s, cpu_s + 1)


def refusal(manifest: bytes, model: bytes) -> str | None:
    """What is wrong with the model, None where nothing is."""
    try:
        known = parse_manifest(manifest, Path(MANIFEST_FILE))
        check_graph(model, len(known.features), known.opset)
        trusted_session(model, known)
    except ModelError as error:
        return str(error)
    except MemoryError:
        return "its trial takes more memory than it may"
    return None


if __name__ == "__main__":
    main()
