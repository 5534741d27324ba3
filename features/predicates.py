"""Predicates: named conditions on one event, such as `amount < 2.00 and entry_mode in ("ecom", "moto")`.

A condition compares a field with a literal: `==`, `!=`, `<`, `<=`, `>`, `>=`, and `in` or `not in` a list in brackets;
conditions are joined by `and`, `or`, `not` and parentheses. The amount is compared exactly, in minor units; number
fields as float64; every other field is text, which has no order. Whatever is compared with a field that an event does
not have is false, `!=` and `not in` included; `not` alone turns that around.

The notation is Python's, and Python's parser reads it. Nothing of it is ever executed.
"""

import ast
import math
import operator
import re
import warnings
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from features.spec import AMOUNT, CLOCK_FEATURES

Int64 = NDArray[np.int64]
UInt64 = NDArray[np.uint64]
Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

TEXT_CHARS_MAX = 10_000
# Of an expression that is quoted in an error.
SHOWN_CHARS_MAX = 200
DEPTH_MAX = 32
NUMBER_CHARS_MAX = 40

Kind = Literal["amount", "number", "text"]
Value = Decimal | str

_DECIMAL = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
# More digits than a literal can have.
_CONTEXT = Context(prec=2 * NUMBER_CHARS_MAX)
_OPERATORS: dict[type[ast.cmpop], str] = {
    ast.Eq: "==", ast.In: "==", ast.NotEq: "!=", ast.NotIn: "!=",
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=",
}  # fmt: skip
_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
_ORDERS: dict[str, Callable[[Any, float], Bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


class PredicateError(ValueError):
    """An expression that is no predicate; the message says what, and at which column, counted from 1."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A field against its literals, ascending: `==` holds for any one of them, `!=` for none, an order has one."""

    field: str
    kind: Kind
    operator: str
    literals: tuple[Value, ...]

    def __str__(self) -> str:
        written = [_written(value) for value in self.literals]
        if len(written) > 1:
            return f"{self.field} {'in' if self.operator == '==' else 'not in'} ({', '.join(written)})"
        return f"{self.field} {self.operator} {written[0]}"


@dataclass(frozen=True, slots=True)
class Not:
    """What holds where the other does not."""

    condition: "Condition"

    def __str__(self) -> str:
        return f"not ({self.condition})"


@dataclass(frozen=True, slots=True)
class Junction:
    """Two or more conditions joined by `and` or by `or`."""

    word: str
    conditions: tuple["Condition", ...]

    def __str__(self) -> str:
        return f" {self.word} ".join(f"({c})" if isinstance(c, Junction) else str(c) for c in self.conditions)


Condition = Comparison | Not | Junction


@dataclass(frozen=True, slots=True)
class Predicate:
    """A condition that was checked: `texts` and `numbers` are the fields it compares, beside the amount.

    `text` is the same for expressions that differ only in how they are written.
    """

    condition: Condition
    text: str
    texts: tuple[str, ...]
    numbers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Inputs:
    """Columns of n events. `amounts_minor`: at most 10^13; by field `numbers` (NaN absent) and `words` (0 absent)."""

    amounts_minor: Int64
    numbers: Mapping[str, Float64]
    words: Mapping[str, UInt64]


Test = Callable[[Inputs], Bool]


def parse_predicate(text: str, numbers: Container[str]) -> Predicate:
    """Reads an expression over the amount, the fields in `numbers`, and any others, as text; raises PredicateError."""
    if len(text) > TEXT_CHARS_MAX:
        raise PredicateError(f"{len(text)} characters: at most {TEXT_CHARS_MAX} are allowed")
    condition = _Parser(text, numbers).parse()
    compared = {(c.kind, c.field) for c in _comparisons(condition)}
    texts, number_fields = (tuple(sorted(f for k, f in compared if k == kind)) for kind in ("text", "number"))
    return Predicate(condition, str(condition), texts, number_fields)


def compile_predicate(predicate: Predicate, minor_per_major: int, word_of: Callable[[str, str], int]) -> Test:
    """The test of whole columns; `word_of(field, text)` is the word of a text in a column, never 0."""
    return _compile(predicate.condition, minor_per_major, word_of)


class _Parser:
    """One expression on its way to a condition; every other way out is a PredicateError."""

    def __init__(self, text: str, numbers: Container[str]) -> None:
        """Line ends count as spaces, so that a long expression may stand on several lines."""
        self._text = re.sub(r"[\r\n\t\f]", " ", text).strip()
        self._numbers = numbers

    def parse(self) -> Condition:
        if not self._text:
            raise PredicateError("is empty; write a comparison, as in amount < 2.00")
        if "\0" in self._text:  # to which every version of Python says something else
            raise self._error_at(self._text.index("\0"), "null characters are not allowed")
        try:
            with warnings.catch_warnings(action="error"):
                root = ast.parse(self._text, mode="eval").body
        except SyntaxError as error:
            raise self._error_at((error.offset or len(self._text) + 1) - 1, error.msg) from None
        except UnicodeEncodeError as error:
            raise self._error_at(error.start, "a lone surrogate is no character") from None
        except (RecursionError, MemoryError):
            raise self._error_at(0, "nested too deep") from None
        rest = self._text.encode()[root.end_col_offset or 0 :]
        if rest.strip(b") "):
            raise self._error_at(len(self._text) - len(rest.lstrip(b") ").decode()), "comments are not allowed")
        return self._condition(root, DEPTH_MAX)

    def _condition(self, node: ast.expr, depth: int) -> Condition:
        if not depth:
            raise self._error(node, f"nested too deep: at most {DEPTH_MAX} levels of and, or, not")
        match node:
            case ast.BoolOp(op=op, values=values):
                word = "and" if isinstance(op, ast.And) else "or"
                return _joined(word, [self._condition(value, depth - 1) for value in values])
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return Not(self._condition(operand, depth - 1))
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                # As in Python, 1 < amount < 5 means 1 < amount and amount < 5.
                sides = [left, *comparators]
                pairs = zip(sides, ops, comparators, strict=False)
                return _joined("and", [self._comparison(a, op, b) for a, op, b in pairs])
            case ast.Name():
                raise self._error(node, f"{self._segment(node)!r} alone is no condition; compare it with a value")
            case _:
                raise self._error(node, "not a condition; allowed: ==, !=, <, <=, >, >=, in, not in, and, or, not, ( )")

    def _comparison(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> Comparison:
        if type(op) not in _OPERATORS:
            raise self._error(left, "'is' compares no values; write == or !=")
        written, literals = _OPERATORS[type(op)], [right]
        if isinstance(op, ast.In | ast.NotIn):
            if not isinstance(right, ast.Tuple | ast.List | ast.Set) or not right.elts:
                raise self._error(right, "not a list of values, as in (1, 2)")
            literals = right.elts
        elif isinstance(right, ast.Name) and not isinstance(left, ast.Name):
            left, written, literals = right, _MIRRORED[written], [left]
        if not isinstance(left, ast.Name):
            raise self._error(left, "not a field; a comparison needs one on one side")
        field, kind = self._field(left)
        if kind == "text" and written not in ("==", "!="):
            raise self._error(
                left, f"{field!r} is text, which has no order; list it in mapping.numbers if it is a number"
            )
        values = {self._literal(literal, field, kind) for literal in literals}
        return Comparison(field, kind, written, tuple(sorted(values)))

    def _field(self, node: ast.Name) -> tuple[str, Kind]:
        # Not node.id, in which Python has replaced letters by others that it takes for the same.
        field = self._segment(node)
        if field in CLOCK_FEATURES:
            raise self._error(node, f"{field!r} is a feature, and no field of an event")
        if field == AMOUNT:
            return field, "amount"
        return field, "number" if field in self._numbers else "text"

    def _literal(self, node: ast.expr, field: str, kind: Kind) -> Value:
        match node:
            case ast.Constant(value=str(text)):
                return self._text_literal(node, text, field, kind)
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=ast.Constant() as operand):
                number = self._number_literal(operand, field, kind)
                return _CONTEXT.minus(number) if isinstance(sign, ast.USub) else number
            case ast.Constant():
                return self._number_literal(node, field, kind)
            case ast.Name():
                raise self._error(
                    node, f"{self._segment(node)!r} is a field, or lacks its quotes: compare with a value"
                )
            case _:
                raise self._error(node, "not a value; allowed: a number, or text in quotes")

    def _text_literal(self, node: ast.expr, text: str, field: str, kind: Kind) -> str:
        if kind != "text":
            raise self._error(node, f"{field!r} is a number: compare it with a number, without quotes")
        if not text:
            raise self._error(node, "empty text counts as absent, and never compares")
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise self._error(node, "a lone surrogate is no character")
        return text

    def _number_literal(self, node: ast.Constant, field: str, kind: Kind) -> Decimal:
        written = self._segment(node)
        if type(node.value) not in (int, float) or not _DECIMAL.fullmatch(written):
            raise self._error(node, "not a value; allowed: a decimal number, or text in quotes")
        if kind == "text":
            raise self._error(
                node, f"{field!r} is text: write the value in quotes, or list {field!r} in mapping.numbers"
            )
        if len(written) > NUMBER_CHARS_MAX or not math.isfinite(float(written)):
            raise self._error(node, f"too large, or longer than {NUMBER_CHARS_MAX} characters")
        return _CONTEXT.normalize(Decimal(written))

    def _segment(self, node: ast.expr) -> str:
        """The source of a node; the parser counts in UTF-8 bytes."""
        return self._text.encode()[node.col_offset : node.end_col_offset].decode()

    def _error(self, node: ast.expr, message: str) -> PredicateError:
        return self._error_at(len(self._text.encode()[: node.col_offset].decode()), message)

    def _error_at(self, at: int, message: str) -> PredicateError:
        shown = self._text if len(self._text) <= SHOWN_CHARS_MAX else f"{self._text[:SHOWN_CHARS_MAX]}..."
        return PredicateError(f"{shown!r}: column {at + 1}: {message}")


def _joined(word: str, conditions: list[Condition]) -> Condition:
    """The conditions as one, without a junction directly below one of the same word."""
    flat: list[Condition] = []
    for condition in conditions:
        same = isinstance(condition, Junction) and condition.word == word
        flat += condition.conditions if isinstance(condition, Junction) and same else (condition,)
    return flat[0] if len(flat) == 1 else Junction(word, tuple(flat))


def _written(value: Value) -> str:
    if isinstance(value, str):
        return repr(value)
    plain = f"{value:f}"
    return plain if len(plain) <= NUMBER_CHARS_MAX else str(value)


def _comparisons(condition: Condition) -> Iterator[Comparison]:
    match condition:
        case Comparison():
            yield condition
        case Not():
            yield from _comparisons(condition.condition)
        case Junction():
            for inner in condition.conditions:
                yield from _comparisons(inner)


def _compile(condition: Condition, minor_per_major: int, word_of: Callable[[str, str], int]) -> Test:
    match condition:
        case Comparison(kind="amount"):
            return _amount_test(condition, minor_per_major)
        case Comparison(kind="number"):
            return _number_test(condition)
        case Comparison():
            return _text_test(condition, word_of)
        case Not():
            inverse = _compile(condition.condition, minor_per_major, word_of)
            return lambda inputs: ~inverse(inputs)
        case Junction():
            first, *others = (_compile(inner, minor_per_major, word_of) for inner in condition.conditions)
            join = np.logical_and if condition.word == "and" else np.logical_or

            def joined(inputs: Inputs) -> Bool:
                holds = first(inputs)
                for other in others:
                    join(holds, other(inputs), out=holds)
                return holds

            return joined


def _amount_test(comparison: Comparison, minor_per_major: int) -> Test:
    """Whole minor units against a literal that need not be whole: m < 199.5 is m < 200, and m == 199.5 is never."""
    exact = [Fraction(value) * minor_per_major for value in comparison.literals]
    limits = np.iinfo(np.int64)

    def bounded(minor: int) -> int:
        return max(limits.min, min(minor, limits.max))

    if comparison.operator in _ORDERS:
        order = _ORDERS[comparison.operator]
        bound = bounded(math.ceil(exact[0]) if comparison.operator in ("<", ">=") else math.floor(exact[0]))
        return lambda inputs: order(inputs.amounts_minor, bound)
    whole = np.array([bounded(int(value)) for value in exact if value.denominator == 1], np.int64)
    if comparison.operator == "==":
        return lambda inputs: _any_of(inputs.amounts_minor, whole)
    return lambda inputs: ~_any_of(inputs.amounts_minor, whole)


def _number_test(comparison: Comparison) -> Test:
    field, literals = comparison.field, np.array([float(value) for value in comparison.literals], np.float64)
    if comparison.operator in _ORDERS:
        order, literal = _ORDERS[comparison.operator], float(literals[0])
        return lambda inputs: order(inputs.numbers[field], literal)
    if comparison.operator == "==":
        return lambda inputs: _any_of(inputs.numbers[field], literals)
    return lambda inputs: ~(_any_of(inputs.numbers[field], literals) | np.isnan(inputs.numbers[field]))


def _text_test(comparison: Comparison, word_of: Callable[[str, str], int]) -> Test:
    field = comparison.field
    words = np.array([word_of(field, str(value)) for value in comparison.literals], np.uint64)
    if comparison.operator == "==":
        return lambda inputs: _any_of(inputs.words[field], words)
    return lambda inputs: ~_any_of(inputs.words[field], words) & (inputs.words[field] != 0)


def _any_of(column: NDArray[Any], values: NDArray[Any]) -> Bool:
    """Which rows hold one of the values; for a single one much faster than `np.isin` in a small batch."""
    found: Bool = column == values[0] if len(values) == 1 else np.isin(column, values)
    return found
