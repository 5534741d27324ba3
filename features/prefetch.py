"""Asking the processor for a cache line before it is needed.

Entities lie scattered over hundreds of megabytes, so that without this nearly every access waits for memory: half of
the kernel's time at 100,000 entities (docs/performance.md).
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_READ, _KEEP_IN_ALL_CACHES, _DATA = 0, 3, 1


@intrinsic  # type: ignore[untyped-decorator]
def prefetch(typing_context: Any, array: Any, index: Any) -> Any:
    """`prefetch(array, index)`: starts loading the line of `array[index]`; touches nothing else.

    An index out of bounds is harmless: a prefetch cannot fault.
    """
    signature = types.void(array, types.intp)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array_type = signature.args[0]
        view = context.make_array(array_type)(context, builder, arguments[0])
        address = cgutils.get_item_pointer(
            context,
            builder,
            array_type,
            view,
            [arguments[1]] + [ir.Constant(ir.IntType(64), 0)] * (array_type.ndim - 1),
        )
        pointer = ir.IntType(8).as_pointer()
        number = ir.IntType(32)
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [pointer, number, number, number]), "llvm.prefetch.p0"
        )
        hints = [ir.Constant(number, hint) for hint in (_READ, _KEEP_IN_ALL_CACHES, _DATA)]
        builder.call(function, [builder.bitcast(address, pointer), *hints])
        return context.get_dummy_value()

    return signature, generate
