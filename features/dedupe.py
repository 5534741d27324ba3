"""Which events of one source partition were accepted before: a bounded FIFO of event-id hashes with a lookup table.

Entry number i (counted since the partition's beginning) stands in place i mod C of `hashes` and `clocks_ms`; `table`
holds place + 1 by hash, linear probing with backward-shift deletion, twice as many entries as places. An entry's clock
is the partition's newest accepted time when it came in, so clocks never fall and entries expire in order.
`counters` = [first live entry, next entry, newest accepted time].
"""

import numpy as np
from numpy.typing import NDArray

from features.jit import kernel

Int64 = NDArray[np.int64]
UInt64 = NDArray[np.uint64]
Int32 = NDArray[np.int32]
Bool = NDArray[np.bool_]

FIRST, NEXT, NEWEST_MS = range(3)


@kernel
def _home(key: np.uint64, mask: int) -> int:
    return int(np.int64((key * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(20)) & mask)


@kernel
def _find(key: np.uint64, hashes: UInt64, table: Int32) -> int:
    """The table entry that holds the key, or the empty one where it would stand."""
    mask = table.shape[0] - 1
    at = _home(key, mask)
    while table[at] != 0 and hashes[table[at] - 1] != key:
        at = (at + 1) & mask
    return int(at)


@kernel
def _forget_oldest(hashes: UInt64, table: Int32, counters: Int64) -> None:
    mask = table.shape[0] - 1
    hole = _find(hashes[counters[FIRST] & (hashes.shape[0] - 1)], hashes, table)
    counters[FIRST] += 1
    at = hole
    while True:
        at = (at + 1) & mask
        if table[at] == 0:
            break
        home = _home(hashes[table[at] - 1], mask)
        # An entry may fill the hole unless its home lies cyclically after the hole.
        if ((at - home) & mask) >= ((at - hole) & mask):
            table[hole] = table[at]
            hole = at
    table[hole] = 0


@kernel
def accept(
    rows: Int64,
    ids: UInt64,
    times_ms: Int64,
    hashes: UInt64,
    clocks_ms: Int64,
    table: Int32,
    counters: Int64,
    entries_max: int,
    horizon_ms: int,
    late_after_ms: int,
    accepted: Bool,
    late: Bool,
) -> None:
    """Decides for the given rows of a batch, all of one partition, in order: sets `accepted` and `late` at each row."""
    places = hashes.shape[0]
    for row in rows:
        while counters[FIRST] < counters[NEXT]:
            if clocks_ms[counters[FIRST] & (places - 1)] >= counters[NEWEST_MS] - horizon_ms:
                break
            _forget_oldest(hashes, table, counters)
        at = _find(ids[row], hashes, table)
        accepted[row] = table[at] == 0
        if not accepted[row]:
            continue
        late[row] = times_ms[row] < counters[NEWEST_MS] - late_after_ms
        counters[NEWEST_MS] = max(counters[NEWEST_MS], times_ms[row])
        if counters[NEXT] - counters[FIRST] == entries_max:
            _forget_oldest(hashes, table, counters)
            at = _find(ids[row], hashes, table)
        place = counters[NEXT] & (places - 1)
        hashes[place] = ids[row]
        clocks_ms[place] = counters[NEWEST_MS]
        table[at] = place + 1
        counters[NEXT] += 1


@kernel
def rebuild(hashes: UInt64, table: Int32, counters: Int64) -> None:
    """Fills the table anew from the live entries."""
    table[:] = 0
    for entry in range(counters[FIRST], counters[NEXT]):
        place = entry & (hashes.shape[0] - 1)
        table[_find(hashes[place], hashes, table)] = place + 1
