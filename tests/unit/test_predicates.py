"""Predicates: what an expression says, evaluated row by row here and by columns there; and what is no expression."""

import operator
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.predicates import (
    DEPTH_MAX,
    TEXT_CHARS_MAX,
    Inputs,
    Predicate,
    PredicateError,
    compile_predicate,
    parse_predicate,
)
from features.words import column_seed, key_hashes, text_word

NUMBERS = frozenset(["km", "größe"])
TEXTS = ("mode", "shop")
# A row: amount in minor units, then numbers and texts by field, None where the event has none.
Row = tuple[int, dict[str, float | None], dict[str, str | None]]


def parse(text: str) -> Predicate:
    return parse_predicate(text, NUMBERS)


def evaluate(text: str, rows: list[Row], minor_per_major: int = 100) -> list[bool]:
    test = compile_predicate(parse(text), minor_per_major, text_word)
    numbers = {name: np.array([row[1].get(name) for row in rows], np.float64) for name in NUMBERS}
    words = {name: key_hashes([row[2].get(name) for row in rows], column_seed(name)) for name in TEXTS}
    holds: list[bool] = test(Inputs(np.array([row[0] for row in rows], np.int64), numbers, words)).tolist()
    return holds


# --- against an interpreter of one row ---------------------------------------------------------------------------

# An expression as it is written, and what it says of one row.
Meaning = Callable[[Row, int], bool]
Expression = tuple[str, Meaning]
ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
}  # fmt: skip
MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}

number_texts = st.one_of(
    st.sampled_from(
        ["0", "1", "1.00", "1.99", "2", "2.005", ".5", "-1", "+3.", "1e1", "15e-1", "1e300", "-1e300", "1e-320"]
    ),
    st.decimals(-3, 3, places=3).map(str),
)
words_of_text = st.sampled_from(["a", "b", "é\"'", "\\", "0", "a b"])
field_numbers = st.one_of(st.none(), st.sampled_from([0.0, -0.0, 1.0, 2.005, 0.5, 15.0, -1.0]), st.floats(-3, 3))
rows_of_columns: st.SearchStrategy[list[Row]] = st.lists(
    st.tuples(
        st.one_of(st.integers(-320, 320), st.integers(-(10**13), 10**13)),
        st.fixed_dictionaries(dict.fromkeys(sorted(NUMBERS), field_numbers)),
        st.fixed_dictionaries(dict.fromkeys(TEXTS, st.one_of(st.none(), words_of_text))),
    ),
    max_size=12,
)


def value_in(row: Row, field: str, minor_per_major: int) -> Fraction | float | str | None:
    if field == "amount":
        return Fraction(row[0], minor_per_major)
    return row[1][field] if field in NUMBERS else row[2][field]


def literal_of(field: str, text: str) -> Fraction | float | str:
    if field == "amount":
        return Fraction(text)
    return float(text) if field in NUMBERS else text


def spelled(field: str, text: str) -> str:
    return text if field not in TEXTS else repr(text)


@st.composite
def comparisons(draw: st.DrawFn) -> Expression:
    field = draw(st.sampled_from(["amount", *sorted(NUMBERS), *TEXTS]))
    texts = draw(st.lists(words_of_text if field in TEXTS else number_texts, min_size=1, max_size=3))
    literals = [literal_of(field, text) for text in texts]
    if draw(st.booleans()):
        word = draw(st.sampled_from(["in", "not in"]))
        opening, closing = draw(st.sampled_from(["()", "[]", "{}"]))
        comma = "," if opening == "(" else ""
        listed = ", ".join(spelled(field, text) for text in texts)

        def among(row: Row, minor_per_major: int) -> bool:
            value = value_in(row, field, minor_per_major)
            return value is not None and (value in literals) == (word == "in")

        return f"{field} {word} {opening}{listed}{comma}{closing}", among
    symbol = draw(st.sampled_from(["==", "!="] if field in TEXTS else sorted(ORDERS)))

    def compared(row: Row, minor_per_major: int) -> bool:
        value = value_in(row, field, minor_per_major)
        return value is not None and ORDERS[symbol](value, literals[0])

    if draw(st.booleans()):
        return f"{spelled(field, texts[0])} {MIRRORED[symbol]} {field}", compared
    return f"{field} {symbol} {spelled(field, texts[0])}", compared


def negated(inner: Expression) -> Expression:
    return f"not ({inner[0]})", lambda row, scale: not inner[1](row, scale)


def joined(word: str, inner: list[Expression]) -> Expression:
    every = all if word == "and" else any
    return f" {word} ".join(f"({text})" for text, _ in inner), lambda row, scale: every(m(row, scale) for _, m in inner)


expressions: st.SearchStrategy[Expression] = st.recursive(
    comparisons(),
    lambda inner: st.one_of(
        inner.map(negated),
        st.builds(joined, st.sampled_from(["and", "or"]), st.lists(inner, min_size=2, max_size=3)),
    ),
    max_leaves=6,
)


@given(expressions, rows_of_columns, st.sampled_from([1, 100, 1000]))
def test_columns_say_what_every_row_says(expression: Expression, rows: list[Row], minor_per_major: int) -> None:
    text, meaning = expression
    assert evaluate(text, rows, minor_per_major) == [meaning(row, minor_per_major) for row in rows]


@given(expressions, rows_of_columns)
def test_the_canonical_text_says_the_same(expression: Expression, rows: list[Row]) -> None:
    canonical = parse(expression[0]).text
    assert parse(canonical).text == canonical
    assert evaluate(canonical, rows) == evaluate(expression[0], rows)


# --- meaning -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "minor", "holds"),
    [
        ("amount < 2.00", 199, True),
        ("amount < 2.00", 200, False),
        ("amount < 2.005", 200, True),
        ("amount <= 2.005", 201, False),
        ("amount > 2.005", 200, False),
        ("amount >= 2.005", 201, True),
        ("amount == 0.07", 7, True),  # in binary 0.07 * 100 is not 7
        ("amount == 0.075", 7, False),
        ("amount != 0.075", 7, True),
        ("amount in (0.075, 0.07)", 7, True),
        ("1 < amount <= 2", 200, True),
        ("1 < amount < 2", 200, False),
        ("amount < 99999999999.991", 9_999_999_999_999, True),
        ("amount > -1e300", -(10**13), True),
    ],
)
def test_amounts_compare_exactly(text: str, minor: int, holds: bool) -> None:
    assert evaluate(text, [(minor, {}, {})]) == [holds]


@pytest.mark.parametrize("text", ["amount < 1.5", "1.5 > amount"])
@pytest.mark.parametrize(("minor_per_major", "minor"), [(1, 1), (1000, 1499)])
def test_an_amount_is_in_major_units_whatever_the_currency(text: str, minor_per_major: int, minor: int) -> None:
    assert evaluate(text, [(minor, {}, {}), (minor + 1, {}, {})], minor_per_major) == [True, False]


@pytest.mark.parametrize(
    ("text", "absent"),
    [("km == 1", False), ("km != 1", False), ("km < 1", False), ("km >= 1", False), ("km not in (1, 2)", False),
     ('mode == "a"', False), ('mode != "a"', False), ('mode not in ("a", "b")', False),
     ("not km == 1", True), ('not mode != "a"', True), ("km < 1 or not km < 1", True)],
)  # fmt: skip
def test_nothing_compares_with_an_absent_field(text: str, absent: bool) -> None:
    assert evaluate(text, [(0, {}, {})]) == [absent]


def test_and_binds_before_or_and_not_before_both() -> None:
    rows: list[Row] = [(a, {}, {}) for a in (1, 2, 3, 4)]
    assert evaluate("amount == 1 or amount == 2 and amount > 9", rows, 1) == [True, False, False, False]
    assert evaluate("not amount == 1 and amount != 2", rows, 1) == [False, False, True, True]


def test_an_expression_may_stand_on_several_lines() -> None:
    assert parse('\n  amount < 2\n  and mode == "a"\n').text == "amount < 2 and mode == 'a'"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("amount<2.00", "2 > amount"),
        ("amount in (1, 2.0)", "amount in [2, 1.00, 1]"),
        ('mode in {"a"}', "mode == 'a'"),
        ("amount < 1e2", "(amount < (100))"),
        ("(amount < 1 and amount > -0.0) and km == 2", "amount < 1 and (0 < amount and km == 2)"),
    ],
)
def test_a_text_is_its_meaning_and_not_its_spelling(one: str, other: str) -> None:
    assert parse(one).text == parse(other).text


def test_a_predicate_knows_its_fields() -> None:
    predicate = parse('not (km < 1 or größe > 2) and amount < 3 and shop == "x" and mode != "y" and mode != "z"')
    assert (predicate.texts, predicate.numbers) == (("mode", "shop"), ("größe", "km"))


# --- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "column", "said"),
    [
        ("amount", 1, "'amount' alone is no condition"),
        ("amount < 2 and mode", 16, "'mode' alone is no condition"),
        ("1", 1, "not a condition; allowed: =="),
        ("amount = 2", 8, "invalid syntax"),
        ("amount < 2 AND km < 1", 12, "invalid syntax"),
        ("amount <", 9, "invalid syntax"),
        ("(amount < 2", 1, "'(' was never closed"),
        ('größe > 1 and mode == "a', 23, "unterminated string literal"),
        ("größe < x", 9, "'x' is a field, or lacks its quotes"),
        ("mode == shop", 9, "'shop' is a field, or lacks its quotes"),
        ('"a" == "b"', 1, "not a field"),
        ("1 < 2 < amount", 1, "not a field"),
        ("1 < amount < km", 14, "'km' is a field"),
        ("amout < 2", 1, "'amout' is text, which has no order; list it in mapping.numbers"),
        ('mode >= "a"', 1, "'mode' is text, which has no order"),
        ("mode == 5411", 9, "'mode' is text: write the value in quotes"),
        ('mode in ("a", 1)', 15, "'mode' is text: write the value in quotes"),
        ('amount < "2"', 10, "'amount' is a number: compare it with a number"),
        ('km == "2"', 7, "'km' is a number: compare it with a number"),
        ('mode == ""', 9, "empty text counts as absent"),
        ('mode == "\\ud800"', 9, "a lone surrogate"),
        ("mode == '\ud800'", 10, "a lone surrogate"),
        ('mode == "\\d"', 9, "invalid escape sequence"),
        ('mode in "abc"', 9, "not a list of values"),
        ("mode in ()", 9, "not a list of values"),
        ("(1, 2) == amount", 1, "not a value; allowed: a number"),
        ("amount is 2", 1, "'is' compares no values"),
        ("mode == None", 9, "not a value; allowed: a decimal number"),
        ("mode == True", 9, "not a value"),
        ("amount < 0x10", 10, "not a value"),
        ("amount < 1_000", 10, "not a value"),
        ("amount < 1j", 10, "not a value"),
        ('mode == b"a"', 9, "not a value"),
        ('mode == f"a"', 9, "not a value"),
        ("amount < 1 + 1", 10, "not a value"),
        ("amount < --1", 10, "not a value"),
        ("amount * 2 < 1", 1, "not a field"),
        ("km < 1e999", 6, "too large"),
        (f"km < 0.{'1' * 40}", 6, "longer than 40 characters"),
        ("hour_of_day < 6", 1, "'hour_of_day' is a feature, and no field"),
        ("mode.x == 1", 1, "not a field"),
        ("len(mode) == 1", 1, "not a field"),
        ("__import__('os')", 1, "not a condition"),
        ("[x for x in mode]", 1, "not a condition"),
        ("lambda: amount < 2", 1, "not a condition"),
        ("(amount := 2)", 2, "not a condition"),
        ("amount < 2; km < 1", 11, "invalid syntax"),
        ("\0", 1, "null characters are not allowed"),
        ("mode == 'a\0b'", 11, "null characters are not allowed"),
        ("amount < 2 # small", 12, "comments are not allowed"),
        ("(km < 1) # größe", 10, "comments are not allowed"),
        ("amount < 2 # small\nand km < 1", 12, "comments are not allowed"),
        ("not " * (DEPTH_MAX + 1) + "km < 1", 4 * DEPTH_MAX + 1, "nested too deep: at most 32 levels"),
        ("not " * 2_400 + "km < 1", 4 * DEPTH_MAX + 1, "nested too deep"),
        ("-" * 9_000 + "1 < km", 1, "nested too deep"),
        ("(" * 300 + "km < 1" + ")" * 300, 201, "too many nested parentheses"),
    ],
)
def test_no_predicate(text: str, column: int, said: str) -> None:
    with pytest.raises(PredicateError, match=re.escape(f": column {column}: ")) as raised:
        parse(text)
    assert said in str(raised.value)
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "is empty"), (" \n ", "is empty"), ("amount < 1" + " " * TEXT_CHARS_MAX, "at most 10000 are allowed")],
)
def test_no_expression_at_all(text: str, said: str) -> None:
    with pytest.raises(PredicateError, match=said):
        parse(text)


SCRAPS = [
    *"()[]{},+-*.:#\\\n\0'\"",
    "amount",
    "km",
    "mode",
    "and",
    "or",
    "not",
    "in",
    "is",
    "<",
    "==",
    "1",
    "0.5",
    "'a'",
]
SCRAPS += [" ", "if", "else", "lambda", "for", "await", "f'", ":="]


@given(st.text(max_size=30) | st.lists(st.sampled_from(SCRAPS), max_size=14).map(" ".join))
def test_whatever_is_written_is_a_predicate_or_an_error_that_says_where(text: str) -> None:
    said = ""
    try:
        assert evaluate(text, []) == []
    except PredicateError as error:
        said = str(error)
    assert not said or re.search(r": column \d+: |^is empty", said)
