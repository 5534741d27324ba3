"""How kernels are compiled: once per machine, kept on disk, dividing as the processor does.

numba compiles again when a kernel's own file changes, not when a constant that it imports does: after changing one of
those in a checkout, remove `features/__pycache__`.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def kernel(function: Kernel) -> Kernel:
    """A compiled function over plain arrays. Checks no bounds: whoever calls has made sure."""
    compiled: Kernel = njit(cache=True, error_model="numpy")(function)
    return compiled


def inlined(function: Kernel) -> Kernel:
    """A kernel that becomes part of each kernel that calls it."""
    compiled: Kernel = njit(cache=True, error_model="numpy", inline="always")(function)
    return compiled
