"""Bit sets over ring places, and the few machine instructions that numba has no name for.

A bit set of a ring is one bit for each place, in words of 64; a small ring has one word. Places wrap, so a range of
ring events is one or two runs of bits.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from features.arena import LINE_WORDS
from features.jit import inlined

Int64 = NDArray[np.int64]

WORD_BITS = 64
TAG_BITS, LINE_TAGS = 16, 32  # a tag, and how many are compared at once
ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
ONE = np.uint64(1)


@intrinsic  # type: ignore[untyped-decorator]
def lowest_bit(typing_context: Any, word: Any) -> Any:
    """`lowest_bit(word)`: the number of the lowest bit that is set, 64 where none is."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate


@intrinsic  # type: ignore[untyped-decorator]
def leading_zeros(typing_context: Any, word: Any) -> Any:
    """`leading_zeros(word)`: how many bits are above the highest one that is set, 64 where none is."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate


@intrinsic  # type: ignore[untyped-decorator]
def population(typing_context: Any, word: Any) -> Any:
    """`population(word)`: how many bits are set."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), generate


@intrinsic  # type: ignore[untyped-decorator]
def high_square(typing_context: Any, value: Any) -> Any:
    """`high_square(x)`: the upper 64 of the 128 bits of x * x; the lower ones are what `x * x` gives."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wide = builder.sext(arguments[0], ir.IntType(128))
        return builder.trunc(builder.lshr(builder.mul(wide, wide), ir.Constant(ir.IntType(128), 64)), ir.IntType(64))

    return types.int64(types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def squares_about_mean(typing_context: Any, count: Any, low: Any, high: Any, total: Any) -> Any:
    """`squares_about_mean(n, low, high, total)`: n * (high:low) - total^2 in 128 bits, then as a float64.

    With (high:low) the sum of squares and total the sum of n values, this is n(n-1) times their sample variance. Exact
    before the conversion as long as n * |value| stays below 2^63.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wide, word, double = ir.IntType(128), ir.IntType(64), ir.DoubleType()
        count, low, high, total = arguments
        shift = ir.Constant(wide, 64)
        squares = builder.or_(builder.shl(builder.zext(high, wide), shift), builder.zext(low, wide))
        total = builder.sext(total, wide)
        difference = builder.sub(builder.mul(builder.zext(count, wide), squares), builder.mul(total, total))
        upper = builder.uitofp(builder.trunc(builder.lshr(difference, shift), word), double)
        lower = builder.uitofp(builder.trunc(difference, word), double)
        return builder.fadd(builder.fmul(upper, ir.Constant(double, 2.0**64)), lower)

    return types.float64(types.int64, types.uint64, types.uint64, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def equal_tags(typing_context: Any, heap: Any, first: Any, tag: Any) -> Any:
    """`equal_tags(heap, first, x)`: bit k is set where the k-th 16 bits from `heap[first]` on are x, for a line."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lanes = ir.VectorType(ir.IntType(TAG_BITS), LINE_TAGS)
        found = _load(context, builder, signature.args[0], arguments, lanes)
        tag = builder.trunc(arguments[2], ir.IntType(TAG_BITS))
        equal = builder.icmp_signed("==", found, _splat(builder, tag, lanes))
        return builder.zext(builder.bitcast(equal, ir.IntType(LINE_TAGS)), ir.IntType(64))

    return types.uint64(heap, types.int64, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def read_from_byte(typing_context: Any, heap: Any, at: Any, byte: Any) -> Any:
    """`read_from_byte(heap, at, k)`: the eight bytes from the k-th after `heap[at]` on, as one word."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_byte_at(context, builder, signature.args[0], *arguments[:3]), align=1)

    return types.int64(heap, types.int64, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def write_from_byte(typing_context: Any, heap: Any, at: Any, byte: Any, word: Any) -> Any:
    """`write_from_byte(heap, at, k, x)`: writes what `read_from_byte` reads."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[3], _byte_at(context, builder, signature.args[0], *arguments[:3]), align=1)
        return context.get_dummy_value()

    return types.void(heap, types.int64, types.int64, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def words_until(typing_context: Any, heap: Any, first: Any, limit: Any) -> Any:
    """`words_until(heap, first, x)`: bit k is set where `heap[first + k]` is at most x, for a cache line of words."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lanes = ir.VectorType(ir.IntType(64), LINE_WORDS)
        found = _load(context, builder, signature.args[0], arguments, lanes)
        until = builder.icmp_signed("<=", found, _splat(builder, arguments[2], lanes))
        return builder.zext(builder.bitcast(until, ir.IntType(LINE_WORDS)), ir.IntType(64))

    return types.uint64(heap, types.int64, types.int64), generate


def _load(context: Any, builder: Any, array_type: Any, arguments: Any, lanes: Any) -> Any:
    """As many words of an array as there are lanes, from an index on, wherever that lies."""
    return builder.load(_lanes_at(context, builder, array_type, arguments[0], [arguments[1]], lanes), align=8)


def _lanes_at(context: Any, builder: Any, array_type: Any, array: Any, index: Any, lanes: Any) -> Any:
    """Where in an array so many lanes begin."""
    view = context.make_array(array_type)(context, builder, array)
    item = cgutils.get_item_pointer(context, builder, array_type, view, index)
    return builder.bitcast(item, lanes.as_pointer())


def _byte_at(context: Any, builder: Any, array_type: Any, array: Any, at: Any, byte: Any) -> Any:
    """Where the word begins that is so many bytes after one of an array."""
    view = context.make_array(array_type)(context, builder, array)
    item = cgutils.get_item_pointer(context, builder, array_type, view, [at])
    first = builder.bitcast(item, ir.IntType(8).as_pointer())
    return builder.bitcast(builder.gep(first, [byte]), ir.IntType(64).as_pointer())


def _splat(builder: Any, value: Any, lanes: Any) -> Any:
    """The value in every lane."""
    number, undefined = ir.IntType(32), ir.Constant(lanes, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(number, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(number, lanes.count), None))


@inlined
def words_of(capacity: int) -> int:
    """Words of a bit set over so many places."""
    return max(1, capacity // WORD_BITS)


@inlined
def has_bit(heap: Int64, bits: int, place: int) -> bool:
    """Whether the bit of a place is set."""
    return bool((heap[bits + (place >> 6)] >> (place & 63)) & 1)


@inlined
def set_bit(heap: Int64, bits: int, place: int) -> None:
    """Sets the bit of a place."""
    heap[bits + (place >> 6)] |= np.int64(1) << (place & 63)


@inlined
def clear_bit(heap: Int64, bits: int, place: int) -> None:
    """Clears the bit of a place."""
    heap[bits + (place >> 6)] &= ~(np.int64(1) << (place & 63))


@inlined
def _count_run(heap: Int64, bits: int, first: int, last: int) -> int:
    """How many bits are set from place `first` to place `last`, which does not wrap."""
    word, last_word = first >> 6, last >> 6
    above = ALL << np.uint64(first & 63)
    below = ALL >> np.uint64(63 - (last & 63))
    if word == last_word:
        return population(np.uint64(heap[bits + word]) & above & below)
    count = population(np.uint64(heap[bits + word]) & above)
    for between in range(word + 1, last_word):
        count += population(np.uint64(heap[bits + between]))
    return count + population(np.uint64(heap[bits + last_word]) & below)


@inlined
def count_bits(heap: Int64, bits: int, first: int, last: int, mask: int) -> int:
    """How many bits are set among the places first..last of a ring, both included, modulo mask + 1."""
    if last < first:
        return 0
    start, end = first & mask, last & mask
    if start <= end:
        return _count_run(heap, bits, start, end)
    return _count_run(heap, bits, start, mask) + _count_run(heap, bits, 0, end)


@inlined
def rank_bits(heap: Int64, bits: int, capacity: int, ranks: Int64) -> int:
    """Writes how many bits are set before each word of a bit set; returns how many there are."""
    count = 0
    for word in range(words_of(capacity)):
        ranks[word] = count
        count += population(np.uint64(heap[bits + word]))
    return count


@inlined
def bits_before(heap: Int64, bits: int, ranks: Int64, place: int) -> int:
    """How many bits are set before a place, which does not wrap; `ranks` as `rank_bits` wrote them."""
    word = place >> 6
    return ranks[word] + population(np.uint64(heap[bits + word]) & ~(ALL << np.uint64(place & 63)))


@inlined
def next_bit(heap: Int64, bits: int, first: int, last: int, mask: int) -> int:
    """The first place of first..last whose bit is set, counted on without wrapping; last + 1 where there is none."""
    place = first
    while place <= last:
        physical = place & mask
        found = lowest_bit(np.uint64(heap[bits + (physical >> 6)]) >> np.uint64(physical & 63))
        if found < WORD_BITS - (physical & 63):
            return min(place + found, last + 1)
        place += min(WORD_BITS, mask + 1) - (physical & 63)
    return last + 1


@inlined
def previous_bit(heap: Int64, bits: int, last: int, first: int, mask: int) -> int:
    """The last place of first..last whose bit is set, counted on without wrapping; first - 1 where there is none."""
    place = last
    while place >= first:
        physical = place & mask
        found = leading_zeros(np.uint64(heap[bits + (physical >> 6)]) << np.uint64(63 - (physical & 63)))
        if found <= physical & 63:
            return max(place - found, first - 1)
        place -= (physical & 63) + 1
    return first - 1
