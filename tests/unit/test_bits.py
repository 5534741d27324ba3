"""Bit sets against lists of booleans; sums of 128 bits against Python's whole numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from features.arena import LINE_WORDS
from features.bits import (
    LINE_TAGS,
    WORD_BITS,
    bits_before,
    clear_bit,
    count_bits,
    equal_tags,
    has_bit,
    high_square,
    leading_zeros,
    lowest_bit,
    next_bit,
    population,
    previous_bit,
    rank_bits,
    read_from_byte,
    set_bit,
    squares_about_mean,
    words_of,
    words_until,
    write_from_byte,
)
from tests.oracle.events import signed

# Where a bit set begins on the heap; what surrounds it must not matter.
AT = 3
AMOUNT_MAX = 10**13

# Not kept on disk: what they are made of may change while this file does not.
compiled = njit(error_model="numpy")


@compiled
def _high_square(value):
    return high_square(value)


@compiled
def _squares_about_mean(count, low, high, total):
    return squares_about_mean(count, low, high, total)


@compiled
def _of_word(word):
    return lowest_bit(word), leading_zeros(word), population(word)


# --- places ----------------------------------------------------------------------------------------------------


@st.composite
def _rings(draw: st.DrawFn) -> tuple[np.ndarray, list[bool], int, int, int]:
    """A bit set on a heap, the same as booleans, and a range of places within one turn of the ring."""
    capacity = draw(st.sampled_from([2, 4, 8, 32, 64, 128, 512]))
    # Few bits and many: a run of one whole word and more without any must be met too.
    share = draw(st.sampled_from([0.0, 0.02, 0.5, 1.0]))
    places = (np.random.default_rng(draw(st.integers(0, 2**32))).random(capacity) < share).tolist()
    for place in draw(st.lists(st.integers(0, capacity - 1), max_size=3)):
        places[place] = not places[place]
    first = draw(st.integers(0, capacity - 1))
    length = draw(st.one_of(st.integers(0, capacity), st.just(capacity)))
    return _heap_of(places), places, first, first + length - 1, capacity - 1


def _heap_of(places: list[bool]) -> np.ndarray:
    words = [sum(bit << place for place, bit in enumerate(places[at : at + 64])) for at in range(0, len(places), 64)]
    heap = np.full(AT + len(words) + AT, -1, np.int64)
    heap[AT : AT + len(words)] = [signed(word) for word in words]
    return heap


@given(_rings())
def test_bits_are_counted(ring) -> None:
    heap, places, first, last, mask = ring
    assert count_bits(heap, AT, first, last, mask) == sum(places[k & mask] for k in range(first, last + 1))


@given(_rings())
def test_the_next_bit_is_found(ring) -> None:
    heap, places, first, last, mask = ring
    expected = next((k for k in range(first, last + 1) if places[k & mask]), last + 1)
    assert next_bit(heap, AT, first, last, mask) == expected


@given(_rings())
def test_the_previous_bit_is_found(ring) -> None:
    heap, places, first, last, mask = ring
    expected = next((k for k in range(last, first - 1, -1) if places[k & mask]), first - 1)
    assert previous_bit(heap, AT, last, first, mask) == expected


@pytest.mark.parametrize("find", [next_bit, previous_bit])
@pytest.mark.parametrize("capacity", [2, 8, 64, 256])
def test_walking_from_bit_to_bit_meets_each_one_once(find, capacity: int) -> None:
    rng = np.random.default_rng(capacity)
    for head in (0, 1, capacity // 2, capacity - 1):
        places = (rng.random(capacity) < 0.2).tolist()
        heap, mask = _heap_of(places), capacity - 1
        met, place, end = [], head, head + capacity - 1
        if find is previous_bit:
            place, end = end, place
        step = 1 if find is next_bit else -1
        while (place := find(heap, AT, place, end, mask)) != end + step:
            met.append(place)
            place += step
        assert met == [k for k in range(head, head + capacity)[::step] if places[k & mask]]


@given(st.integers(0, 255), st.lists(st.booleans(), min_size=256, max_size=256))
def test_one_bit_is_set_and_cleared_alone(place: int, places) -> None:
    heap = _heap_of(places)
    set_bit(heap, AT, place)
    assert heap.tolist() == _heap_of([*places[:place], True, *places[place + 1 :]]).tolist()
    assert has_bit(heap, AT, place)
    clear_bit(heap, AT, place)
    assert heap.tolist() == _heap_of([*places[:place], False, *places[place + 1 :]]).tolist()
    assert not has_bit(heap, AT, place)


def test_a_bit_set_has_a_bit_for_each_place() -> None:
    for capacity in (2, 4, 32, 64, 128, 1024):
        assert words_of(capacity) * WORD_BITS >= capacity
        assert words_of(capacity) == len(_heap_of([False] * capacity)) - 2 * AT


# --- machine instructions --------------------------------------------------------------------------------------


@given(st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 63).map(lambda bit: 1 << bit), st.just(0)))
def test_instructions_on_words(word: int) -> None:
    text = f"{word:064b}"
    lowest = 64 if word == 0 else 63 - text.rindex("1")
    leading = 64 if word == 0 else text.index("1")
    assert _of_word(np.uint64(word)) == (lowest, leading, text.count("1"))


@given(st.one_of(st.integers(-(2**63), 2**63 - 1), st.sampled_from([0, 1, -1, 2**32, -(2**63), 2**63 - 1])))
def test_a_square_has_128_bits(value: int) -> None:
    assert _high_square(value) == value * value >> 64


# --- spread ----------------------------------------------------------------------------------------------------

AMOUNTS = st.one_of(
    st.integers(-AMOUNT_MAX, AMOUNT_MAX),
    st.integers(-3, 3),
    st.integers(-3, 3).map(lambda n: AMOUNT_MAX + n),
)


def _spread(amounts: list[int]) -> float:
    squares = sum(amount * amount for amount in amounts)
    low, high = np.uint64(squares % 2**64), np.uint64(squares >> 64)
    return _squares_about_mean(len(amounts), low, high, sum(amounts))


@given(st.lists(AMOUNTS, max_size=300))
def test_spread_is_that_of_whole_numbers(amounts: list[int]) -> None:
    """Nothing is rounded but the result: huge amounts that differ by one have their spread all the same."""
    exact = len(amounts) * sum(amount * amount for amount in amounts) - sum(amounts) ** 2
    assert _spread(amounts) == pytest.approx(float(exact), rel=2**-51, abs=0)


@pytest.mark.parametrize("amount", [0, 1, -1, AMOUNT_MAX, -AMOUNT_MAX, 123_456_789])
@pytest.mark.parametrize("count", [1, 2, 7, 100_000, 900_000])
def test_equal_amounts_have_no_spread_at_all(amount: int, count: int) -> None:
    """As many of the largest as n * |value| < 2^63 allows."""
    squares = count * amount * amount
    found = _squares_about_mean(count, np.uint64(squares % 2**64), np.uint64(squares >> 64), count * amount)
    assert found == 0


# --- many words at once ----------------------------------------------------------------------------------------


@compiled
def _compared(heap, first, value):
    return equal_tags(heap, first, value), words_until(heap, first, value)


@given(st.lists(st.integers(-3, 3), min_size=LINE_TAGS, max_size=LINE_TAGS), st.integers(-3, 3), st.integers(0, 3))
def test_tags_are_compared_side_by_side(values: list[int], tag: int, first: int) -> None:
    heap = np.full(LINE_TAGS // 4 + first, 9, np.int64)
    heap.view(np.int16)[4 * first :] = values
    equal, _ = _compared(heap, first, tag & 0xFFFF)
    assert int(equal) == sum((value == tag) << k for k, value in enumerate(values))


@given(st.lists(st.integers(-3, 3), min_size=LINE_WORDS, max_size=LINE_WORDS), st.integers(-3, 3), st.integers(0, 3))
def test_words_are_compared_side_by_side(values: list[int], limit: int, first: int) -> None:
    heap = np.full(LINE_WORDS + first, 9, np.int64)
    heap[first:] = values
    _, until = _compared(heap, first, limit)
    assert int(until) == sum((value <= limit) << k for k, value in enumerate(values))


@compiled
def _moved(heap, at, byte, word):
    write_from_byte(heap, at, byte, word)
    return read_from_byte(heap, at, byte)


@given(st.integers(0, 2), st.integers(0, 15), st.integers(-(2**63), 2**63 - 1))
def test_words_begin_at_any_byte(at: int, byte: int, word: int) -> None:
    heap = np.full(6, -77, np.int64)
    expected = bytearray(heap.tobytes())
    expected[8 * at + byte : 8 * at + byte + 8] = word.to_bytes(8, "little", signed=True)
    assert _moved(heap, at, byte, word) == word
    assert heap.tobytes() == expected


@given(_rings(), st.data())
def test_ranks_count_the_bits_before_a_place(ring, data: st.DataObject) -> None:
    heap, places, *_ = ring
    ranks = np.zeros(words_of(len(places)), np.int64)
    assert rank_bits(heap, AT, len(places), ranks) == sum(places)
    place = data.draw(st.integers(0, len(places) - 1))
    assert bits_before(heap, AT, ranks, place) == sum(places[:place])
