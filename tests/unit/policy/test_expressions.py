"""Rule expressions: what is read, what it means at the edges, and what is no expression, with where and why.

tests/property/test_expressions.py compares whole columns with an interpreter of one row.
"""

import re
import warnings
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.policy.expressions import (
    DEPTH_MAX,
    TEXT_CHARS_MAX,
    Among,
    Arithmetic,
    Call,
    Comparison,
    Expression,
    ExpressionError,
    Junction,
    Kind,
    Known,
    Name,
    Negative,
    Node,
    Not,
    Number,
    parse_expression,
)
from features.words import column_seed, key_hashes
from tests.rules import Columns, evaluated, ready

NUMBERS = ("amount", "score", "größe", "card.count.1h", "card.sum.amount.24h.small.prior", "min", "class", "Ünï.1e")
TEXTS = ("mode", "shop")
FLAGS = ("small", "event.abroad")
NAMES: dict[str, Kind] = {
    **dict.fromkeys(NUMBERS, "number"), **dict.fromkeys(TEXTS, "text"), **dict.fromkeys(FLAGS, "flag"),
}  # fmt: skip
AMOUNT, SCORE, COUNT = (Name(name, "number") for name in ("amount", "score", "card.count.1h"))
MODE, SMALL = Name("mode", "text"), Name("small", "flag")
NAN, INFINITY = float("nan"), float("inf")


def parse(text: str) -> Expression:
    return parse_expression(text, NAMES)


def columns_of(
    amounts: Sequence[float], scores: Sequence[float] = (), modes: Sequence[str | None] = (), small: Sequence[bool] = ()
) -> Columns:
    """What is not given is absent."""
    events = len(amounts)
    columns = {"amount": np.array(amounts, np.float64), "score": np.array(scores or [NAN] * events, np.float64)}
    modes, small = modes or [None] * events, small or [False] * events
    return Columns(columns, {"mode": key_hashes(modes, column_seed("mode"))}, {"small": np.array(small, np.bool_)})


def evaluate(text: str, columns: Columns) -> list[bool]:
    with warnings.catch_warnings(action="error"):
        holds: list[bool] = evaluated([parse(text)], columns)[0].tolist()
    return holds


# --- what is read ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "root"),
    [
        ("small", SMALL),
        ("not small", Not(SMALL)),
        ("amount > 2.50", Comparison(">", AMOUNT, Number(2.5))),
        ("2 > amount", Comparison("<", AMOUNT, Number(2.0))),
        ("2 * 3 > amount", Comparison(">", Arithmetic("*", Number(2.0), Number(3.0)), AMOUNT)),
        ("score == amount", Comparison("==", SCORE, AMOUNT)),
        ("amount == 2", Among(AMOUNT, (2.0,), True)),
        ("2 != amount", Among(AMOUNT, (2.0,), False)),
        ("amount not in {3, -1, 3.0}", Among(AMOUNT, (-1.0, 3.0), False)),
        ('mode == "a"', Among(MODE, ("a",), True)),
        ("'a' != mode", Among(MODE, ("a",), False)),
        ("mode in ['b', \"a\"]", Among(MODE, ("a", "b"), True)),
        ("known(mode)", Known(MODE)),
        ("known(amount / score)", Known(Arithmetic("/", AMOUNT, SCORE))),
        ("abs(amount) > --1", Comparison(">", Call("abs", (AMOUNT,)), Number(1.0))),
        ("-amount > -0", Comparison(">", Negative(AMOUNT), Number(0.0))),
        ("min(amount, score, 3,) < 1", Comparison("<", Call("min", (AMOUNT, SCORE, Number(3.0))), Number(1.0))),
        ("min (min, 3) < 1", Comparison("<", Call("min", (Name("min", "number"), Number(3.0))), Number(1.0))),
        ("class > 1 and small", Junction("and", (Comparison(">", Name("class", "number"), Number(1.0)), SMALL))),
        ("card.count.1h>1e-1", Comparison(">", COUNT, Number(0.1))),
        ("Ünï.1e-1 > 0", Comparison(">", Arithmetic("-", Name("Ünï.1e", "number"), Number(1.0)), Number(0.0))),
    ],
)  # fmt: skip
def test_a_tree(text: str, root: Node) -> None:
    assert parse(text).root == root


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("amount - score - 1 > 0", "((amount - score) - 1) > 0"),
        ("amount / score * 2 > 0", "((amount / score) * 2) > 0"),
        ("amount + score * 2 > 0", "(amount + (score * 2)) > 0"),
        ("-amount * score > 0", "((-amount) * score) > 0"),
        ("amount - -score > 0", "amount - (-score) > 0"),
        ("amount < score + 1", "amount < (score + 1)"),
        ("not amount < 1", "not (amount < 1)"),
        ("not small and small", "(not small) and small"),
        ("small or small and small", "small or (small and small)"),
        ("1 < amount < score", "amount > 1 and amount < score"),
        ("small and (small and not small)", "small and small and not small"),
    ],
)
def test_what_binds_tighter(text: str, means: str) -> None:
    assert parse(text).root == parse(means).root


@pytest.mark.parametrize(
    ("text", "parenthesised"),
    [
        ("amount - (score - 1) > 0", "amount - (score - 1) > 0"),
        ("(amount + score) * 2 > 0", "(amount + score) * 2 > 0"),
        ("amount / (score * 2) > 0", "amount / (score * 2) > 0"),
        ("-(amount + 1) > 0", "-(amount + 1) > 0"),
        ("(amount - score) - 1 > 0", "amount - score - 1 > 0"),
        ("not (not small)", "not (not small)"),
        ("not (amount > 1)", "not (amount > 1)"),
        ("not (known(mode))", "not known(mode)"),
        ("(small or small) and small", "(small or small) and small"),
        ("small and amount > 1 or not small", "(small and amount > 1) or not small"),
    ],
)
def test_the_normal_text_has_the_parentheses_that_it_needs(text: str, parenthesised: str) -> None:
    assert parse(text).text == parenthesised
    assert parse(parenthesised) == parse(text)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("amount<2.00", "2 > amount"),
        ("amount in (1, 2.0)", "amount in [2, 1.00, 1]"),
        ('mode in {"a"}', "mode == 'a'"),
        ("mode == 'é'", r"mode == '\xe9'"),
        ("amount < 1e2", "(amount < ((100.)))"),
        ("amount < 0.1", "amount < 0.1000000000000000055"),
        ("amount > -0.0", "amount > 0"),
        ("(amount < 1 and 0 < amount) and small", "amount < 1 and\n (amount > 0\r\n\t and (small))"),
        ("1 < amount < 5", "amount > 1 and amount < 5"),
    ],
)
def test_a_text_is_its_meaning_and_not_its_spelling(one: str, other: str) -> None:
    assert parse(one) == parse(other)


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("2.00", "2"),
        ("1e14", "100000000000000"),
        ("1e15", "1000000000000000"),
        ("1e16", "1e+16"),
        ("-.5", "-0.5"),
        ("1e-320", "1e-320"),
        ("007", "7"),
    ],
)
def test_numbers_are_written_short(written: str, text: str) -> None:
    assert parse(f"amount > {written}").text == f"amount > {text}"


def test_an_expression_knows_its_names() -> None:
    expression = parse("not (größe / card.count.1h > min(1, amount)) and mode in ('a', 'b') or small and known(mode)")
    assert expression.names == ("amount", "card.count.1h", "größe", "mode", "small")


# --- what it means -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("amount == 1", False),
        ("amount != 1", False),
        ("amount != score", False),
        ("amount < 1", False),
        ("amount >= 1", False),
        ("amount == amount", False),
        ("amount in (1, 2)", False),
        ("amount not in (1, 2)", False),
        ("amount not in (1, 2, 3, 4, 5, 6, 7, 8, 9)", False),
        ("mode == 'a'", False),
        ("mode != 'a'", False),
        ("mode not in ('a', 'b')", False),
        ("not amount == 1", True),
        ("not amount != 1", True),
        ("not mode != 'a'", True),
        ("known(amount)", False),
        ("known(mode)", False),
        ("known(amount + 1)", False),
        ("known(-amount)", False),
        ("known(abs(amount))", False),
        ("amount * 0 == 0", False),
        ("min(amount, 3) == 3", True),
        ("max(amount, -3) == -3", True),
        ("known(min(amount, amount))", False),
        ("1 < amount < 2", False),
    ],
)
@pytest.mark.parametrize("null", [NAN, INFINITY, -INFINITY])
def test_null(text: str, holds: bool, null: float) -> None:
    assert evaluate(text, columns_of([null], [5.0], [None], [False])) == [holds]


@pytest.mark.parametrize(
    ("text", "amount", "score", "holds"),
    [
        ("known(amount / score)", 1.0, 0.0, False),
        ("known(amount / score)", 1.0, -0.0, False),
        ("known(amount / score)", 0.0, 0.0, False),
        ("known(amount / 0)", 1.0, 1.0, False),
        ("amount > 1 / 0", 1.0, 1.0, False),
        ("known(score / amount)", 1.0, 0.0, True),
        ("amount / score > 1", 1.0, 0.0, False),
        ("not amount / score > 1", 1.0, 0.0, True),
        ("max(amount / score, 2) == 2", 1.0, 0.0, True),
        ("known(amount * score)", 1e200, 1e200, False),
        ("known(amount + score)", 1e308, 1e308, False),
        ("known(amount - score)", -1e308, 1e308, False),
        ("known(amount / score)", 1e300, 1e-300, False),
        ("amount * 1e300 * 0 == 0", 1e300, 0.0, False),
        ("1e308 + 1e308 > amount", 1.0, 0.0, False),
        ("amount / score == 0", 1e-300, 1e300, True),
        ("amount == 0", -0.0, 0.0, True),
        ("amount == -score", -0.0, 0.0, True),
        ("amount < score", 1.0, 2.0, True),
        ("amount != score", 1.0, 2.0, True),
        ("amount != score", 2.0, 2.0, False),
        ("0.1 + 0.2 == amount", 0.3, 0.0, False),
        ("0.1 + 0.2 == amount", 0.1 + 0.2, 0.0, True),
    ],
)
def test_arithmetic_at_its_limits(text: str, amount: float, score: float, holds: bool) -> None:
    assert evaluate(text, columns_of([amount], [score])) == [holds]


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("not amount == 1", [False, True, True]),
        ("not amount != 1", [True, False, True]),
        ("not amount > 1", [True, False, True]),
        ("not known(amount)", [False, False, True]),
        ("not mode in ('a', 'b')", [False, True, True]),
        ("not mode not in ('a', 'b')", [True, False, True]),
        ("not small", [False, True, True]),
        ("not small and not amount > 1", [False, False, True]),
        ("small or not amount > 1", [True, False, True]),
    ],
)
def test_not_turns_around_what_it_stands_before(text: str, holds: list[bool]) -> None:
    assert evaluate(text, columns_of([1.0, 2.0, NAN], [], ["a", "z", None], [True, False, False])) == holds


def test_lists_short_and_long() -> None:
    columns = columns_of([1.0, 2.0, 9.0, 10.0, 0.5, NAN], [], ["a", "b", "z", None, "a", "b"])
    for listed in ("1, 9", "1, 9, 12, 13, 14, 15, 16, 17, 18, 19"):
        assert evaluate(f"amount in ({listed})", columns) == [True, False, True, False, False, False]
        assert evaluate(f"amount not in ({listed})", columns) == [False, True, False, True, True, False]
    for listed in ("'a', 'z'", "'a', 'z', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j'"):
        assert evaluate(f"mode in ({listed})", columns) == [True, False, True, False, True, False]
        assert evaluate(f"mode not in ({listed})", columns) == [False, True, False, False, False, True]


@pytest.mark.parametrize("text", ["amount + 1 > 2 * 3 and not known(score)", "amount in (1, 2) or amount / 0 > 1"])
def test_no_events_at_all(text: str) -> None:
    assert evaluate(text, columns_of([])) == []


def test_several_rules_evaluate_a_common_part_once() -> None:
    texts = ["amount / score > 2", "amount / score > 3 and amount > 1", "not (amount / score > 2)"]
    columns = columns_of([5.0, 8.0], [2.0, 2.0])
    found = evaluated([parse(text) for text in texts], columns)
    assert found.tolist() == [[True, True], [False, True], [False, False]]
    steps = [len(ready([parse(text) for text in some], columns)[0]) for some in (texts[:1], texts)]
    # amount, score, their quotient, 2, >; then 3, >, 1, >, and, not.
    assert steps == [5, 11]


def test_no_rules() -> None:
    assert evaluated([], columns_of([1.0, 2.0])).shape == (0, 2)


def test_a_column_that_is_not_there() -> None:
    with pytest.raises(KeyError, match=r"card\.count\.1h"):
        evaluated([parse("card.count.1h > 1")], columns_of([1.0]))


# --- what is no expression ---------------------------------------------------------------------------------------

# Text, line, column, and what is said among other things.
Refused = tuple[str, int, int, str]

ODD_TOKENS: list[Refused] = [
    ("amount = 2", 1, 8, "'=' has no meaning here; write == to compare"),
    ("amount := 2", 1, 8, "write == to compare"),
    ("amount <> 2", 1, 8, "write != for unequal"),
    ("!small", 1, 1, "write not"),
    ("~small", 1, 1, "write not"),
    ("small & small", 1, 7, "write and"),
    ("small && small", 1, 7, "write and"),
    ("small | small", 1, 7, "write or"),
    ("small || small", 1, 7, "write or"),
    ("amount ** 2 > 4", 1, 8, "'**' has no meaning here"),
    ("amount // 2 > 4", 1, 8, "'//' has no meaning here"),
    ("amount % 2 == 1", 1, 8, "'%' has no meaning here"),
    ("amount ^ 2 == 1", 1, 8, "'^' has no meaning here"),
    ("amount @ 2 == 1", 1, 8, "'@' has no meaning here"),
    ("amount << 2 > 1", 1, 8, "'<<' has no meaning here"),
    ("amount >> 2 > 1", 1, 8, "'>>' has no meaning here"),
    ("lambda: small", 1, 1, "'lambda' is no known name"),
    ("amount > 2; small", 1, 11, "';' has no meaning here"),
    ("amount > 2 # small", 1, 12, "comments are not allowed"),
    ("amount > 2 \\\n and small", 1, 12, "'\\\\' has no meaning here"),
    ("amount > $2", 1, 10, "'$' has no meaning here"),
    ("amount > 2?", 1, 11, "'?' has no meaning here"),
    ("amount > `2`", 1, 10, "'`' has no meaning here"),
    ("amount\xa0> 2", 1, 7, "'\\xa0' has no meaning here"),
    ("größe ≥ 2", 1, 7, "'≥' has no meaning here"),
    ("größe > ٣", 1, 9, "has no meaning here"),
    ("größe.\n1h > 2", 1, 6, "'.' has no meaning here"),
    ("amount .5 > 1", 1, 8, "an operator or a comma is missing"),
    ("amount..x > 1", 1, 7, "'.' has no meaning here"),
    ("{'a': 1}", 1, 5, "':' has no meaning here"),
    ("mode == \u201ca\u201d", 1, 9, "straight quotes"),
    ("mode == \u2018a\u2019", 1, 9, "straight quotes"),
    ("mode == 'a", 1, 9, "this text is not closed on its line"),
    ('größe > 1 and\n  mode == "ä', 2, 11, "this text is not closed on its line"),
    ("mode == 'a\nb'", 1, 9, "this text is not closed on its line"),
    ("mode == 'a\\\nb'", 1, 9, "this text is not closed on its line"),
    ("mode == ''", 1, 9, "empty text counts as absent"),
    ('mode == """a"""', 1, 9, "empty text counts as absent"),
    ("mode == '\\d'", 1, 9, "this text cannot be read: invalid escape sequence"),
    ("mode == '\\N{no such}'", 1, 9, "this text cannot be read"),
    ("mode == 'a\0b'", 1, 9, "this text cannot be read"),
    ("mode == '\\ud800'", 1, 9, "a lone surrogate is no character"),
    ("mode == '\ud800'", 1, 9, "a lone surrogate is no character"),
    ("\ud800 == 1", 1, 1, "'\\ud800' has no meaning here"),
    ("amount < 0x10", 1, 10, "'0x10' is no decimal number"),
    ("amount < 1_000", 1, 10, "'1_000' is no decimal number"),
    ("amount < 1,000", 1, 1, "a list stands after in or not in"),
    ("amount < 1.000.000", 1, 10, "'1.000.000' is no decimal number"),
    ("amount < 1j", 1, 10, "'1j' is no decimal number"),
    ("amount < 1e", 1, 10, "'1e' is no decimal number"),
    ("card.count.1h < 10m", 1, 17, "'10m' is no decimal number"),
    ("amount < 2€", 1, 11, "'€' has no meaning here"),
    ("amount < 1e999", 1, 10, "too large"),
    ("amount < 1e-999", 1, 10, "too close to 0"),
    (f"amount < 0.{'1' * 40}", 1, 10, "longer than 40 characters"),
    (f"amount < {'9' * 5000}", 1, 10, "longer than 40 characters"),
]
ODD_WORDS: list[Refused] = [
    ("amout > 2", 1, 1, "'amout' is no known name, or lacks its quotes; did you mean amount?"),
    ("card.count.1 > 2", 1, 1, "did you mean card.count.1h?"),
    ("small and\n\n\tcard.cout.1h > 2", 3, 2, "did you mean card.count.1h?"),
    ("größe > 1 and grösse > 2", 1, 15, "did you mean größe?"),
    ("mode == 'größe' and\r\n größe > 2 and x.y", 2, 16, "'x.y' is no known name"),
    ("mode == ecom", 1, 9, "'ecom' is no known name, or lacks its quotes"),
    ("card .count > 1", 1, 1, "'card' is no known name"),
    ("amount.real > 1", 1, 1, "'amount.real' is no known name"),
    ("mode.upper() == 'A'", 1, 1, "'mode.upper' is no function; allowed: abs, known, max, min"),
    ("len(mode) == 1", 1, 1, "'len' is no function"),
    ("amount (2) > 1", 1, 1, "'amount' is no function"),
    ("__import__('os')", 1, 1, "'__import__' is no function"),
    ("abs > 1", 1, 1, "'abs' is no known name"),
    ("AMOUNT > 1", 1, 1, "'AMOUNT' is no known name"),
    ("amount > 1 AND small", 1, 12, "write and in small letters"),
    ("NOT (small)", 1, 1, "write not in small letters"),
    ("amount is null", 1, 8, "known(x) says whether a value is there"),
    ("amount is not None", 1, 8, "known(x) says whether a value is there"),
    ("größe == None", 1, 10, "known(x) says whether a value is there"),
    ("mode != null", 1, 9, "known(x) says whether a value is there"),
    ("small == True", 1, 10, "a flag stands alone, or after not"),
    ("true", 1, 1, "a flag stands alone, or after not"),
    ("small if small else small", 1, 7, "'if' is no known name"),
    ("[x for x in mode]", 1, 2, "'x' is no known name"),
    ("await small", 1, 1, "'await' is no known name"),
    ("f'a' == mode", 1, 1, "'f' is no known name"),
    ("mode == b'a'", 1, 9, "'b' is no known name"),
    (f"{'x' * 5000} > 1", 1, 1, "'xxxx"),
]
ODD_GRAMMAR: list[Refused] = [
    ("", 1, 1, "is empty; write a condition"),
    (" \n ", 1, 1, "is empty; write a condition"),
    ("amount > 1" + " " * TEXT_CHARS_MAX, 1, 1, "10010 characters: at most 10000 are allowed"),
    ("amount >", 1, 9, "ends where a value is expected"),
    ("größe > 1 and\n  mode in  \n", 2, 10, "ends where a value is expected"),
    ("small and", 1, 10, "ends where a value is expected"),
    ("and small", 1, 1, "invalid syntax"),
    ("small and or small", 1, 11, "invalid syntax"),
    ("not\n  and small", 2, 3, "invalid syntax"),
    ("amount => 1", 1, 8, "write == to compare"),
    ("amount > > 1", 1, 10, "invalid syntax"),
    ("amount not 1", 1, 12, "invalid syntax"),
    ("small small", 1, 7, "an operator or a comma is missing before this"),
    ("größe > 1\nmode == 'ä'", 2, 1, "an operator or a comma is missing before this"),
    ("mode in ('ä' 'b')", 1, 14, "an operator or a comma is missing before this"),
    ("mode in ('ä',\n 'é'\n 'b')", 3, 2, "an operator or a comma is missing before this"),
    ("amount > 1 2", 1, 12, "an operator or a comma is missing before this"),
    ("(amount > 1) small", 1, 14, "invalid syntax"),
    ("(größe > 1", 1, 1, "'(' was never closed"),
    ("mode == 'ä' and\n (größe > 1", 2, 2, "'(' was never closed"),
    ("größe > 1)", 1, 10, "unmatched ')'"),
    ("(größe > 1]", 1, 11, "closing parenthesis ']' does not match opening parenthesis '('"),
    ("(" * 300 + "small" + ")" * 300, 1, 201, "too many nested parentheses"),
    ("not " * DEPTH_MAX + "small", 1, 4 * DEPTH_MAX + 1, "nested too deep: at most 64 levels"),
    ("not " * 2_400 + "small", 1, 4 * DEPTH_MAX + 1, "nested too deep"),
    ("-" * 9_000 + "1 < amount", 1, 1, "nested too deep"),
    ("\n" + "amount" + " + amount" * 70 + " > 1", 2, 1, "nested too deep"),
    ("amount[1] > 2", 1, 1, "not a condition; allowed: + - * /"),
    ("min(*amount, 2) > 1", 1, 5, "not a condition; allowed: + - * /"),
    ("amount > (1, 2)", 1, 10, "a list stands after in or not in"),
    ("[]", 1, 1, "a list stands after in or not in"),
    ("{}", 1, 1, "not a condition"),
    ("(amount)(2) > 1", 1, 1, "this is no function"),
    ("min(amount, 1)(2) > 1", 1, 1, "this is no function"),
    ("min(amount) > 1", 1, 1, "min takes two or more arguments, not 1"),
    ("größe > max()", 1, 9, "max takes two or more arguments, not 0"),
    ("abs(amount, 1) > 1", 1, 1, "abs takes one argument, not 2"),
    ("known()", 1, 1, "known takes one argument, not 0"),
]
ODD_TYPES: list[Refused] = [
    ("amount", 1, 1, "'amount' alone is no condition; compare it with a value"),
    ("mode", 1, 1, "'mode' alone is no condition"),
    ("1", 1, 1, "1 alone is no condition"),
    ("amount + 1", 1, 1, "this alone is no condition"),
    ("'ä' == mode and\n größe", 2, 2, "'größe' alone is no condition"),
    ("amount == 1 or 2", 1, 16, "2 alone is no condition"),
    ("not -amount", 1, 5, "this alone is no condition"),
    ("mode == 'ä' or 'b'", 1, 16, "text in quotes stands beside a name"),
    ("'a'", 1, 1, "text in quotes stands beside a name"),
    ("'a' == 'b'", 1, 8, "text in quotes stands beside a name"),
    ("'a' in ('a', 'b')", 1, 1, "text in quotes stands beside a name"),
    ("known('ä')", 1, 7, "text in quotes stands beside a name"),
    ("amount + 'a' > 1", 1, 10, "text in quotes stands beside a name"),
    ("mode + 1 > 2", 1, 1, "'mode' is no number"),
    ("größe *\n-mode > 2", 2, 2, "'mode' is no number"),
    ("abs(mode) > 2", 1, 5, "'mode' is no number"),
    ("max(größe, small) > 2", 1, 12, "'small' is no number"),
    ("(amount > 1) + 1 > 2", 1, 2, "a condition is no number"),
    ("+amount > 1", 1, 1, "a plus sign needs a number on both sides"),
    ("mode > 'a'", 1, 8, "text has no order"),
    ("'ä' <= mode", 1, 1, "text has no order"),
    ("mode > 1", 1, 8, "'mode' is text: compare it with text in quotes"),
    ("mode == 5411", 1, 9, "'mode' is text: compare it with text in quotes"),
    ("größe == mode", 1, 1, "'mode' is text: compare it with text in quotes"),
    ("mode == shop", 1, 9, "'mode' is text: compare it with text in quotes"),
    ("mode in ('ä', 1)", 1, 15, "'mode' is text: compare it with text in quotes"),
    ("mode in ('ä', shop)", 1, 15, "'mode' is text: compare it with text in quotes"),
    ("mode in 'abc'", 1, 9, "not a list of values"),
    ("mode in ('abc')", 1, 10, "not a list of values"),
    ("größe in ()", 1, 10, "not a list of values"),
    ("größe in\n (1 + 2)", 2, 3, "not a list of values"),
    ("größe in {}", 1, 10, "not a list of values"),
    ("mode in shop", 1, 9, "not a list of values"),
    ("größe == '2'", 1, 10, "'größe' is a number: compare it with a number, without quotes"),
    ("größe + 1 == '2'", 1, 14, "this is a number: compare it with a number, without quotes"),
    ("größe in (1, '2')", 1, 14, "'größe' is a number: compare it with a number, without quotes"),
    ("größe in (1, amount)", 1, 14, "not a value; a list has numbers, or text in quotes"),
    ("größe in (1, 1 + 1)", 1, 14, "not a value; a list has numbers, or text in quotes"),
    ("größe in (1, *amount)", 1, 14, "not a condition"),
    ("small == small", 1, 1, "'small' stands alone, or after not: a flag is never null"),
    ("größe > 1 and small > 1", 1, 15, "'small' stands alone, or after not: a flag is never null"),
    ("small in (1, 2)", 1, 1, "'small' stands alone, or after not: a flag is never null"),
    ("known(event.abroad)", 1, 7, "'event.abroad' stands alone"),
    ("known(amount > 1)", 1, 7, "a condition stands alone"),
    ("1 < 2", 1, 1, "has no name in it"),
    ("small or 1 + 1 == 2", 1, 10, "has no name in it"),
    ("1 < 2 < amount", 1, 1, "has no name in it"),
    ("known(1)", 1, 7, "has no name in it"),
    ("1 in (1, 2)", 1, 1, "has no name in it"),
    ("min(1, 2) == 1", 1, 1, "has no name in it"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "column", "said"), [*ODD_TOKENS, *ODD_WORDS, *ODD_GRAMMAR, *ODD_TYPES])
def test_no_expression(text: str, line: int, column: int, said: str) -> None:
    with pytest.raises(ExpressionError, match=re.escape(said)) as raised:
        parse(text)
    error = raised.value
    assert (error.line, error.column) == (line, column)
    assert str(error) == f"line {line}, column {column}: {error.message}"
    assert len(str(error)) < 300


SCRAPS = [
    *"()[]{},+-*/.:#\\\n\0'\"<=!%",
    *[
        "amount",
        "card.count.1h",
        "größe",
        "mode",
        "small",
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
    ],
    *["min(", "known(", " ", "if", "else", "lambda", "for", "await", "f'", ":=", "\ud800", "٣", "²", "**", "not in"],
]


@given(st.text(max_size=30) | st.lists(st.sampled_from(SCRAPS), max_size=14).map(" ".join))
def test_whatever_is_written_is_an_expression_or_an_error_that_says_where(text: str) -> None:
    expression, where = None, (1, 1)
    try:
        expression = parse(text)
    except ExpressionError as error:
        where = (error.line, error.column)
    assert expression is None or parse(expression.text) == expression
    lines = re.split(r"\r\n|\r|\n", text)
    assert 1 <= where[0] <= len(lines)
    assert 1 <= where[1] <= len(lines[where[0] - 1]) + 1
