"""The newest events of one entity: a ring of at most K places, sorted, with running totals.

A block on the heap, for `capacity` places, C columns and P predicates:

    header                      8 words, the first its length
    time, total                 of each place; total: the running total of the amounts up to it
    squares                     the running total of squared amounts up to each fourth place
    column 0 .. C-1             one word of each place: the six upper bytes of all, then a tag of each
    extremes                    amounts of the newest places in high and low (features.extremes)
    bit sets                    high, low, newest 0 .. C-1, predicate 0 .. P-1
    tiles, tables               once events have been dropped (features.tiles)

A block begins with a cache line and takes whole ones, so that four rows are a line: what a window needs of its edge.

A window is a difference of two running totals, modulo 2^64. `high` marks the places that no newer one exceeds, `low`
those that no newer one undercuts, so that a window's largest amount is the oldest mark in it; `newest` marks the
places whose word does not occur again, so that as many are distinct in a window as it has marks. Only those bit sets
are kept of which a feature is made: bit n of `marked` says so of the n-th.

Events are sorted by time and then by all else that is stored of them, so what a ring holds and what it drops depends
on the events alone and not on the order in which they came: events that tie in everything are interchangeable.
"""

import numpy as np
from numpy.typing import NDArray

from features.arena import CAPACITY, HEAD, LENGTH, LINE_WORDS, NEVER, NEWEST_MS, POSITION
from features.bits import (
    ALL,
    LINE_TAGS,
    ONE,
    TAG_BITS,
    clear_bit,
    equal_tags,
    has_bit,
    leading_zeros,
    previous_bit,
    read_from_byte,
    set_bit,
    words_of,
    write_from_byte,
)
from features.extremes import forget_kept, is_kept, keep, keep_older, kept_words
from features.jit import inlined, kernel

Int64 = NDArray[np.int64]
UInt64 = NDArray[np.uint64]

WORDS, DROPPED_MS, UNKNOWN_MS, FIRST_MS, BASE_TOTAL, BASE_SQUARES, PEAK, TILES_AT = range(8)
HEADER_WORDS = 8
TIME_MS, TOTAL = range(2)
ROW_WORDS = 2
SQUARES_EVERY = 4
HIGH, LOW, NEWEST = 0, 1, 2
CAPACITY_MIN = 2
# A word is its six upper bytes and a tag, at which a search looks first.
WORD_BYTES, UPPER_BYTES, TAG_BYTES = 8, 6, 2
UPPER_MASK, TAG_MASK = (1 << 48) - 1, (1 << TAG_BITS) - 1


class Seen:
    """A scratch set of words: open addressing, emptied by moving the stamp on."""

    def __init__(self, ring_events_max: int) -> None:
        size = 1 << (2 * ring_events_max + 1).bit_length()
        self.keys = np.zeros(size, np.int64)
        self.stamps = np.zeros(size, np.int64)
        self.stamp = np.zeros(1, np.int64)


@inlined
def add_seen(keys: Int64, stamps: Int64, stamp: int, key: int) -> bool:
    """Adds a key to the scratch set; whether it was not there yet."""
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
def squares_words(capacity: int) -> int:
    """Words that running totals of squares take."""
    return max(1, capacity // SQUARES_EVERY)


@inlined
def column_at(position: int, capacity: int, column: int) -> int:
    """Where a column begins."""
    return position + HEADER_WORDS + capacity * (ROW_WORDS + column) + squares_words(capacity)


@inlined
def extremes_at(position: int, capacity: int, columns: int, number: int) -> int:
    """Where the amounts of the newest places in `high` or `low` begin."""
    return column_at(position, capacity, columns) + number * kept_words(capacity)


@inlined
def bits_at(position: int, capacity: int, columns: int, number: int) -> int:
    """Where a bit set begins."""
    return extremes_at(position, capacity, columns, NEWEST) + number * words_of(capacity)


@inlined
def ring_words(capacity: int, columns: int, predicates: int) -> int:
    """Words of a block without tiles: whole cache lines."""
    return whole_lines(bits_at(0, capacity, columns, NEWEST + columns + predicates))


@inlined
def whole_lines(words: int) -> int:
    """So many words, rounded up to whole cache lines."""
    return (words + LINE_WORDS - 1) // LINE_WORDS * LINE_WORDS


@inlined
def row_at(position: int, capacity: int, head: int, place: int) -> int:
    """Where the row of a place begins, counted from the oldest."""
    return position + HEADER_WORDS + ROW_WORDS * ((head + place) & (capacity - 1))


@inlined
def total_until(heap: Int64, position: int, capacity: int, head: int, place: int) -> int:
    """The running total of amounts up to a place; place -1 is before the oldest."""
    if place < 0:
        return heap[position + BASE_TOTAL]
    return heap[row_at(position, capacity, head, place) + TOTAL]


@inlined
def amount_of(heap: Int64, position: int, capacity: int, head: int, place: int) -> int:
    """The amount of a place, minor units."""
    newer = total_until(heap, position, capacity, head, place)
    return newer - total_until(heap, position, capacity, head, place - 1)


@inlined
def squares_until(heap: Int64, position: int, capacity: int, head: int, place: int) -> int:
    """The running total of squared amounts up to a place, modulo 2^64; place -1 is before the oldest."""
    physical = (head + place) & (capacity - 1)
    within = physical & (SQUARES_EVERY - 1)
    first, rows = place - within, position + HEADER_WORDS
    if first < 0:
        total = heap[position + BASE_SQUARES]
        for k in range(place + 1):
            amount = amount_of(heap, position, capacity, head, k)
            total += amount * amount
        return total
    total = heap[rows + ROW_WORDS * capacity + physical // SQUARES_EVERY]
    older = heap[rows + ROW_WORDS * (physical - within) + TOTAL]
    # As many steps each time, which costs less than a choice.
    for k in range(1, SQUARES_EVERY):
        newer = heap[rows + ROW_WORDS * (physical - within + k) + TOTAL]
        amount = newer - older if k <= within else 0
        total += amount * amount
        older = newer
    return total


@inlined
def note_squares(heap: Int64, position: int, capacity: int, head: int, first: int, last: int) -> None:
    """Writes the running totals of squares up to each fourth place among first..last."""
    for place in range(first, last + 1):
        physical = (head + place) & (capacity - 1)
        if physical & (SQUARES_EVERY - 1) == 0:
            at = position + HEADER_WORDS + ROW_WORDS * capacity + physical // SQUARES_EVERY
            amount = amount_of(heap, position, capacity, head, place)
            heap[at] = squares_until(heap, position, capacity, head, place - 1) + amount * amount


@inlined
def tag_of(word: int) -> int:
    """Sixteen bits made of all of a word: hashes differ everywhere, small numbers in their upper bits alone."""
    folded = word ^ (word >> 32)
    return (folded ^ (folded >> 16)) & TAG_MASK


@inlined
def word_of(heap: Int64, at: int, capacity: int, physical: int) -> int:
    """The word of a place in the column at `at`."""
    upper = read_from_byte(heap, at, UPPER_BYTES * physical) << TAG_BITS
    # The tag is the lowest bits with all others folded into them, which gives those bits again.
    tag = read_from_byte(heap, at, UPPER_BYTES * capacity + TAG_BYTES * physical) & TAG_MASK
    return upper | (tag ^ tag_of(upper))


@inlined
def put_word(heap: Int64, at: int, capacity: int, physical: int, word: int) -> None:
    """Writes the word of a place in the column at `at`."""
    upper, tag = UPPER_BYTES * physical, UPPER_BYTES * capacity + TAG_BYTES * physical
    # A word is read and written each time, of which the bytes that belong to others stay.
    others = read_from_byte(heap, at, upper) & ~UPPER_MASK
    write_from_byte(heap, at, upper, others | ((word >> TAG_BITS) & UPPER_MASK))
    others = read_from_byte(heap, at, tag) & ~TAG_MASK
    write_from_byte(heap, at, tag, others | tag_of(word))


@inlined
def tags_at(at: int, capacity: int, block: int) -> int:
    """Where the line of tags begins whose last is that of the block's last place, or of the last one there is.

    So many bytes before it there is always something: other tags, upper bytes, or the header.
    """
    end = min(capacity, block + LINE_TAGS)
    return at + capacity - LINE_WORDS - TAG_BYTES * (capacity - end) // WORD_BYTES


@inlined
def _find_in_run(heap: Int64, at: int, capacity: int, first: int, last: int, key: int) -> int:
    """The last place in memory of first..last whose word in the column at `at` is the key, -1 where none is."""
    tag, upper = tag_of(key), (key >> TAG_BITS) & UPPER_MASK
    block = last & -LINE_TAGS
    below = ALL >> np.uint64(63 - (last & (LINE_TAGS - 1)))
    missing = np.uint64(max(0, LINE_TAGS - capacity))
    while block + LINE_TAGS > first:
        hits = (equal_tags(heap, tags_at(at, capacity, block), tag) >> missing) & below
        while hits != 0:
            place = block + 63 - leading_zeros(hits)
            if read_from_byte(heap, at, UPPER_BYTES * place) & UPPER_MASK == upper:
                return place if place >= first else -1
            hits ^= ONE << np.uint64(place - block)
        block -= LINE_TAGS
        below = ALL
    return -1


@inlined
def find_word(heap: Int64, at: int, capacity: int, head: int, last: int, key: int) -> int:
    """The newest place, at most `last`, whose word in the column at `at` is the key; -1 where there is none."""
    if last < 0:
        return -1
    end = head + last
    if end < capacity:
        found = _find_in_run(heap, at, capacity, head, end, key)
        return found - head if found >= 0 else -1
    found = _find_in_run(heap, at, capacity, 0, end - capacity, key)
    if found >= 0:
        return found + capacity - head
    found = _find_in_run(heap, at, capacity, head, capacity - 1, key)
    return found - head if found >= 0 else -1


@inlined
def open_block(
    slots: Int64, at: int, heap: Int64, heap_top: int, columns: int, predicates: int, unknown_ms: int
) -> int:
    """A first, empty block for a slot that has none; returns the new heap top."""
    words = ring_words(CAPACITY_MIN, columns, predicates)
    heap[heap_top + WORDS] = words
    slots[at, POSITION], slots[at, CAPACITY] = heap_top, CAPACITY_MIN
    clear_block(slots, at, heap, columns, predicates, unknown_ms)
    return heap_top + words


@inlined
def clear_block(slots: Int64, at: int, heap: Int64, columns: int, predicates: int, unknown_ms: int) -> None:
    """Makes an entity one of which nothing is known after `unknown_ms`."""
    position = slots[at, POSITION]
    slots[at, HEAD], slots[at, LENGTH], slots[at, NEWEST_MS] = 0, 0, NEVER
    heap[position + DROPPED_MS] = heap[position + UNKNOWN_MS] = unknown_ms
    heap[position + FIRST_MS] = -NEVER
    heap[position + BASE_TOTAL] = heap[position + BASE_SQUARES] = heap[position + PEAK] = 0
    heap[position + TILES_AT] = 0
    capacity = slots[at, CAPACITY]
    for at_bits in range(bits_at(position, capacity, columns, 0), position + ring_words(capacity, columns, predicates)):
        heap[at_bits] = 0


@inlined
def copy_ring(slots: Int64, at: int, heap: Int64, to: int, capacity: int, columns: int, predicates: int) -> None:
    """Copies a slot's ring to a block at `to` that has as many places or more; a smaller ring has never wrapped."""
    position, old = slots[at, POSITION], slots[at, CAPACITY]
    for k in range(HEADER_WORDS + ROW_WORDS * old):
        heap[to + k] = heap[position + k]
    for k in range(squares_words(old)):
        heap[to + HEADER_WORDS + ROW_WORDS * capacity + k] = heap[position + HEADER_WORDS + ROW_WORDS * old + k]
    for column in range(columns):
        source, target = column_at(position, old, column), column_at(to, capacity, column)
        if old == capacity:
            for k in range(old):
                heap[target + k] = heap[source + k]
        else:
            for physical in range(old):
                put_word(heap, target, capacity, physical, word_of(heap, source, old, physical))
    for number in range(NEWEST):
        source, target = extremes_at(position, old, columns, number), extremes_at(to, capacity, columns, number)
        forget_kept(heap, target, capacity)
        for k in range(kept_words(old)):
            heap[target + k] = heap[source + k]
    for number in range(NEWEST + columns + predicates):
        source, target = bits_at(position, old, columns, number), bits_at(to, capacity, columns, number)
        for k in range(words_of(capacity)):
            heap[target + k] = heap[source + k] if k < words_of(old) else 0


@inlined
def newest_until(heap: Int64, position: int, capacity: int, head: int, length: int, time_ms: int) -> int:
    """The newest place whose time is not after `time_ms`, -1 where there is none."""
    place = length - 1
    step = 1
    while place >= 0 and heap[row_at(position, capacity, head, place)] > time_ms:
        place -= step
        step *= 2
    low, high = max(place, -1), min(place + step // 2, length - 1) + 1
    if step == 1:
        return place
    while high - low > 1:
        middle = (low + high) >> 1
        if heap[row_at(position, capacity, head, middle)] > time_ms:
            high = middle
        else:
            low = middle
    return low


@inlined
def _comes_before(
    amount: int, event_words: Int64, flags: int, heap: Int64, position: int, capacity: int, head: int, place: int,
    columns: int, predicates: int,
) -> bool:  # fmt: skip
    """Whether the event belongs before the one in a place, which has the same time."""
    other = amount_of(heap, position, capacity, head, place)
    if amount != other:
        return bool(amount < other)
    physical = (head + place) & (capacity - 1)
    for column in range(columns):
        word = word_of(heap, column_at(position, capacity, column), capacity, physical)
        if event_words[column] != word:
            return bool(event_words[column] < word)
    for predicate in range(predicates):
        held = has_bit(heap, bits_at(position, capacity, columns, NEWEST + columns + predicate), physical)
        holds = bool((flags >> predicate) & 1)
        if holds != held:
            return not holds
    return False


@inlined
def place_for(
    slots: Int64, at: int, heap: Int64, last: int, time_ms: int, amount: int, event_words: Int64, flags: int,
    columns: int, predicates: int,
) -> int:  # fmt: skip
    """The place that the event takes; `last` is the newest one that is not after it."""
    position, capacity, head = slots[at, POSITION], slots[at, CAPACITY], slots[at, HEAD]
    place = last + 1
    while place > 0:
        if heap[row_at(position, capacity, head, place - 1)] != time_ms or not _comes_before(
            amount, event_words, flags, heap, position, capacity, head, place - 1, columns, predicates
        ):
            break
        place -= 1
    return place


@inlined
def drop_oldest(slots: Int64, at: int, heap: Int64, columns: int, predicates: int) -> None:
    """Takes the oldest event out of a ring."""
    position, capacity, head = slots[at, POSITION], slots[at, CAPACITY], slots[at, HEAD]
    row = row_at(position, capacity, head, 0)
    heap[position + DROPPED_MS] = max(heap[position + DROPPED_MS], heap[row + TIME_MS])
    heap[position + BASE_SQUARES] = squares_until(heap, position, capacity, head, 0)
    heap[position + BASE_TOTAL] = heap[row + TOTAL]
    for number in range(NEWEST + columns + predicates):
        clear_bit(heap, bits_at(position, capacity, columns, number), head)
    slots[at, HEAD] = (head + 1) & (capacity - 1)
    slots[at, LENGTH] -= 1


@inlined
def _mark_append(slots: Int64, at: int, heap: Int64, columns: int, marked: int, previous: Int64) -> None:
    """Marks the place just appended; `previous[column]`: where its word stood before, -1 nowhere."""
    position, capacity, head = slots[at, POSITION], slots[at, CAPACITY], slots[at, HEAD]
    mask, last = capacity - 1, slots[at, LENGTH] - 1
    physical = (head + last) & mask
    amount = amount_of(heap, position, capacity, head, last)
    for number in range(NEWEST):
        if marked >> number & 1 == 0:
            continue
        bits, kept = bits_at(position, capacity, columns, number), extremes_at(position, capacity, columns, number)
        place, beaten = head + last - 1, 0
        while True:
            place = previous_bit(heap, bits, place, head, mask)
            if place < head:
                break
            if is_kept(heap, kept, capacity, beaten):
                other = heap[kept + beaten]
            else:
                other = amount_of(heap, position, capacity, head, place - head)
            if (number == HIGH and other > amount) or (number == LOW and other < amount):
                break
            clear_bit(heap, bits, place & mask)
            beaten += 1
        set_bit(heap, bits, physical)
        keep(heap, kept, capacity, beaten, amount)
    for column in range(columns):
        if marked >> (NEWEST + column) & 1 == 0:
            continue
        bits = bits_at(position, capacity, columns, NEWEST + column)
        if previous[column] >= 0:
            clear_bit(heap, bits, (head + previous[column]) & mask)
        if word_of(heap, column_at(position, capacity, column), capacity, physical) != 0:
            set_bit(heap, bits, physical)
        else:
            clear_bit(heap, bits, physical)


@kernel
def mark_all(
    slots: Int64, at: int, heap: Int64, columns: int, marked: int, seen_keys: Int64, seen_stamps: Int64,
    seen_stamp: Int64,
) -> None:  # fmt: skip
    """Sets all marks anew, newest place first."""
    position, capacity, head = slots[at, POSITION], slots[at, CAPACITY], slots[at, HEAD]
    length, mask = slots[at, LENGTH], capacity - 1
    highs, lows = bits_at(position, capacity, columns, HIGH), bits_at(position, capacity, columns, LOW)
    for number in range(NEWEST + columns):
        bits = bits_at(position, capacity, columns, number)
        for k in range(words_of(capacity)):
            heap[bits + k] = 0
    for number in range(NEWEST):
        forget_kept(heap, extremes_at(position, capacity, columns, number), capacity)
    high, low, high_marks, low_marks = 0, 0, 0, 0
    for place in range(length - 1 if marked & (1 << HIGH | 1 << LOW) else -1, -1, -1):
        amount = amount_of(heap, position, capacity, head, place)
        if place == length - 1 or amount > high:
            high = amount
            set_bit(heap, highs, (head + place) & mask)
            keep_older(heap, extremes_at(position, capacity, columns, HIGH), capacity, high_marks, amount)
            high_marks += 1
        if place == length - 1 or amount < low:
            low = amount
            set_bit(heap, lows, (head + place) & mask)
            keep_older(heap, extremes_at(position, capacity, columns, LOW), capacity, low_marks, amount)
            low_marks += 1
    for column in range(columns):
        if marked >> (NEWEST + column) & 1 == 0:
            continue
        seen_stamp[0] += 1
        words, bits = column_at(position, capacity, column), bits_at(position, capacity, columns, NEWEST + column)
        for place in range(length - 1, -1, -1):
            word = word_of(heap, words, capacity, (head + place) & mask)
            if word != 0 and add_seen(seen_keys, seen_stamps, seen_stamp[0], word):
                set_bit(heap, bits, (head + place) & mask)


@kernel
def put(
    slots: Int64, at: int, heap: Int64, place: int, time_ms: int, amount: int, event_words: Int64, flags: int,
    columns: int, predicates: int, marked: int, previous: Int64, seen_keys: Int64, seen_stamps: Int64,
    seen_stamp: Int64,
) -> None:  # fmt: skip
    """Puts an event into its place; the ring has room. `previous` as `find_word` gives it, used at the end only."""
    position, capacity, head = slots[at, POSITION], slots[at, CAPACITY], slots[at, HEAD]
    length, mask = slots[at, LENGTH], capacity - 1
    for k in range(length, place, -1):
        to, source = row_at(position, capacity, head, k), row_at(position, capacity, head, k - 1)
        heap[to + TIME_MS] = heap[source + TIME_MS]
        heap[to + TOTAL] = heap[source + TOTAL] + amount
        newer, older = (head + k) & mask, (head + k - 1) & mask
        for column in range(columns):
            words = column_at(position, capacity, column)
            put_word(heap, words, capacity, newer, word_of(heap, words, capacity, older))
        for predicate in range(predicates):
            bits = bits_at(position, capacity, columns, NEWEST + columns + predicate)
            if has_bit(heap, bits, older):
                set_bit(heap, bits, newer)
            else:
                clear_bit(heap, bits, newer)
    row, physical = row_at(position, capacity, head, place), (head + place) & mask
    heap[row + TIME_MS] = time_ms
    heap[row + TOTAL] = total_until(heap, position, capacity, head, place - 1) + amount
    for column in range(columns):
        put_word(heap, column_at(position, capacity, column), capacity, physical, event_words[column])
    for predicate in range(predicates):
        bits = bits_at(position, capacity, columns, NEWEST + columns + predicate)
        if (flags >> predicate) & 1:
            set_bit(heap, bits, physical)
        else:
            clear_bit(heap, bits, physical)
    heap[position + PEAK] = max(heap[position + PEAK], abs(amount))
    slots[at, LENGTH] += 1
    note_squares(heap, position, capacity, head, place, length)
    if place == length:
        _mark_append(slots, at, heap, columns, marked, previous)
    else:
        mark_all(slots, at, heap, columns, marked, seen_keys, seen_stamps, seen_stamp)
