"""Evaluation of rules over whole columns: each distinct part of all of them once per batch.

What null, comparisons and arithmetic mean stands in engine/policy/expressions.py. Here an absent number is NaN, which
compares as false by itself, except that it is unequal to everything; an absent text is the word 0.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.policy.expressions import (
    Among,
    Arithmetic,
    Call,
    Comparison,
    Expression,
    Junction,
    Known,
    Name,
    Negative,
    Node,
    Not,
    Number,
    kind_of,
)

UInt64 = NDArray[np.uint64]
Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

# Up to here it is quicker to compare with one literal after the other than to search among them.
_ONE_BY_ONE_MAX = 8

_ARITHMETIC: dict[str, np.ufunc] = {"+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide}
_COMPARISONS: dict[str, np.ufunc] = {
    "==": np.equal, "<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal,
}  # fmt: skip
# Of a number and null, fmin and fmax give the number.
_EXTREMES: dict[str, np.ufunc] = {"min": np.fmin, "max": np.fmax}


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns of n events by name. `numbers`: NaN or infinite where absent; `texts`: hash words, 0 where absent."""

    numbers: Mapping[str, Float64]
    texts: Mapping[str, UInt64]
    flags: Mapping[str, Bool]

    @property
    def rows(self) -> int:
        """n; 0 without any column."""
        columns: chain[NDArray[Any]] = chain(self.numbers.values(), self.texts.values(), self.flags.values())
        return next((len(column) for column in columns), 0)


# The word of a text in a column, by the column's name; never 0.
WordOf = Callable[[str, str], int]
# One part's values from the columns, and from those of the parts before it.
_Step = Callable[[Columns, list[NDArray[Any]]], NDArray[Any]]


def compile_expression(expression: Expression, word_of: WordOf) -> Callable[[Columns], Bool]:
    """The test of whole columns: bool[n], the caller's own. It raises KeyError for a column that is not there."""
    test = compile_rules([expression], word_of)

    def holds(columns: Columns) -> Bool:
        row: Bool = test(columns)[0]
        return row

    return holds


def compile_rules(expressions: Sequence[Expression], word_of: WordOf) -> Callable[[Columns], Bool]:
    """The test of several expressions: bool[expressions, n]. It raises KeyError for a column that is not there.

    A part that several expressions have, or one of them several times, is evaluated once per batch.
    """
    plan = _Plan(word_of)
    roots = [plan.place(expression.root) for expression in expressions]
    steps = plan.steps

    def holds(columns: Columns) -> Bool:
        values: list[NDArray[Any]] = []
        with np.errstate(all="ignore"):
            for step in steps:
                values.append(step(columns, values))
        found = np.empty((len(roots), len(values[roots[0]]) if roots else columns.rows), np.bool_)
        for row, place in enumerate(roots):
            found[row] = values[place]
        return found

    return holds


class _Plan:
    """`steps` in the order in which they are taken, one for each distinct part, after those that it builds on."""

    def __init__(self, word_of: WordOf) -> None:
        self.steps: list[_Step] = []
        self._word_of = word_of
        self._places: dict[Node, int] = {}

    def place(self, node: Node) -> int:
        """The number of the step that gives a part's values; literals are arrays of one, all others of n."""
        if node not in self._places:
            step = self._step(node)
            self._places[node] = len(self.steps)
            self.steps.append(step)
        return self._places[node]

    def _step(self, node: Node) -> _Step:
        match node:
            case Number(value=value):
                literal = np.array([value])
                return lambda columns, values: literal
            case Name():
                return _column(node)
            case Negative(operand=operand):
                return self._mapped(np.negative, operand)
            case Arithmetic(operator=operator, left=left, right=right):
                return self._arithmetic(_ARITHMETIC[operator], left, right)
            case Call(function="abs", arguments=(argument,)):
                return self._mapped(np.absolute, argument)
            case Call(function=function, arguments=arguments):
                return self._folded(_EXTREMES[function], arguments)
            case Known(operand=operand):
                return self._known(operand)
            case Comparison():
                return self._compared(node)
            case Among(within=True):
                return self._among(node)
            case Among():
                return self._others(node)
            case Not(condition=condition):
                return self._mapped(np.logical_not, condition)
            case Junction(word=word, conditions=conditions):
                return self._folded(np.logical_and if word == "and" else np.logical_or, conditions)

    def _mapped(self, function: np.ufunc, operand: Node) -> _Step:
        place = self.place(operand)
        return lambda columns, values: function(values[place])

    def _folded(self, function: np.ufunc, operands: Sequence[Node]) -> _Step:
        first, second, *others = (self.place(operand) for operand in operands)

        def folded(columns: Columns, values: list[NDArray[Any]]) -> NDArray[Any]:
            result: NDArray[Any] = function(values[first], values[second])
            for other in others:
                result = function(result, values[other])
            return result

        return folded

    def _arithmetic(self, function: np.ufunc, left: Node, right: Node) -> _Step:
        one, other = self.place(left), self.place(right)
        return lambda columns, values: _finite(function(values[one], values[other]))

    def _known(self, operand: Node) -> _Step:
        place = self.place(operand)
        if kind_of(operand) == "text":
            return lambda columns, values: values[place] != 0
        return lambda columns, values: np.isfinite(values[place])

    def _compared(self, node: Comparison) -> _Step:
        left, right = self.place(node.left), self.place(node.right)
        if node.operator == "!=":
            # NaN is neither less nor greater, but it is unequal.
            return lambda columns, values: (values[left] < values[right]) | (values[left] > values[right])
        compare = _COMPARISONS[node.operator]
        return lambda columns, values: compare(values[left], values[right])

    def _others(self, node: Among) -> _Step:
        """What is there, and none of the literals."""
        known, among = self.place(Known(node.operand)), self.place(Among(node.operand, node.literals, True))
        return lambda columns, values: values[known] & ~values[among]

    def _among(self, node: Among) -> _Step:
        place, literals = self.place(node.operand), self._literals(node)
        if len(literals) > _ONE_BY_ONE_MAX:
            # Past the end, as NaN is, means the last literal, which is another.
            return lambda columns, values: (
                literals.take(literals.searchsorted(values[place]), mode="clip") == values[place]
            )
        # Arrays of one, so that numpy need not convert a number each time.
        first, *others = literals.reshape(-1, 1)

        def among(columns: Columns, values: list[NDArray[Any]]) -> Bool:
            column = values[place]
            found: Bool = column == first
            for literal in others:
                found |= column == literal
            return found

        return among

    def _literals(self, node: Among) -> NDArray[Any]:
        """The literals as they are in the column, ascending."""
        if not isinstance(node.operand, Name) or node.operand.kind == "number":
            return np.array(node.literals, np.float64)
        words = [self._word_of(node.operand.name, str(literal)) for literal in node.literals]
        return np.array(sorted(words), np.uint64)


def _column(node: Name) -> _Step:
    name = node.name
    match node.kind:
        case "number":
            return lambda columns, values: _finite(columns.numbers[name])
        case "text":
            return lambda columns, values: columns.texts[name]
        case "flag":
            return lambda columns, values: columns.flags[name]


def _finite(numbers: Float64) -> Float64:
    """The numbers, with NaN for those that are infinite; there is hardly ever one."""
    infinite = np.isinf(numbers)
    return np.where(infinite, np.nan, numbers) if np.count_nonzero(infinite) else numbers
