"""The hot loop: for each event and each of its entities, read every window, then insert the event.

Exact sliding windows without buckets: a ring is sorted by time, windows ascend, so one walk from the event's own time
backwards passes each window's edge in turn and visits each ring event once.

        oldest                               t-24h         t-1h      t
    ring: . . . .  .   .    .  .  .      .     |  .   . .    |  .  .   e
                                               |             <-- 1h -->
                                               <------- 24h ---------->

Values are computed before the event is inserted, with the event itself as their seed, so an event that is too old for
a full ring still counts in its own windows.
"""

import numpy as np
from numpy.typing import NDArray

from features.arena import (
    CAPACITY,
    CAPACITY_MIN,
    DIRTY,
    DROPPED_MS,
    HEAD,
    KIND,
    LENGTH,
    NEVER,
    POSITION,
    RING_WORDS,
)
from features.jit import inlined, kernel
from features.prefetch import prefetch
from features.program import Program

Int64 = NDArray[np.int64]
UInt64 = NDArray[np.uint64]
Int32 = NDArray[np.int32]
UInt8 = NDArray[np.uint8]
Float64 = NDArray[np.float64]


# How many events ahead slots and rings are asked for, how much of a ring, and int64 words in a cache line.
SLOT_AHEAD, RING_AHEAD = 4, 2
LINES_AHEAD = 4
LINE_WORDS = 8


class Seen:
    """Scratch sets for `distinct`, one per field: open addressing, emptied by moving the stamp on."""

    def __init__(self, fields: int, ring_events_max: int) -> None:
        shape = (max(fields, 1), 1 << (2 * ring_events_max + 1).bit_length())
        self.keys = np.zeros(shape, np.int64)
        self.stamps = np.zeros(shape, np.int64)
        self.counts = np.zeros(shape[0], np.int64)
        self.stamp = np.zeros(1, np.int64)


@inlined
def _is_new(keys: Int64, stamps: Int64, stamp: int, key: np.int64) -> bool:
    """Adds a key to one scratch set; whether it was not there yet."""
    mask = keys.shape[0] - 1
    place = (key ^ (key >> 29)) & mask
    while stamps[place] == stamp:
        if keys[place] == key:
            return False
        place = (place + 1) & mask
    stamps[place] = stamp
    keys[place] = key
    return True


@inlined
def _last_outside(heap: Int64, times_at: int, head: int, mask: int, place: int, edge_ms: int) -> int:
    """The newest ring place, at most `place`, whose time is not after the edge; -1 where there is none.

    Gallops backwards, since most windows begin close to where the shorter one began.
    """
    inside, step = place + 1, 1
    while place >= 0 and heap[times_at + ((head + place) & mask)] > edge_ms:
        inside = place
        place -= step
        step *= 2
    place = max(place, -1)
    while inside - place > 1:
        middle = (inside + place) >> 1
        if heap[times_at + ((head + middle) & mask)] > edge_ms:
            inside = middle
        else:
            place = middle
    return place


@inlined
def _prefetch(event: int, found: Int32, slots: Int64, heap: Int64) -> None:
    """Asks for what the next events need: first their slots, and a little later the newest part of their rings."""
    if event + SLOT_AHEAD < found.shape[0]:
        for kind in range(found.shape[1]):
            prefetch(slots, found[event + SLOT_AHEAD, kind])
    if event + RING_AHEAD < found.shape[0]:
        for kind in range(found.shape[1]):
            at = found[event + RING_AHEAD, kind]
            if at < 0:
                continue
            capacity = slots[at, CAPACITY]
            newest = slots[at, HEAD] + slots[at, LENGTH] - 1
            for line in range(min(LINES_AHEAD, slots[at, LENGTH] // LINE_WORDS + 1)):
                place = slots[at, POSITION] + ((newest - line * LINE_WORDS) & (capacity - 1))
                prefetch(heap, place)
                prefetch(heap, place + capacity)


@inlined
def _read_windows(
    event: int,
    kind: int,
    place: int,
    time_ms: int,
    amount: int,
    hashes: UInt64,
    heap: Int64,
    position: int,
    capacity: int,
    head: int,
    windows_ms: Int64,
    window_counts: Int64,
    count_columns: Int64,
    total_columns: Int64,
    mean_columns: Int64,
    peak_columns: Int64,
    distinct_columns: Int64,
    distinct_hash: Int64,
    distinct_counts: Int64,
    minor_per_major: float,
    seen_keys: Int64,
    seen_stamps: Int64,
    seen_counts: Int64,
    stamp: int,
    values: Float64,
) -> None:
    """Writes the windowed values of one event for one entity; `place` is the newest ring place not after the event."""
    mask = capacity - 1
    amounts_at = position + capacity
    fields = distinct_counts[kind]
    for field in range(fields):
        key = np.int64(hashes[event, distinct_hash[kind, field]])
        seen_counts[field] = key != 0 and _is_new(seen_keys[field], seen_stamps[field], stamp, key)
    count_column, total_column = count_columns[kind], total_columns[kind]
    mean_column, peak_column = mean_columns[kind], peak_columns[kind]
    count, total, peak = 1, amount, amount
    total_major = total / minor_per_major
    for window in range(window_counts[kind]):
        outside = _last_outside(heap, position, head, mask, place, time_ms - windows_ms[kind, window])
        if outside < place:
            for k in range(outside + 1, place + 1):
                value = heap[amounts_at + ((head + k) & mask)]
                total += value
                peak = max(peak, value)
            for field in range(fields):
                keys_at = position + (RING_WORDS + field) * capacity
                for k in range(outside + 1, place + 1):
                    key = heap[keys_at + ((head + k) & mask)]
                    if key != 0 and _is_new(seen_keys[field], seen_stamps[field], stamp, key):
                        seen_counts[field] += 1
            count += place - outside
            total_major = total / minor_per_major
            place = outside
        if count_column >= 0:
            values[event, count_column + window] = count
        if total_column >= 0:
            values[event, total_column + window] = total_major
        if mean_column >= 0:
            values[event, mean_column + window] = total / (count * minor_per_major)
        if peak_column >= 0:
            values[event, peak_column + window] = peak / minor_per_major
        for field in range(fields):
            values[event, distinct_columns[kind, field] + window] = seen_counts[field]


@kernel
def _comes_before(
    event: int,
    kind: int,
    amount: int,
    hashes: UInt64,
    heap: Int64,
    other: int,
    capacity: int,
    distinct_hash: Int64,
    distinct_counts: Int64,
) -> bool:
    """Whether the event belongs before the ring event at `other`, which has the same time."""
    if amount != heap[other + capacity]:
        return bool(amount < heap[other + capacity])
    for field in range(distinct_counts[kind]):
        key = np.int64(hashes[event, distinct_hash[kind, field]])
        if key != heap[other + (RING_WORDS + field) * capacity]:
            return bool(key < heap[other + (RING_WORDS + field) * capacity])
    return False


@inlined
def _insert(
    event: int,
    kind: int,
    last: int,
    time_ms: int,
    amount: int,
    hashes: UInt64,
    slots: Int64,
    at: int,
    heap: Int64,
    heap_top: int,
    distinct_hash: Int64,
    distinct_counts: Int64,
    ring_events_max: int,
) -> int:
    """Puts the event into its place of the ring, which grows, or drops its oldest. Returns the new heap top."""
    width = RING_WORDS + distinct_counts[kind]
    position, capacity = slots[at, POSITION], slots[at, CAPACITY]
    place = last + 1
    while place > 0:
        before = position + ((slots[at, HEAD] + place - 1) & (capacity - 1))
        if heap[before] != time_ms or not _comes_before(
            event, kind, amount, hashes, heap, before, capacity, distinct_hash, distinct_counts
        ):
            break
        place -= 1
    if slots[at, LENGTH] == capacity and capacity < ring_events_max:
        grown = max(CAPACITY_MIN, 2 * capacity)
        for column in range(width):
            for k in range(slots[at, LENGTH]):
                old = position + column * capacity + ((slots[at, HEAD] + k) & (capacity - 1))
                heap[heap_top + column * grown + k] = heap[old]
        slots[at, POSITION], slots[at, CAPACITY], slots[at, HEAD] = heap_top, grown, 0
        position, capacity = heap_top, grown
        heap_top += width * grown
    elif slots[at, LENGTH] == capacity:
        if place == 0:
            slots[at, DROPPED_MS] = max(slots[at, DROPPED_MS], time_ms)
            return heap_top
        slots[at, DROPPED_MS] = max(slots[at, DROPPED_MS], heap[position + slots[at, HEAD]])
        slots[at, HEAD] = (slots[at, HEAD] + 1) & (capacity - 1)
        slots[at, LENGTH] -= 1
        place -= 1
    mask = capacity - 1
    head = slots[at, HEAD]
    for k in range(slots[at, LENGTH], place, -1):
        to, source = position + ((head + k) & mask), position + ((head + k - 1) & mask)
        for column in range(width):
            heap[to + column * capacity] = heap[source + column * capacity]
    to = position + ((head + place) & mask)
    heap[to] = time_ms
    heap[to + capacity] = amount
    for field in range(distinct_counts[kind]):
        heap[to + (RING_WORDS + field) * capacity] = np.int64(hashes[event, distinct_hash[kind, field]])
    slots[at, LENGTH] += 1
    return heap_top


@kernel
def advance(
    times_ms: Int64,
    amounts: Int64,
    hashes: UInt64,
    found: Int32,
    slots: Int64,
    heap: Int64,
    heap_top: int,
    program: Program,
    ring_events_max: int,
    minor_per_major: float,
    seen_keys: Int64,
    seen_stamps: Int64,
    seen_counts: Int64,
    seen_stamp: Int64,
    dirty: Int32,
    dirty_count: int,
    compute: bool,
    values: Float64,
    exact_windows: UInt8,
    exact_all: UInt8,
) -> tuple[int, int]:
    """Takes the events of a batch in acceptance order; returns the new heap top and number of dirty slots.

    n events, E entities. `times_ms`, `amounts` [n]; `hashes` [n, >= E]; `found` [n, E] from `resolve`.
    With `compute`, writes `values[n, columns]` (NaN for an absent entity), `exact_windows[n, E]`: how many of the
    entity's windows, shortest first, are exact, and `exact_all[n, E]`: whether its windowless values are. Slots that
    changed for the first time since the last flush are appended to `dirty`.
    """
    (
        windows_ms, window_counts, first_column, end_column, count_columns, total_columns, mean_columns, peak_columns,
        since_last_columns, distinct_columns, distinct_hash, distinct_counts,
    ) = program  # fmt: skip
    for event in range(times_ms.shape[0]):
        time_ms = times_ms[event]
        _prefetch(event, found, slots, heap)
        for kind in range(found.shape[1]):
            windows = window_counts[kind]
            if found[event, kind] < 0:
                if compute:
                    values[event, first_column[kind] : end_column[kind]] = np.nan
                    exact_windows[event, kind] = windows
                    exact_all[event, kind] = 1
                continue
            at = found[event, kind]
            position, capacity, head = slots[at, POSITION], slots[at, CAPACITY], slots[at, HEAD]
            last = slots[at, LENGTH] - 1
            while last >= 0 and heap[position + ((head + last) & (capacity - 1))] > time_ms:
                last -= 1
            if compute:
                seen_stamp[0] += 1
                _read_windows(
                    event, kind, last, time_ms, amounts[event], hashes, heap, position, capacity, head,
                    windows_ms, window_counts, count_columns, total_columns, mean_columns, peak_columns,
                    distinct_columns, distinct_hash, distinct_counts, minor_per_major,
                    seen_keys, seen_stamps, seen_counts, seen_stamp[0], values,
                )  # fmt: skip
                dropped_ms = slots[at, DROPPED_MS]
                exact = 0
                while exact < windows and dropped_ms <= time_ms - windows_ms[kind, exact]:
                    exact += 1
                # Windows ascend, so the exact ones are a prefix.
                exact_windows[event, kind] = exact
                previous_ms = heap[position + ((head + last) & (capacity - 1))] if last >= 0 else NEVER
                exact_all[event, kind] = dropped_ms <= previous_ms
                column = since_last_columns[kind]
                if column >= 0:
                    values[event, column] = (time_ms - previous_ms) / 1000.0 if last >= 0 else np.nan
            heap_top = _insert(
                event, kind, last, time_ms, amounts[event], hashes, slots, at, heap, heap_top,
                distinct_hash, distinct_counts, ring_events_max,
            )  # fmt: skip
            if slots[at, KIND] & DIRTY == 0:
                slots[at, KIND] |= DIRTY
                dirty[dirty_count] = at
                dirty_count += 1
    return heap_top, dirty_count
