"""The amounts of a ring's newest marks side by side, so that reading an extreme is no walk over scattered rows.

A monotonic deque, of which one cache line is kept: the n-th number is the amount of the n-th newest mark, as far as it
is known. What newer marks pushed out is not fetched back when those go: it is read from its row again. Rings of fewer
than `KEPT_FROM` places are a few lines themselves and keep none.
"""

import numpy as np
from numpy.typing import NDArray

from features.arena import LINE_WORDS
from features.jit import inlined

Int64 = NDArray[np.int64]

KEPT = LINE_WORDS
KEPT_FROM = 64
UNKNOWN = -(1 << 63)


@inlined
def kept_words(capacity: int) -> int:
    """Words for the amounts of marks of one kind."""
    return KEPT if capacity >= KEPT_FROM else 0


@inlined
def is_kept(heap: Int64, at: int, capacity: int, number: int) -> bool:
    """Whether the amount of a mark is known; 0 is the newest mark."""
    return capacity >= KEPT_FROM and number < KEPT and heap[at + number] != UNKNOWN


@inlined
def keep(heap: Int64, at: int, capacity: int, beaten: int, amount: int) -> None:
    """Puts a new amount first, in place of as many as it has beaten."""
    if capacity < KEPT_FROM:
        return
    if beaten == 0:
        for number in range(KEPT - 1, 0, -1):
            heap[at + number] = heap[at + number - 1]
    else:
        for number in range(1, KEPT):
            source = number + beaten - 1
            heap[at + number] = heap[at + source] if source < KEPT else UNKNOWN
    heap[at] = amount


@inlined
def keep_older(heap: Int64, at: int, capacity: int, number: int, amount: int) -> None:
    """Puts an amount behind so many newer ones."""
    if number < KEPT and capacity >= KEPT_FROM:
        heap[at + number] = amount


@inlined
def forget_kept(heap: Int64, at: int, capacity: int) -> None:
    """Forgets all amounts."""
    for number in range(kept_words(capacity)):
        heap[at + number] = UNKNOWN
