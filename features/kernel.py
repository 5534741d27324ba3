"""The hot loop: for each event and each of its entities, read every window, then insert the event.

Values are computed before the event is inserted, so an event that is too old for a full ring still counts in its own
windows, and what is "before" it is the state as it stands.
"""

from math import nan
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.ahead import RING_AHEAD, ask_for_columns, ask_for_edges, ask_for_entities, ask_for_squares, slot_ahead
from features.arena import (
    CAPACITY,
    DIRTY,
    HEAD,
    KIND,
    LENGTH,
    NEVER,
    NEWEST_MS,
    POSITION,
)
from features.bits import previous_bit, words_of
from features.block import insert
from features.jit import inlined, kernel
from features.program import (
    ACCUMULATOR,
    COLUMN,
    COLUMNS,
    DISTINCT,
    GEO_SPEED,
    INSTRUCTIONS,
    IS_NEW,
    IS_NUMBER,
    MARKED,
    MATRIX_END,
    MATRIX_FIRST,
    OF_AMOUNT,
    PREDICATES,
    RATIO,
    SINCE_FIRST,
    SINCE_LAST,
    TABLES,
    TO,
    WINDOWS,
    WITHOUT_EVENT,
    ZSCORE,
    Program,
)
from features.program import KIND as INSTRUCTION_KIND
from features.ring import (
    DROPPED_MS,
    FIRST_MS,
    NEWEST,
    PEAK,
    TILES_AT,
    TIME_MS,
    UNKNOWN_MS,
    Seen,
    amount_of,
    bits_at,
    clear_block,
    column_at,
    find_word,
    newest_until,
    open_block,
    row_at,
    word_of,
)
from features.values import TABLE_WORDS_MAX
from features.windows import (
    SUM_ROWS,
    SUMS,
    TILE_ROWS,
    add_seen_values,
    add_tiles,
    count_values,
    find_edges,
    sum_all,
    sum_predicate,
    values_row,
    work_arrays,
)
from features.write import is_small, speed_kmh, write_sums, write_values

Int64 = NDArray[np.int64]
UInt64 = NDArray[np.uint64]
Int32 = NDArray[np.int32]
UInt16 = NDArray[np.uint16]
UInt8 = NDArray[np.uint8]
Float64 = NDArray[np.float64]

CATEGORIES = 1 << 20


class Work(NamedTuple):
    """Scratch memory of one `advance` after another; contents mean nothing in between."""

    ints: Int64
    reals: Float64
    words: Int64
    previous: Int64
    bits: Float64
    ranks: Int64
    entries: Int64
    seen_keys: Int64
    seen_stamps: Int64
    seen_stamp: Int64


def work_for(program: Program, ring_events_max: int) -> Work:
    """Scratch memory for a program."""
    windows = max(program.windows_ms.shape[1], 1)
    columns, predicates = program.columns.shape[1], program.predicates.shape[1]
    ints, reals = work_arrays(windows, columns, predicates)
    seen = Seen(ring_events_max)
    return Work(
        ints=ints,
        reals=reals,
        words=np.zeros(max(columns, 1), np.int64),
        previous=np.zeros(max(columns, 1), np.int64),
        bits=np.zeros(1),
        ranks=np.zeros(words_of(ring_events_max), np.int64),
        entries=np.zeros(TABLE_WORDS_MAX, np.int64),
        seen_keys=seen.keys,
        seen_stamps=seen.stamps,
        seen_stamp=seen.stamp,
    )


@inlined
def _read_windows(
    heap: Int64, position: int, capacity: int, head: int, length: int, last: int, time_ms: int, newest_ms: int,
    oldest_ms: int, windows_ms: Int64, windows: int, exact: int, columns: int, predicates: int, tables: int,
    tables_of: Int64, needs: Int64, counted: Int64, words: Int64, previous: Int64, edges: UInt16, ints: Int64,
    reals: Float64, ranks: Int64, seen_keys: Int64, seen_stamps: Int64, seen_stamp: Int64,
) -> None:  # fmt: skip
    """Fills `ints` and `reals` with what the windows hold without the event."""
    find_edges(heap, position, capacity, head, last, time_ms, windows_ms, windows, edges, ints)
    sum_all(heap, position, capacity, head, last, length, columns, windows, needs[0], ints, ranks)
    for predicate in range(predicates):
        bits = bits_at(position, capacity, columns, NEWEST + columns + predicate)
        row = SUMS + SUM_ROWS * (1 + predicate)
        sum_predicate(heap, position, capacity, head, last, bits, windows, row, needs[1 + predicate], ints)
    for column in range(columns):
        if counted[column]:
            row = values_row(columns, predicates, column)
            count_values(
                heap, position, capacity, head, last, length, columns, column, windows, row, ints, ranks,
                seen_keys, seen_stamps, seen_stamp,
            )  # fmt: skip
            for window in range(windows):
                ints[row + columns, window] = previous[column] > ints[0, window]
    for row in range(TILE_ROWS * (1 + predicates)):
        for window in range(exact):
            reals[row, window] = 0.0
    if exact == windows:
        return
    part = position + heap[position + TILES_AT]
    has_tiles = heap[position + TILES_AT] != 0
    if has_tiles:
        add_tiles(heap, part, time_ms, windows_ms, exact, windows, predicates, tables, ints, reals)
    else:
        reals[:, exact:windows] = 0.0
    for column in range(columns):
        if counted[column]:
            row, about = values_row(columns, predicates, column), TILE_ROWS * (1 + predicates) + column
            if has_tiles:
                add_seen_values(
                    heap, part, tables_of[column], newest_ms, oldest_ms, time_ms, windows_ms, exact, windows,
                    predicates, tables, words[column], reals[about], ints[row + columns],
                )  # fmt: skip
            else:
                for window in range(exact, windows):
                    reals[about, window] = ints[row, window]


@inlined
def _newest_with_word(heap: Int64, words: int, capacity: int, head: int, last: int) -> int:
    """The newest place, at most `last`, that has a word in a column; -1 where none does."""
    place = last
    while place >= 0 and word_of(heap, words, capacity, (head + place) & (capacity - 1)) == 0:
        place -= 1
    return place


@kernel
def _write_windowless(
    instruction: Int64, heap: Int64, position: int, capacity: int, head: int, last: int, columns: int, time_ms: int,
    word: int, mine: int, minor_per_major: float, number: Float64, values: Float64,
) -> bool:  # fmt: skip
    """Writes one windowless value; whether it is surely right."""
    kind, to, column = instruction[INSTRUCTION_KIND], instruction[TO], instruction[COLUMN]
    dropped_ms = heap[position + DROPPED_MS]
    if kind == SINCE_FIRST:
        ago_ms = time_ms - heap[position + FIRST_MS]
        values[to] = max(0, ago_ms) / 1000.0 if mine or ago_ms >= 0 else nan
        return bool(heap[position + UNKNOWN_MS] == NEVER)
    place = last
    if kind == SINCE_LAST and instruction[ACCUMULATOR] > 0:
        bits = bits_at(position, capacity, columns, NEWEST + columns + instruction[ACCUMULATOR] - 1)
        place = previous_bit(heap, bits, head + last, head, capacity - 1) - head if last >= 0 else -1
    elif column != OF_AMOUNT:
        place = _newest_with_word(heap, column_at(position, capacity, column), capacity, head, last)
    values[to] = nan
    if kind == GEO_SPEED and (word == 0 or mine == 0):
        return True
    if place < 0:
        return bool(dropped_ms == NEVER)
    then_ms = heap[row_at(position, capacity, head, place) + TIME_MS]
    if kind == SINCE_LAST:
        values[to] = (time_ms - then_ms) / 1000.0
    elif column == OF_AMOUNT:
        values[to] = amount_of(heap, position, capacity, head, place) / minor_per_major
    else:
        other = word_of(heap, column_at(position, capacity, column), capacity, (head + place) & (capacity - 1))
        if kind == GEO_SPEED:
            values[to] = speed_kmh(word, other, time_ms - then_ms)
        elif instruction[IS_NUMBER]:
            number.view(np.int64)[0] = other
            values[to] = number[0] + 0.0
        else:
            values[to] = float(np.uint64(other) % np.uint64(CATEGORIES))
    # Of the events of one time a ring drops the first ones, but what was never seen may have been the last of them.
    return bool(dropped_ms <= then_ms and (kind == SINCE_LAST or heap[position + UNKNOWN_MS] < then_ms))


@inlined
def _write(
    instructions: Int64, count: int, heap: Int64, position: int, capacity: int, head: int, last: int, columns: int,
    predicates: int, time_ms: int, amount: int, flags: int, words: Int64, windows_ms: Int64, windows: int, exact: int,
    mine: int, minor_per_major: float, ints: Int64, reals: Float64, number: Float64, values: Float64,
) -> bool:  # fmt: skip
    """Writes all values of one event for one entity; whether the windowless ones are surely right."""
    surely = True
    small = is_small(last + 1, heap[position + PEAK], amount)
    for k in range(count):
        instruction = instructions[k]
        kind, accumulator, column = instruction[INSTRUCTION_KIND], instruction[ACCUMULATOR], instruction[COLUMN]
        holds = accumulator == 0 or (flags >> (accumulator - 1)) & 1
        own = 1 if mine and holds and not instruction[WITHOUT_EVENT] else 0
        if kind in (ZSCORE, RATIO) and not mine:
            values[instruction[TO] : instruction[TO] + windows] = nan
        elif kind < DISTINCT:
            write_sums(
                values, instruction[TO], kind, accumulator, windows, exact, small, own, amount,
                minor_per_major, windows_ms, ints, reals,
            )  # fmt: skip
        elif kind in (DISTINCT, IS_NEW):
            row = values_row(columns, predicates, column)
            word = words[column] if mine else 0
            write_values(
                values, instruction[TO], kind, windows, exact, own, word, ints[row], ints[row + columns],
                reals[TILE_ROWS * (1 + predicates) + column],
            )  # fmt: skip
        else:
            word = words[column] if column != OF_AMOUNT else 0
            surely &= _write_windowless(
                instruction, heap, position, capacity, head, last, columns, time_ms, word, mine, minor_per_major,
                number, values,
            )  # fmt: skip
    return surely


@kernel
def advance(
    first: int,
    times_ms: Int64,
    amounts: Int64,
    words: UInt64,
    flags: Int64,
    forgotten_ms: Int64,
    unknown_ms: int,
    found: Int32,
    slots: Int64,
    edges: UInt16,
    heap: Int64,
    heap_top: int,
    block_words_max: int,
    program: Program,
    ring_events_max: int,
    ttl_ms: int,
    minor_per_major: float,
    work: Work,
    dirty: Int32,
    dirty_count: int,
    compute: bool,
    insert_events: bool,
    values: Float64,
    exact_windows: UInt8,
    exact_all: UInt8,
) -> tuple[int, int, int]:
    """Takes the events of a batch from `first` on in acceptance order, as far as the heap surely has room.

    Returns how many events are done, the new heap top and the number of dirty slots. n events, E entities. `times_ms`,
    `amounts`, `flags`, `forgotten_ms` [n]; `words` [n, >= E]; `found` [n, E] from `resolve`. An entity whose newest
    event is not after `forgotten_ms` starts anew; of a new one nothing is known until that time or `unknown_ms`.
    `edges[slots, W]` remembers where windows began.
    With `compute`, writes `values[n, columns]` (NaN for an absent entity), `exact_windows[n, E]`: how many of the
    entity's windows, shortest first, are exact, and `exact_all[n, E]`: whether its windowless values are. Slots that
    changed for the first time since the last flush are appended to `dirty`. Without `insert_events` nothing changes,
    and values are those of the windows at that time, with no event of its own.
    """
    windows_of, facts, columns_of, tables_of, predicates_of, instructions, needs, counted = program
    ints, reals, own_words, previous, number, ranks, entries, seen_keys, seen_stamps, seen_stamp = work
    for event in range(first, times_ms.shape[0]):
        if heap_top + block_words_max * found.shape[1] > heap.shape[0]:
            return event, heap_top, dirty_count
        time_ms, amount = times_ms[event], amounts[event]
        ask_for_entities(event, words, found, slots, edges, heap, facts, columns_of, tables_of)
        for kind in range(found.shape[1]):
            windows, columns, predicates = facts[kind, WINDOWS], facts[kind, COLUMNS], facts[kind, PREDICATES]
            tables = facts[kind, TABLES]
            if found[event, kind] < 0:
                if compute:
                    values[event, facts[kind, MATRIX_FIRST] : facts[kind, MATRIX_END]] = nan
                    exact_windows[event, kind] = windows
                    exact_all[event, kind] = 1
                continue
            at, later = found[event, kind], slot_ahead(event + RING_AHEAD, kind, found)
            ask_for_edges(slots, later, edges[later], heap, 0, windows // 2)
            floor_ms = max(forgotten_ms[event], unknown_ms)
            if slots[at, CAPACITY] == 0:
                heap_top = open_block(slots, at, heap, heap_top, columns, predicates, floor_ms)
            elif slots[at, LENGTH] and slots[at, NEWEST_MS] <= forgotten_ms[event]:
                clear_block(slots, at, heap, columns, predicates, floor_ms)
            position, capacity, head = slots[at, POSITION], slots[at, CAPACITY], slots[at, HEAD]
            length = slots[at, LENGTH]
            last = newest_until(heap, position, capacity, head, length, time_ms)
            own_flags = 0
            for predicate in range(predicates):
                own_flags |= ((flags[event] >> predicates_of[kind, predicate]) & 1) << predicate
            for column in range(columns):
                word = int(np.int64(words[event, columns_of[kind, column]]))
                own_words[column] = word
                previous[column] = -1
                if word != 0 and counted[kind, column]:
                    at_column = column_at(position, capacity, column)
                    previous[column] = find_word(heap, at_column, capacity, head, last, word)
            ask_for_edges(slots, later, edges[later], heap, windows // 2, windows)
            if compute:
                exact = 0
                while exact < windows and heap[position + DROPPED_MS] <= time_ms - windows_of[kind, exact]:
                    exact += 1
                # Windows ascend, so the exact ones are a prefix.
                exact_windows[event, kind] = exact
                _read_windows(
                    heap, position, capacity, head, length, last, time_ms, slots[at, NEWEST_MS],
                    slots[at, NEWEST_MS] - ttl_ms, windows_of[kind], windows, exact, columns, predicates, tables,
                    tables_of[kind], needs[kind], counted[kind], own_words, previous, edges[at], ints, reals,
                    ranks, seen_keys, seen_stamps, seen_stamp,
                )  # fmt: skip
                ask_for_squares(slots, later, heap)
                exact_all[event, kind] = _write(
                    instructions[kind], facts[kind, INSTRUCTIONS], heap, position, capacity, head, last, columns,
                    predicates, time_ms, amount, own_flags, own_words, windows_of[kind], windows, exact,
                    insert_events, minor_per_major, ints, reals, number, values[event],
                )  # fmt: skip
            ask_for_columns(slots, later, heap, columns, tables_of[kind], facts[kind, MARKED])
            if not insert_events:
                continue
            heap_top = insert(
                slots, at, heap, heap_top, last, time_ms, amount, own_words, own_flags, columns, predicates, tables,
                tables_of[kind], ring_events_max, ttl_ms, facts[kind, MARKED], previous, seen_keys, seen_stamps,
                seen_stamp, entries,
            )  # fmt: skip
            if slots[at, KIND] & DIRTY == 0:
                slots[at, KIND] |= DIRTY
                dirty[dirty_count] = at
                dirty_count += 1
    return times_ms.shape[0], heap_top, dirty_count
