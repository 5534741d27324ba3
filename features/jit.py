"""How kernels are compiled: once per machine, kept on disk, dividing as the processor does, counting from the front.

numba compiles again when a kernel's own file changes, but kernels take in constants and functions of other files. So
what it keeps lies in a folder that is named after the contents of all of them.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba import njit, types
from numba.core import ir
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import FunctionPass, register_pass
from numba.core.typed_passes import NopythonRewrites
from numba.core.typing import signature

Kernel = TypeVar("Kernel", bound=Callable[..., Any])
_SOURCES = Path(__file__).parent


def _cache_folder() -> str:
    """Where NUMBA_CACHE_DIR says, or beside Python's own; where that may not be written, numba looks for another."""
    sources = hashlib.sha256()
    for path in sorted(_SOURCES.glob("*.py")):
        sources.update(path.read_bytes())
    parent = Path(numba.config.CACHE_DIR or _SOURCES / "__pycache__")
    return str(parent / f"kernels-{sources.hexdigest()[:16]}")


_CACHE_FOLDER = _cache_folder()


@contextmanager
def _own_cache() -> Iterator[None]:
    """For what is compiled in here alone: the setting is that of the process."""
    before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, _CACHE_FOLDER
    try:
        yield
    finally:
        numba.config.CACHE_DIR = before


@register_pass(mutates_CFG=False, analysis_only=False)
class _UnsignedIndices(FunctionPass):  # type: ignore[misc]
    """Makes every index of an array unsigned, so that none is compared with 0 in case it counts from the end.

    Kernels do little but read words of a heap: that comparison was a seventh of their time.
    """

    _name = "unsigned_indices"

    def __init__(self) -> None:
        super().__init__()

    def run_pass(self, state: Any) -> bool:
        for block in state.func_ir.blocks.values():
            body = []
            for statement in block.body:
                access = statement.value if isinstance(statement, ir.Assign) else statement
                if isinstance(access, ir.SetItem) or (isinstance(access, ir.Expr) and access.op == "getitem"):
                    body += _cast_index(access, block.scope, state.typemap, state.calltypes)
                body.append(statement)
            block.body = body
        return True


def _cast_index(access: Any, scope: Any, types_of: dict[str, Any], calls: dict[Any, Any]) -> list[Any]:
    """The statement that makes the index of a read or write unsigned; none where it is no signed number."""
    index, call = access.index, calls[access]
    unsigned = _unsigned(types_of[index.name])
    if unsigned is None or not isinstance(call.args[0], types.Array):
        return []
    access.index = scope.redefine("$unsigned_index", access.loc)
    types_of[access.index.name] = unsigned
    del calls[access]  # which takes no second value for a key
    calls[access] = signature(call.return_type, call.args[0], unsigned, *call.args[2:])
    return [ir.Assign(ir.Expr.cast(index, access.loc), access.index, access.loc)]


def _unsigned(index: Any) -> Any:
    """The unsigned type for a signed index or for a tuple of indices; None for slices and what is unsigned."""
    if isinstance(index, types.Integer) and index.signed:
        return types.uintp
    if isinstance(index, types.UniTuple) and isinstance(index.dtype, types.Integer):
        return types.UniTuple(types.uintp, index.count)
    return None


class _KernelCompiler(CompilerBase):  # type: ignore[misc]
    """numba's own passes and the one above."""

    def define_pipelines(self) -> list[Any]:
        passes = DefaultPassBuilder.define_nopython_pipeline(self.state)
        passes.add_pass_after(_UnsignedIndices, NopythonRewrites)
        passes.finalize()
        return [passes]


def kernel(function: Kernel) -> Kernel:
    """A compiled function over plain arrays that makes none. Checks no bounds: whoever calls has made sure.

    Without numba's reference counts, which no view of an array needs here and which cost more than many a loop.
    """
    return _compiled(function, _nrt=False)


def inlined(function: Kernel) -> Kernel:
    """A kernel that becomes part of each kernel that calls it."""
    return _compiled(function, _nrt=False, forceinline=True)


def allocating(function: Kernel) -> Kernel:
    """A kernel that makes arrays."""
    return _compiled(function)


def _compiled(function: Kernel, **flags: bool) -> Kernel:
    with _own_cache():
        compiled: Kernel = njit(cache=True, error_model="numpy", pipeline_class=_KernelCompiler, **flags)(function)
    return compiled
