"""What a process may take, as it says of itself."""

import resource


def limit(kind: int, soft: int, hard: int) -> None:
    """Sets a limit (`resource.RLIMIT_...`), or leaves a tighter one that is there."""
    _, there = resource.getrlimit(kind)
    if there != resource.RLIM_INFINITY:
        soft, hard = min(soft, there), min(hard, there)
    resource.setrlimit(kind, (soft, hard))
