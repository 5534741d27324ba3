"""Rule expressions: columns say what the oracle says of every row, together and alone, and text is read as written."""

import math
import re
from collections.abc import Iterator

import numpy as np
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st

from engine.policy.expressions import Expression, Kind, parse_expression
from features.words import column_seed, key_hashes
from tests.oracle.expressions import Row, holds
from tests.rules import Columns, evaluated, ready

NUMBERS = ("amount", "card.count.1h", "card.sum.amount.24h.small.prior", "größe")
TEXTS = ("entry_mode", "country")
FLAGS = ("small", "event.abroad")
NAMES: dict[str, Kind] = {
    **dict.fromkeys(NUMBERS, "number"), **dict.fromkeys(TEXTS, "text"), **dict.fromkeys(FLAGS, "flag"),
}  # fmt: skip

# --- expressions as they are written -----------------------------------------------------------------------------

gaps = st.sampled_from([" ", " ", " ", "\n", "\r\n  ", "\t"])
number_literals = st.sampled_from(
    ["0", "1", "2.00", "2.005", ".5", "-1", "- 3.", "1e1", "1e300", "-1e300", "1e-320", "-0", "--2"]
)
text_literals = st.sampled_from(["'a'", '"a"', '"b"', "'é\"'", r"'\x61'", r"'\\'", "'card.count.1h and ('"])
numbers = st.deferred(lambda: numbers_of_any_depth)
flags = st.deferred(lambda: flags_of_any_depth)
WITHIN = ("in", "not in")


@st.composite
def chained(draw: st.DrawFn, operand: st.SearchStrategy[str], operators: str, least: int, most: int) -> str:
    """Operands with operators between them, and without parentheses: what binds tighter is the parser's to know."""
    parts = [draw(operand)]
    for _ in range(draw(st.integers(least, most)) - 1):
        parts += [draw(gaps), draw(st.sampled_from(operators.split())), draw(gaps), draw(operand)]
    return "".join(parts)


@st.composite
def listed(draw: st.DrawFn, literals: st.SearchStrategy[str]) -> str:
    """Now and then more literals than are compared one by one."""
    items = draw(st.lists(literals, min_size=1, max_size=3)) + draw(st.sampled_from([[], [], [draw(literals)] * 8]))
    if draw(st.booleans()):
        items += [f"{'9' * digits}" if items[0][-1] not in "'\"" else f"'{'z' * digits}'" for digits in range(1, 9)]
    opening, closing = draw(st.sampled_from(["()", "[]", "{}"]))
    return f"{opening}{', '.join(items)},{closing}"


def called(function: str, arguments: list[str]) -> str:
    return f"{function}({', '.join(arguments)})"


number_names = st.sampled_from(NUMBERS)
several_numbers = st.lists(numbers, min_size=2, max_size=3)
numbers_of_any_depth = st.one_of(
    number_names,
    number_names,
    number_names,
    number_literals,
    chained(numbers, "+ - * /", 2, 3),
    st.builds(called, st.sampled_from(["min", "max"]), several_numbers),
    st.builds("abs({})".format, numbers),
    st.builds("-{}".format, number_names),
    st.builds("({})".format, numbers),
)
# A name in it, whatever else there is.
two_numbers = st.builds("{} {} {}".format, number_names, st.sampled_from("+-*//"), numbers)
varying = st.one_of(number_names, two_numbers, two_numbers)
comparisons = st.one_of(
    st.builds("{} {} {}".format, varying, st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), numbers),
    st.builds("{} {} {}".format, number_literals, st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), varying),
    chained(varying, "== != < <= > >=", 2, 3),
    st.builds("{} {} {}".format, varying, st.sampled_from(WITHIN), listed(number_literals)),
    st.builds("{} {} {}".format, st.sampled_from(TEXTS), st.sampled_from(WITHIN), listed(text_literals)),
    st.builds("{} {} {}".format, st.sampled_from(TEXTS), st.sampled_from(["==", "!="]), text_literals),
    st.builds("{} {} {}".format, text_literals, st.sampled_from(["==", "!="]), st.sampled_from(TEXTS)),
    st.builds("known({})".format, st.one_of(varying, st.sampled_from(TEXTS))),
    st.sampled_from(FLAGS),
)
flags_of_any_depth = st.one_of(
    comparisons,
    comparisons,
    st.builds("not {}".format, comparisons),
    st.builds("not {}".format, comparisons),
    chained(flags, "and or", 2, 3),
    chained(flags, "and or", 2, 3),
    st.builds(str.format, st.sampled_from(["({})", "not {}", "not ({})"]), flags),
)
expressions = flags_of_any_depth.map(lambda text: parse_expression(text, NAMES))

# --- events ------------------------------------------------------------------------------------------------------

# Zeros and numbers near the largest are what divisions and products stumble over.
odd_numbers = [0.0, 0.0, 0.0, -0.0, 1e300, -1e300, 1.7e308, 1e-320, None, None, math.nan, math.inf, -math.inf]
field_numbers = st.sampled_from([*odd_numbers, 1.0, 2.0, 2.005, 0.5, -1.0, -3.0, 10.0, 99.0]) | st.floats(-3, 3)
values = {
    **dict.fromkeys(NUMBERS, field_numbers),
    **dict.fromkeys(TEXTS, st.none() | st.sampled_from(["a", "b", 'é"', "\\", "zz", "A"])),
    **dict.fromkeys(FLAGS, st.booleans()),
}
# Now and then more rows than a step takes at once, of which the last are not whole blocks.
rows_of_columns: st.SearchStrategy[list[Row]] = st.tuples(
    st.lists(st.fixed_dictionaries(values), min_size=1, max_size=6), st.sampled_from([1, 1, 1, 23])
).map(lambda drawn: drawn[0] * drawn[1])


def columns_of(rows: list[Row]) -> Columns:
    return Columns(
        {name: np.array([row[name] for row in rows], np.float64) for name in NUMBERS},
        {name: key_hashes([row[name] for row in rows], column_seed(name)) for name in TEXTS},
        {name: np.array([row[name] for row in rows], np.bool_) for name in FLAGS},
    )


def copied(columns: Columns) -> Iterator[bytes]:
    for kind in (columns.numbers, columns.texts, columns.flags):
        yield from (column.tobytes() for column in kind.values())


# --- properties --------------------------------------------------------------------------------------------------


@settings(max_examples=250)
@given(expressions, rows_of_columns)
def test_columns_say_what_every_row_says(expression: Expression, rows: list[Row]) -> None:
    columns = columns_of(rows)
    before = list(copied(columns))
    found = evaluated([expression], columns)
    assert (found.dtype, found.shape) == (np.bool_, (1, len(rows)))
    assert found[0].tolist() == [holds(expression.root, row) for row in rows]
    assert list(copied(columns)) == before


@settings(max_examples=60)
@given(st.lists(expressions, max_size=6), rows_of_columns, rows_of_columns)
def test_rules_together_are_each_alone(expressions: list[Expression], rows: list[Row], later: list[Row]) -> None:
    rules, _ = ready(expressions, columns_of(rows))
    for columns in (columns_of(rows), columns_of(later)):
        found = rules.holds(ready(expressions, columns)[1])
        assert (found.dtype, found.shape) == (np.bool_, (len(expressions), columns.rows))
        assert found.tolist() == [evaluated([one], columns)[0].tolist() for one in expressions]


@settings(max_examples=200)
@given(expressions)
def test_a_text_is_read_as_it_was_written(expression: Expression) -> None:
    assert parse_expression(expression.text, NAMES) == expression


whole = {
    **dict.fromkeys(NUMBERS, st.integers(-4, 4).map(float)),
    **dict.fromkeys(TEXTS, st.sampled_from(["a", "b", 'é"', "\\"])),
    **dict.fromkeys(FLAGS, st.booleans()),
}


@settings(max_examples=150)
@given(flags_of_any_depth, st.fixed_dictionaries(whole))
def test_without_nulls_an_expression_is_pythons(text: str, row: Row) -> None:
    """Python knows best what binds tighter; where it divides by zero, or may reach infinity, there are nulls."""
    plain = re.sub(r"[\r\n]", " ", text)
    for name in NAMES:
        plain = plain.replace(name, name.replace(".", "_"))
    names = {name.replace(".", "_"): value for name, value in row.items()} | {"known": lambda value: True}
    assume(not re.search("e-?3", plain))
    try:
        meaning = eval(plain, names)
    except ZeroDivisionError:
        reject()
    assert evaluated([parse_expression(text, NAMES)], columns_of([row])).tolist() == [[meaning]]
