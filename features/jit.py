"""How kernels are compiled: once per machine, kept on disk, dividing as the processor does.

numba compiles again when a kernel's own file changes, not when a constant that it imports does: after changing one of
those in a checkout, remove `features/__pycache__`.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def kernel(function: Kernel) -> Kernel:
    """A compiled function over plain arrays that makes none. Checks no bounds: whoever calls has made sure.

    Without numba's reference counts, which no view of an array needs here and which cost more than many a loop.
    """
    compiled: Kernel = njit(cache=True, error_model="numpy", _nrt=False)(function)
    return compiled


def inlined(function: Kernel) -> Kernel:
    """A kernel that becomes part of each kernel that calls it."""
    compiled: Kernel = njit(cache=True, error_model="numpy", _nrt=False, forceinline=True)(function)
    return compiled


def allocating(function: Kernel) -> Kernel:
    """A kernel that makes arrays."""
    compiled: Kernel = njit(cache=True, error_model="numpy")(function)
    return compiled
